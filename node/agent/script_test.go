package agent

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write the goldens")

// scenario is a file of testdata: a pod and what happens to it.
type scenario struct {
	Pod   any      `json:"pod"`
	Steps []string `json:"steps"`
}

// TestScenarios replays testdata/*.yaml; what the status is after each step,
// and what was told, is in the .out file beside it.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var s scenario
			if err := yaml.UnmarshalStrict(text, &s); err != nil {
				t.Fatal(err)
			}
			var got string
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) { got = play(t, s, dir) })
			golden := strings.TrimSuffix(file, ".yaml") + ".out"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(golden)
			if err != nil || string(want) != got {
				t.Errorf("got\n%s\nwant\n%s%v", got, want, err)
			}
		})
	}
}

func play(t *testing.T, s scenario, dir string) string {
	r := newRig(t)
	r.cfg.Dir = dir
	spec, _ := yaml.Marshal(s.Pod)
	pod := r.pod(string(spec))
	var out strings.Builder
	r.start()
	for _, step := range s.Steps {
		r.step(step, pod)
		fmt.Fprintf(&out, "%-24s %s\n", step, line(r.get(pod.Name)))
	}
	r.wait(3 * time.Second)
	out.WriteString("\n")
	for _, e := range r.events() {
		out.WriteString(strings.ReplaceAll(e, dir, "DIR") + "\n")
	}
	r.end()
	out.WriteString("\n" + r.rt.Dump())
	return out.String()
}

func (r *rig) step(step string, pod *corev1.Pod) {
	r.t.Helper()
	f := strings.Fields(step)
	arg := func(i int) string {
		if i < len(f) {
			return f[i]
		}
		return ""
	}
	number, _ := strconv.Atoi(arg(2))
	switch f[0] {
	case "create":
		r.create(pod)
		r.wait(100 * time.Millisecond)
	case "exit":
		if !r.rt.Exit(r.id(arg(1)), number, 0) {
			r.t.Fatalf("%s: it does not run\n%s", step, r.rt.Dump())
		}
		synctest.Wait()
	case "oom":
		r.rt.OOM(r.id(arg(1)))
		synctest.Wait()
	case "wait":
		d, err := time.ParseDuration(arg(1))
		if err != nil {
			r.t.Fatal(err)
		}
		r.wait(d)
	case "probe":
		r.mu.Lock()
		r.probes[arg(1)] = map[string]int{"ok": 0, "fail": 1}[arg(2)]
		r.mu.Unlock()
	case "image":
		r.images.set(arg(1), map[string]error{"missing": errors.New("no such host"), "never": ErrImageMissing, "badname": ErrImageName}[arg(2)])
	case "missing":
		r.rt.Missing(arg(1))
	case "stubborn":
		r.rt.Stubborn(r.id(arg(1)))
	case "configmap":
		k, v, _ := strings.Cut(arg(2), "=")
		cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: arg(1)}, Data: map[string]string{k: v}}
		c := r.api.CoreV1().ConfigMaps("default")
		if _, err := c.Update(r.t.Context(), cm, metav1.UpdateOptions{}); err != nil {
			if _, err := c.Create(r.t.Context(), cm, metav1.CreateOptions{}); err != nil {
				r.t.Fatal(err)
			}
		}
		r.wait(100 * time.Millisecond)
	case "gate":
		p := r.get(pod.Name).DeepCopy()
		p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: corev1.PodConditionType(arg(1)), Status: corev1.ConditionTrue})
		if _, err := r.api.CoreV1().Pods("default").UpdateStatus(r.t.Context(), p, metav1.UpdateOptions{}); err != nil {
			r.t.Fatal(err)
		}
		r.wait(100 * time.Millisecond)
	case "delete":
		grace, _ := strconv.ParseInt(arg(1), 10, 64)
		r.delete(pod.Name, grace)
		r.wait(100 * time.Millisecond)
	case "remove": // by force, from the API only
		zero := int64(0)
		if err := r.api.CoreV1().Pods("default").Delete(r.t.Context(), pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
			r.t.Fatal(err)
		}
		r.wait(100 * time.Millisecond)
	case "restart-agent":
		r.end()
		r.start()
		r.wait(100 * time.Millisecond)
	default:
		r.t.Fatalf("no such step: %s", step)
	}
}
