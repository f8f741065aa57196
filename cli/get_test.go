package cli

import (
	"bytes"
	"errors"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
	"github.com/fingerpost/fingerpost/catalog"
)

var update = flag.Bool("update", false, "write the golden files")

// testNow is the time of every golden file.
var testNow = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// golden holds output against testdata/NAME.txt.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v\nWrite it with: go test ./cli -update", err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", path, got, want)
	}
}

// withExit appends what a user sees of an error, and its exit code.
func withExit(out, chatter *bytes.Buffer, err error) string {
	s := out.String()
	if chatter != nil && chatter.Len() > 0 {
		s += "[stderr] " + strings.ReplaceAll(strings.TrimSuffix(chatter.String(), "\n"), "\n", "\n[stderr] ") + "\n"
	}
	if err != nil {
		code := ExitError
		var coded *exitError
		if errors.As(err, &coded) {
			code = coded.code
		}
		s += "[exit " + string(rune('0'+code)) + "] " + err.Error() + "\n"
	}
	return s
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// world is the catalog that the golden files show.
func world() *catalog.Catalog {
	c := catalog.New(func() time.Time { return testNow })
	ago := func(d time.Duration) time.Time { return testNow.Add(-d) }
	http := []catalog.Port{{Name: "http", Protocol: catalog.TCP, Port: 80, Target: "8080"}}
	ports := []catalog.EndpointPort{{Name: "http", Protocol: catalog.TCP, Port: 8080}}
	in := catalog.Endpoint{Ports: ports, Ready: true, Serving: true, Weight: 100, Origin: "process", Node: "laptop", Zone: "a"}
	c.Update(func(t *catalog.Txn) {
		for _, n := range []string{"default", "shop", "empty"} {
			t.PutNamespace(n)
		}
		put := func(s *catalog.Service, eps ...catalog.Endpoint) {
			if s.Type == "" {
				s.Type = catalog.ClusterIP
			}
			if s.Namespace == "" {
				s.Namespace = "default"
			}
			s.Created = ago(26 * time.Hour)
			t.PutService(s)
			t.PutEndpoints(s.Key, eps)
		}
		one, two, three := in, in, in
		one.Addr, one.Target = addr("10.0.0.1"), catalog.Ref{Kind: "Instance", Name: "web-1"}
		one.Health = catalog.Health{State: catalog.Passing, By: "check http", Since: ago(5 * time.Minute)}
		two.Addr, two.Target, two.Ready, two.Serving = addr("10.0.0.2"), catalog.Ref{Kind: "Instance", Name: "web-2"}, false, false
		two.Health = catalog.Health{State: catalog.Failing, Reason: "connection refused", By: "check http", Since: ago(90 * time.Second)}
		three.Addr, three.Origin, three.Node, three.Zone, three.Weight = addr("10.0.0.3"), "kube", "", "", 50
		three.Health = catalog.Health{State: catalog.Unknown, By: "manifest"}
		put(&catalog.Service{Key: catalog.Key{Name: "web"}, ClusterIPs: []netip.Addr{addr("10.96.0.10")}, Ports: http, Labels: map[string]string{"app": "web"}}, one, two, three)

		down := two
		down.Addr, down.Target.Name = addr("10.0.1.1"), "db-1"
		down.Health = catalog.Health{State: catalog.Expired, Reason: "its heartbeats stopped", By: "lease http", Since: ago(time.Hour)}
		down.Ports = []catalog.EndpointPort{{Name: "sql", Protocol: catalog.TCP, Port: 5432}}
		put(&catalog.Service{Key: catalog.Key{Name: "db"}, ClusterIPs: []netip.Addr{addr("10.96.0.11")}, Ports: []catalog.Port{{Name: "sql", Protocol: catalog.TCP, Port: 5432, Target: "sql"}}}, down)

		put(&catalog.Service{Key: catalog.Key{Name: "nobody"}, ClusterIPs: []netip.Addr{addr("10.96.0.12")}, Ports: http})
		put(&catalog.Service{Key: catalog.Key{Name: "outside"}, Type: catalog.ExternalName, ExternalName: "db.example.com"})

		pod := one
		pod.Addr, pod.Target, pod.Origin, pod.Hostname, pod.Local = addr("127.0.0.1"), catalog.Ref{Kind: "Pod", Name: "queue-0"}, "kube", "queue-0", true
		put(&catalog.Service{Key: catalog.Key{Name: "queue"}, Headless: true, PublishNotReady: true, Ports: http}, pod)

		wrong := one
		wrong.Addr, wrong.Ports = addr("10.0.2.1"), []catalog.EndpointPort{{Name: "web", Protocol: catalog.TCP, Port: 9090}}
		put(&catalog.Service{
			Key: catalog.Key{Namespace: "shop", Name: "cart"}, Type: catalog.NodePort, ClusterIPs: []netip.Addr{addr("10.96.0.13"), addr("fd00::13")},
			Ports: []catalog.Port{{Name: "http", Protocol: catalog.TCP, Port: 80, NodePort: 31234, Target: "http"}}, Affinity: 3 * time.Hour,
		}, wrong)
		t.SetFreshness(catalog.Freshness{Synced: true})
	})
	return c
}

func TestGet(t *testing.T) {
	tests := map[string]getOptions{
		"get-services":             {},
		"get-services-all":         {all: true},
		"get-services-wide":        {all: true, format: formatWide},
		"get-services-name":        {format: formatName},
		"get-services-json":        {namespace: "shop", format: formatJSON},
		"get-service":              {name: "web"},
		"get-service-yaml":         {name: "web", format: formatYAML},
		"get-service-slip":         {name: "wbe"},
		"get-services-none":        {namespace: "empty"},
		"get-services-none-json":   {namespace: "empty", format: formatJSON},
		"get-endpoints":            {kind: "endpoints"},
		"get-endpoints-of":         {kind: "endpoints", name: "web"},
		"get-endpoints-of-nobody":  {kind: "endpoints", name: "nobody"},
		"get-endpoints-wide":       {kind: "endpoints", all: true, format: formatWide},
		"get-endpoints-json":       {kind: "endpoints", name: "db", format: formatJSON},
		"get-endpoints-name":       {kind: "endpoints", name: "web", format: formatName},
		"get-namespaces":           {kind: "namespaces"},
		"get-namespaces-json":      {kind: "namespaces", format: formatJSON},
		"get-namespace":            {kind: "namespaces", name: "shop"},
		"get-namespace-slip":       {kind: "namespaces", name: "shpo"},
		"get-namespaces-name-wide": {kind: "namespaces", format: formatName},
	}
	s := world().Snapshot()
	for name, o := range tests {
		t.Run(name, func(t *testing.T) {
			if o.kind == "" {
				o.kind = "services"
			}
			if o.namespace == "" {
				o.namespace = "default"
			}
			if o.format == "" {
				o.format = formatTable
			}
			o.now = testNow
			var out, chatter bytes.Buffer
			err := renderGet(&out, &chatter, s, &o)
			golden(t, name, withExit(&out, &chatter, err))
		})
	}
}

func TestGetInstances(t *testing.T) {
	weight := int32(0)
	up := v1alpha1.Instance{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web-1", CreationTimestamp: metav1.NewTime(testNow.Add(-time.Hour))}}
	up.Spec = v1alpha1.InstanceSpec{
		Service: "web", Address: "127.0.0.1", NodeName: "laptop", Ports: []v1alpha1.InstancePort{{Port: 8080}, {Port: 9090}},
		Claims: []v1alpha1.Claim{{Door: "process", ID: "1"}, {Door: "http", ID: "2"}},
	}
	up.Status = v1alpha1.InstanceStatus{Ready: true, Serving: true, Health: v1alpha1.Health{State: v1alpha1.HealthPassing, By: "process laptop", Since: metav1.NewMicroTime(testNow.Add(-time.Minute))}}
	bare := v1alpha1.Instance{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web-2"}}
	bare.Spec = v1alpha1.InstanceSpec{Service: "web", Address: "fd00::1", Ports: []v1alpha1.InstancePort{{Port: 80}}, Weight: &weight}
	for name, o := range map[string]getOptions{
		"get-instances":      {format: formatTable},
		"get-instances-wide": {format: formatWide, all: true},
		"get-instances-name": {format: formatName},
		"get-instance-json":  {format: formatJSON, name: "web-1"},
		"get-instance-slip":  {format: formatTable, name: "web-11"},
	} {
		t.Run(name, func(t *testing.T) {
			o.kind, o.namespace, o.now = "instances", "default", testNow
			var out, chatter bytes.Buffer
			err := renderInstances(&out, &chatter, []v1alpha1.Instance{up, bare}, &o)
			golden(t, name, withExit(&out, &chatter, err))
		})
	}
}

func TestNearest(t *testing.T) {
	names := []string{"web", "web-api", "cart", "checkout", "db"}
	for in, want := range map[string]string{"wbe": "web", "webb": "web", "chekcout": "checkout", "x": "", "zzzzzz": "", "crat": "cart", "api": "web-api"} {
		if got := strings.Join(nearest(in, names), ","); got != want {
			t.Errorf("%s: got %q, want %q", in, got, want)
		}
	}
}

func TestTableCannotBeBroken(t *testing.T) {
	var out bytes.Buffer
	tab := table{head: []string{"A", "B"}}
	tab.row("x\ty\n\x1b[31m", "")
	if err := tab.write(&out); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); strings.Count(got, "\n") != 2 || strings.ContainsAny(got, "\t\x1b") {
		t.Errorf("%q", got)
	}
}
