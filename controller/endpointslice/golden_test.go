package endpointslice

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"sigs.k8s.io/yaml"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
)

var updateGolden = flag.Bool("update", false, "rewrite testdata/*.out.yaml")

// world is the input of the computation.
type world struct {
	service   *corev1.Service
	pods      []*corev1.Pod
	instances []*v1alpha1.Instance
	zones     map[string]string
	slices    []*discoveryv1.EndpointSlice
}

func (w *world) layout(t testing.TB, max int) *layout {
	t.Helper()
	l := newLayout(newView(w.service), newPool(), max)
	var wants []want
	for _, p := range w.pods {
		if selects(w.service.Spec.Selector, p.Labels) {
			wants = l.wantPod(wants, p, func(n string) string { return w.zones[n] })
		}
	}
	for _, in := range w.instances {
		if in.Spec.Service == w.service.Name {
			wants = l.wantInstance(wants, in)
		}
	}
	l.load(w.slices, wants)
	return l
}

func readWorld(t *testing.T, path string) *world {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{zones: map[string]string{}}
	for _, doc := range bytes.Split(b, []byte("\n---\n")) {
		var kind struct{ Kind string }
		into := func(v any) {
			if err := yaml.UnmarshalStrict(doc, v); err != nil {
				t.Fatalf("%s: %v", path, err)
			}
		}
		if err := yaml.Unmarshal(doc, &kind); err != nil {
			t.Fatal(err)
		}
		switch kind.Kind {
		case "Service":
			w.service = &corev1.Service{}
			into(w.service)
		case "Pod":
			p := &corev1.Pod{}
			into(p)
			w.pods = append(w.pods, p)
		case "Instance":
			in := &v1alpha1.Instance{}
			into(in)
			w.instances = append(w.instances, in)
		case "EndpointSlice":
			s := &discoveryv1.EndpointSlice{}
			into(s)
			w.slices = append(w.slices, s)
		case "Node":
			n := &corev1.Node{}
			into(n)
			w.zones[n.Name] = n.Labels[corev1.LabelTopologyZone]
		default:
			t.Fatalf("%s: kind %q is not part of a world", path, kind.Kind)
		}
	}
	return w
}

// TestGolden runs every testdata/x.in.yaml and compares the writes with
// x.out.yaml. A bug report becomes a test by pasting its objects.
func TestGolden(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*.in.yaml")
	if err != nil || len(inputs) == 0 {
		t.Fatal("no golden files", err)
	}
	for _, in := range inputs {
		t.Run(strings.TrimSuffix(filepath.Base(in), ".in.yaml"), func(t *testing.T) {
			w := readWorld(t, in)
			max := 100
			if m := w.service.Annotations["test/max"]; m != "" {
				fmt.Sscan(m, &max)
			}
			var out bytes.Buffer
			for _, o := range w.layout(t, max).plan(w.service.CreationTimestamp.Time) {
				fmt.Fprintf(&out, "--- # %s %s\n", verbs[o.verb], o.obj.Name)
				if o.verb == remove {
					continue
				}
				b, err := yaml.Marshal(o.obj)
				if err != nil {
					t.Fatal(err)
				}
				out.Write(b)
			}
			golden := strings.Replace(in, ".in.", ".out.", 1)
			if *updateGolden {
				if err := os.WriteFile(golden, out.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(want, out.Bytes()) {
				t.Errorf("writes differ from %s:\n%s", golden, out.Bytes())
			}
		})
	}
}
