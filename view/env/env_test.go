package env

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kubernetes/pkg/kubelet/envvars"

	"github.com/fingerpost/fingerpost/catalog"
)

func snapshot(services ...*catalog.Service) *catalog.Snapshot {
	c := catalog.New(nil)
	c.Update(func(t *catalog.Txn) {
		for _, s := range services {
			t.PutService(s)
		}
	})
	return c.Snapshot()
}

func service(ns, name, ip string, ports ...catalog.Port) *catalog.Service {
	s := &catalog.Service{Key: catalog.Key{Namespace: ns, Name: name}, Type: catalog.ClusterIP, Ports: ports}
	if ip != "" {
		s.ClusterIPs = []netip.Addr{netip.MustParseAddr(ip)}
	}
	return s
}

func tcp(name string, port uint16) catalog.Port {
	return catalog.Port{Name: name, Protocol: catalog.TCP, Port: port}
}

func TestVars(t *testing.T) {
	headless := service("default", "db", "", tcp("", 5432))
	headless.Headless = true
	external := service("default", "ext", "", tcp("", 80))
	external.Type = catalog.ExternalName
	snap := snapshot(
		service("default", "kubernetes", "10.96.0.1", tcp("https", 443)),
		service("default", "my-app", "10.96.0.7", tcp("http", 80), catalog.Port{Name: "dns-udp", Protocol: catalog.UDP, Port: 53}),
		headless, external,
		service("default", "pending", "", tcp("", 80)), // no address yet
		service("other", "six", "fd00::7", tcp("", 80)),
		service("third", "kubernetes", "10.96.0.9", tcp("", 80)),
		service("clash", "foo", "10.96.1.1", tcp("", 80)),
		service("clash", "foo-service", "10.96.1.2", tcp("", 81)),
	)
	api := []string{
		"KUBERNETES_PORT=tcp://10.96.0.1:443",
		"KUBERNETES_PORT_443_TCP=tcp://10.96.0.1:443",
		"KUBERNETES_PORT_443_TCP_ADDR=10.96.0.1",
		"KUBERNETES_PORT_443_TCP_PORT=443",
		"KUBERNETES_PORT_443_TCP_PROTO=tcp",
		"KUBERNETES_SERVICE_HOST=10.96.0.1",
		"KUBERNETES_SERVICE_PORT=443",
		"KUBERNETES_SERVICE_PORT_HTTPS=443",
	}
	for _, tc := range []struct {
		namespace string
		want      []string
	}{
		{"nothing-here", api},
		{"default", append([]string{
			"MY_APP_PORT=tcp://10.96.0.7:80",
			"MY_APP_PORT_53_UDP=udp://10.96.0.7:53",
			"MY_APP_PORT_53_UDP_ADDR=10.96.0.7",
			"MY_APP_PORT_53_UDP_PORT=53",
			"MY_APP_PORT_53_UDP_PROTO=udp",
			"MY_APP_PORT_80_TCP=tcp://10.96.0.7:80",
			"MY_APP_PORT_80_TCP_ADDR=10.96.0.7",
			"MY_APP_PORT_80_TCP_PORT=80",
			"MY_APP_PORT_80_TCP_PROTO=tcp",
			"MY_APP_SERVICE_HOST=10.96.0.7",
			"MY_APP_SERVICE_PORT=80",
			"MY_APP_SERVICE_PORT_DNS_UDP=53",
			"MY_APP_SERVICE_PORT_HTTP=80",
		}, api...)},
		{"other", append([]string{
			"SIX_PORT=tcp://[fd00::7]:80",
			"SIX_PORT_80_TCP=tcp://[fd00::7]:80",
			"SIX_PORT_80_TCP_ADDR=fd00::7",
			"SIX_PORT_80_TCP_PORT=80",
			"SIX_PORT_80_TCP_PROTO=tcp",
			"SIX_SERVICE_HOST=fd00::7",
			"SIX_SERVICE_PORT=80",
		}, api...)},
	} {
		want := slices.Sorted(slices.Values(tc.want))
		if diff := cmp.Diff(want, Vars(snap, tc.namespace)); diff != "" {
			t.Errorf("namespace %s (-want +got):\n%s", tc.namespace, diff)
		}
	}
	if got := Vars(snap, "third"); !slices.Contains(got, "KUBERNETES_SERVICE_HOST=10.96.0.9") {
		t.Errorf("the namespace's own service does not win: %v", got)
	}
	if got := Vars(snap, "clash"); !slices.Contains(got, "FOO_SERVICE_PORT=80") {
		t.Errorf("foo-service took a variable of foo: %v", got)
	}
	if got := Vars(snapshot(), "default"); len(got) != 0 {
		t.Errorf("empty catalog gives %v", got)
	}
}

// TestVarsAsKubelet compares with the kubelet's own code over random services
// whose names do not clash.
func TestVarsAsKubelet(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	protocols := []catalog.Protocol{catalog.TCP, catalog.UDP, catalog.SCTP}
	for range 100 {
		var ours []*catalog.Service
		var theirs []*v1.Service
		for i := range rnd.IntN(6) {
			ip := fmt.Sprintf("10.96.%d.%d", rnd.IntN(256), rnd.IntN(256))
			switch rnd.IntN(5) {
			case 0:
				ip = fmt.Sprintf("fd00::%x", rnd.IntN(1<<16))
			case 1:
				ip = ""
			}
			s := service("ns", fmt.Sprintf("x%d-%s", i, strings.Repeat("y-z", rnd.IntN(3))+"e"), ip)
			k := &v1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: s.Name}, Spec: v1.ServiceSpec{ClusterIP: ip}}
			if ip == "" && rnd.IntN(2) == 0 {
				s.Headless, k.Spec.ClusterIP = true, v1.ClusterIPNone
			}
			for j := range 1 + rnd.IntN(3) {
				p := catalog.Port{Protocol: protocols[rnd.IntN(3)], Port: uint16(1 + rnd.IntN(65535))}
				if j > 0 || rnd.IntN(2) == 0 {
					p.Name = fmt.Sprintf("p-%d", j)
				}
				s.Ports = append(s.Ports, p)
				k.Spec.Ports = append(k.Spec.Ports, v1.ServicePort{Name: p.Name, Protocol: v1.Protocol(p.Protocol), Port: int32(p.Port)})
			}
			ours, theirs = append(ours, s), append(theirs, k)
		}
		want := []string{}
		for _, v := range envvars.FromServices(theirs) {
			want = append(want, v.Name+"="+v.Value)
		}
		slices.Sort(want)
		if diff := cmp.Diff(slices.Compact(want), Vars(snapshot(ours...), "ns")); diff != "" {
			t.Fatalf("kubelet's (-) and ours (+):\n%s", diff)
		}
	}
}

func BenchmarkVars(b *testing.B) {
	var all []*catalog.Service
	for i := range 10_000 {
		all = append(all, service(fmt.Sprintf("ns-%d", i%500), fmt.Sprintf("s-%d", i), "10.96.0.1", tcp("http", 80)))
	}
	snap := snapshot(all...)
	b.ReportAllocs()
	for b.Loop() {
		Vars(snap, "ns-7")
	}
}
