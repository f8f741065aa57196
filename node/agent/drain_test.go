package agent

import (
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// TestDrain: containers are left alone while somebody sends to their pod, and
// a moment longer, but not for ever, and not when nobody does.
func TestDrain(t *testing.T) {
	for name, tc := range map[string]struct {
		known  bool
		called time.Duration // how long services send to it
		grace  int64
		want   time.Duration
	}{
		"no service":         {grace: 30},
		"taken out at once":  {known: true, grace: 30, want: drainSettle},
		"taken out later":    {known: true, called: 300 * time.Millisecond, grace: 30, want: 300*time.Millisecond + drainSettle},
		"never taken out":    {known: true, called: time.Hour, grace: 30, want: drainMost},
		"little grace":       {known: true, called: time.Hour, grace: 2, want: time.Second},
		"little grace, soon": {known: true, grace: 1, want: drainSettle},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				a := &Agent{cfg: Config{Called: func(namespace string, addrs []netip.Addr) func() bool {
					if namespace != "ns" || !slices.Contains(addrs, netip.MustParseAddr("10.244.0.2")) {
						t.Errorf("asked for %v of %s", addrs, namespace)
					}
					if !tc.known {
						return nil
					}
					return func() bool { return time.Since(began) < tc.called }
				}}}
				p := &pod{a: a, namespace: "ns", api: &corev1.Pod{}}
				p.api.DeletionGracePeriodSeconds = &tc.grace
				p.setup.ips = []string{"10.244.0.2"}
				p.containers = []*container{{attempt: 0}}
				p.containers[0].run.PID = 1
				p.containers[0].run.Started = began
				p.out.want = &corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}
				for {
					at := p.stepDrain(time.Now())
					if at.IsZero() {
						break
					}
					time.Sleep(time.Until(at))
				}
				if got := time.Since(began); got < tc.want || got > tc.want+2*drainLook {
					t.Errorf("containers were left alone for %v, want %v", got, tc.want)
				}
			})
		})
	}
}

func TestMergeLogs(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "kept"), filepath.Join(dir, "logs")
	for path, text := range map[string]string{"kept/a/0.log": "zero", "kept/b/0.log": "b", "logs/a/1.log": "one"} {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := merge(from, to); err != nil {
		t.Fatal(err)
	}
	got, err := fs.Glob(os.DirFS(dir), "*/*/*")
	if err != nil || !slices.Equal(got, []string{"logs/a/0.log", "logs/a/1.log", "logs/b/0.log"}) {
		t.Errorf("%v %v", got, err)
	}
	if _, err := os.Stat(from); !os.IsNotExist(err) {
		t.Errorf("what was merged is still there: %v", err)
	}
}
