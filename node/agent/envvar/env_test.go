package envvar

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kubernetes/third_party/forked/golang/expansion"
	"sigs.k8s.io/yaml"
)

func TestExpand(t *testing.T) {
	vars := map[string]string{"A": "1", "B": "two", "EMPTY": ""}
	for in, want := range map[string]string{
		"$(A)": "1", "x$(A)y$(B)": "x1ytwo", "$$(A)": "$(A)", "$$$(A)": "$1", "$(NONE)": "$(NONE)",
		"$A": "$A", "$": "$", "$(": "$(", "$(A": "$(A", "$$": "$", "$(EMPTY)": "", "$$$$": "$$", "a$b$(A)": "a$b1",
		"$( $(A)": "$( $(A)",
	} {
		got := Expand(in, func(n string) (string, bool) { v, ok := vars[n]; return v, ok })
		if got != want {
			t.Errorf("%q gives %q, want %q", in, got, want)
		}
	}
}

// FuzzExpand compares with Kubernetes' own.
func FuzzExpand(f *testing.F) {
	for _, s := range []string{"$(A)$$(B)", "$($(A))", "$", "$$$(A", "é$é$(A)"} {
		f.Add(s)
	}
	vars := map[string]string{"A": "1", "B": "$(A)", "": "none"}
	theirs := expansion.MappingFuncFor(vars)
	f.Fuzz(func(t *testing.T, s string) {
		got := Expand(s, func(n string) (string, bool) { v, ok := vars[n]; return v, ok })
		if want := expansion.Expand(s, theirs); got != want && strings.ToValidUTF8(s, "") == s {
			t.Errorf("%q gives %q, Kubernetes %q", s, got, want)
		}
	})
}

const container = `
name: c
envFrom:
- {prefix: P_, configMapRef: {name: conf}}
- {configMapRef: {name: none, optional: true}}
- {secretRef: {name: cred}}
env:
- {name: A, value: "$(P_x) $(NOT) $$(P_x) $(SVC)"}
- {name: B, value: "$(A)!"}
- {name: SVC, value: mine}
- {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
- {name: LABEL, valueFrom: {fieldRef: {fieldPath: "metadata.labels['app']"}}}
- {name: LABELS, valueFrom: {fieldRef: {fieldPath: metadata.labels}}}
- {name: IPS, valueFrom: {fieldRef: {fieldPath: status.podIPs}}}
- {name: CPU, valueFrom: {resourceFieldRef: {resource: limits.cpu}}}
- {name: CPUM, valueFrom: {resourceFieldRef: {resource: limits.cpu, divisor: 1m}}}
- {name: MEM, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}}
- {name: REQ, valueFrom: {resourceFieldRef: {resource: requests.memory}}}
- {name: KEY, valueFrom: {configMapKeyRef: {name: conf, key: x}}}
- {name: OPT, valueFrom: {configMapKeyRef: {name: conf, key: none, optional: true}}}
- {name: SEC, valueFrom: {secretKeyRef: {name: cred, key: user}}}
- {name: EMPTY}
resources: {limits: {cpu: 1500m}, requests: {memory: 10Mi}}
`

func sources() Sources {
	return Sources{
		ConfigMap: func(n string) (map[string]string, error) {
			if n == "conf" {
				return map[string]string{"x": "1", "y": "2"}, nil
			}
			return nil, fmt.Errorf("configmap %q %w", n, ErrNotFound)
		},
		Secret: func(string) (map[string][]byte, error) { return map[string][]byte{"user": []byte("me")}, nil },
		Fields: Fields{
			Pod: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Labels: map[string]string{"app": "a", "z": `q"`}},
				Spec: corev1.PodSpec{NodeName: "n1"}},
			PodIPs:      []string{"10.0.0.1", "fd00::1"},
			Allocatable: corev1.ResourceList{corev1.ResourceMemory: resourceOf("1Gi")},
		},
		Services: []string{"SVC=10.96.0.1", "OTHER=1"},
	}
}

func TestMake(t *testing.T) {
	var c corev1.Container
	if err := yaml.UnmarshalStrict([]byte(container), &c); err != nil {
		t.Fatal(err)
	}
	env, err := Make(&c, sources())
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"SVC=mine", "OTHER=1", "P_x=1", "P_y=2", "user=me", "A=1 $(NOT) $(P_x) 10.96.0.1", "B=1 $(NOT) $(P_x) 10.96.0.1!",
		"NODE=n1", "LABEL=a", "LABELS=app=\"a\"\nz=\"q\\\"\"", "IPS=10.0.0.1,fd00::1", "CPU=2", "CPUM=1500", "MEM=1024", "REQ=10485760", "KEY=1", "SEC=me", "EMPTY="}
	if diff := cmp.Diff(want, env.List()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestMissing(t *testing.T) {
	for _, tc := range []struct{ env, want string }{
		{"env: [{name: A, valueFrom: {configMapKeyRef: {name: conf, key: nokey}}}]", "couldn't find key nokey in ConfigMap ns/conf"},
		{"env: [{name: A, valueFrom: {secretKeyRef: {name: cred, key: nokey}}}]", "couldn't find key nokey in Secret ns/cred"},
		{"env: [{name: A, valueFrom: {configMapKeyRef: {name: gone, key: nokey}}}]", `configmap "gone" not found`},
		{"env: [{name: A, valueFrom: {fieldRef: {fieldPath: spec.bad}}}]", "unsupported fieldPath: spec.bad"},
		{"envFrom: [{configMapRef: {name: gone}}]", `configmap "gone" not found`},
	} {
		var c corev1.Container
		if err := yaml.UnmarshalStrict([]byte(tc.env), &c); err != nil {
			t.Fatal(err)
		}
		if _, err := Make(&c, sources()); err == nil || err.Error() != tc.want {
			t.Errorf("%s: %v, want %s", tc.env, err, tc.want)
		} else if strings.Contains(tc.want, "gone") && !errors.Is(err, ErrNotFound) {
			t.Errorf("%v is not ErrNotFound", err)
		}
	}
}

func resourceOf(s string) resource.Quantity { return resource.MustParse(s) }
