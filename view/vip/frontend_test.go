package vip

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fingerpost/fingerpost/catalog"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func addrs(list ...string) (out []netip.Addr) {
	for _, s := range list {
		out = append(out, addr(s))
	}
	return out
}

var web = catalog.Port{Name: "http", Protocol: catalog.TCP, Port: 80}

func svc(change ...func(*catalog.Service)) *catalog.Service {
	s := &catalog.Service{
		Key: catalog.Key{Namespace: "default", Name: "web"}, Type: catalog.ClusterIP,
		ClusterIPs: addrs("10.96.0.7"), Ports: []catalog.Port{web},
	}
	for _, f := range change {
		f(s)
	}
	return s
}

// ep is a ready endpoint; words change it: "notready", "serving" (with
// terminating), "terminating", "node=n", "zone=z", "forzone=z", "fornode=n",
// "local", "weight0".
func ep(ip string, words ...string) catalog.Endpoint {
	e := catalog.Endpoint{
		Addr: addr(ip), Ready: true, Serving: true, Weight: 100,
		Ports: []catalog.EndpointPort{{Name: "http", Protocol: catalog.TCP, Port: 8080}},
	}
	for _, w := range words {
		name, value, _ := strings.Cut(w, "=")
		switch name {
		case "notready":
			e.Ready, e.Serving = false, false
		case "serving":
			e.Ready, e.Serving, e.Terminating = false, true, true
		case "terminating":
			e.Ready, e.Serving, e.Terminating = false, false, true
		case "node":
			e.Node = value
		case "zone":
			e.Zone = value
		case "forzone":
			e.ForZones = append(e.ForZones, value)
		case "fornode":
			e.ForNodes = append(e.ForNodes, value)
		case "local":
			e.Local = true
		case "weight0":
			e.Weight = 0
		default:
			panic(w)
		}
	}
	return e
}

// show writes backends as their last octets.
func show(b []Backend) string {
	var out []string
	for _, x := range b {
		s := x.Addr.Addr().String()
		out = append(out, s[strings.LastIndexAny(s, ".:")+1:])
	}
	return strings.Join(out, " ")
}

func TestEndpointChoice(t *testing.T) {
	internal := func(s *catalog.Service) { s.InternalLocal = true }
	prefer := func(how string) func(*catalog.Service) {
		return func(s *catalog.Service) { s.Distribution = how }
	}
	plain := func(*catalog.Service) {}
	for _, tc := range []struct {
		name   string
		change func(*catalog.Service)
		eps    []catalog.Endpoint
		want   string
	}{
		{"none", plain, nil, ""},
		{"ready, sorted", plain, []catalog.Endpoint{ep("10.0.0.3"), ep("10.0.0.1"), ep("10.0.0.2", "notready")}, "1 3"},
		{"twice the same", plain, []catalog.Endpoint{ep("10.0.0.1"), ep("10.0.0.1")}, "1"},
		{"weight 0", plain, []catalog.Endpoint{ep("10.0.0.1"), ep("10.0.0.2", "weight0")}, "1"},
		{"other family", plain, []catalog.Endpoint{ep("10.0.0.1"), ep("fd00::2")}, "1"},
		{"nonsense addresses", plain, []catalog.Endpoint{ep("0.0.0.0"), ep("224.0.0.1"), ep("::ffff:10.0.0.4")}, "4"},
		{"ready beats serving", plain, []catalog.Endpoint{ep("10.0.0.1"), ep("10.0.0.2", "serving")}, "1"},
		{"none ready: serving and terminating", plain, []catalog.Endpoint{ep("10.0.0.1", "notready"), ep("10.0.0.2", "serving"), ep("10.0.0.3", "terminating")}, "2"},
		{"loopback of this node", plain, []catalog.Endpoint{ep("127.0.0.1", "local", "node=a"), ep("127.0.0.2", "local", "node=b")}, "1"},

		{"internal Local", internal, []catalog.Endpoint{ep("10.0.0.1", "node=a"), ep("10.0.0.2", "node=b")}, "1"},
		{"internal Local, none here", internal, []catalog.Endpoint{ep("10.0.0.2", "node=b")}, ""},
		{"internal Local, only serving here", internal, []catalog.Endpoint{ep("10.0.0.1", "node=a", "serving"), ep("10.0.0.2", "node=b")}, "1"},
		{"internal Local ignores hints", internal, []catalog.Endpoint{ep("10.0.0.1", "node=a", "forzone=z2"), ep("10.0.0.2", "node=b", "forzone=z1")}, "1"},

		{"zone hints", plain, []catalog.Endpoint{ep("10.0.0.1", "forzone=z1"), ep("10.0.0.2", "forzone=z2"), ep("10.0.0.3", "forzone=z2", "forzone=z1")}, "1 3"},
		{"no hint for our zone", plain, []catalog.Endpoint{ep("10.0.0.1", "forzone=z3"), ep("10.0.0.2", "forzone=z2")}, "1 2"},
		{"hints incomplete", plain, []catalog.Endpoint{ep("10.0.0.1", "forzone=z1"), ep("10.0.0.2")}, "1 2"},
		{"an unready endpoint's hints do not count", plain, []catalog.Endpoint{ep("10.0.0.1", "forzone=z1", "notready"), ep("10.0.0.2", "forzone=z2"), ep("10.0.0.3", "forzone=z3")}, "2 3"},
		{"node hints before zone hints", plain, []catalog.Endpoint{ep("10.0.0.1", "fornode=a", "forzone=z1"), ep("10.0.0.2", "fornode=b", "forzone=z1")}, "1"},
		{"node hints elsewhere: zone hints", plain, []catalog.Endpoint{ep("10.0.0.1", "fornode=c", "forzone=z1"), ep("10.0.0.2", "fornode=b", "forzone=z2")}, "1"},

		{"same zone", prefer("PreferSameZone"), []catalog.Endpoint{ep("10.0.0.1", "zone=z1"), ep("10.0.0.2", "zone=z2")}, "1"},
		{"close", prefer("PreferClose"), []catalog.Endpoint{ep("10.0.0.1", "zone=z1"), ep("10.0.0.2")}, "1"},
		{"close, none in the zone", prefer("PreferClose"), []catalog.Endpoint{ep("10.0.0.1", "zone=z2"), ep("10.0.0.2")}, "1 2"},
		{"same node", prefer("PreferSameNode"), []catalog.Endpoint{ep("10.0.0.1", "node=a", "zone=z1"), ep("10.0.0.2", "node=b", "zone=z1")}, "1"},
		{"same node, none: zone", prefer("PreferSameNode"), []catalog.Endpoint{ep("10.0.0.1", "node=c", "zone=z1"), ep("10.0.0.2", "node=b", "zone=z2")}, "1"},
		{"zone does not matter unasked", plain, []catalog.Endpoint{ep("10.0.0.1", "zone=z1"), ep("10.0.0.2", "zone=z2")}, "1 2"},
		{"serving ones anywhere", prefer("PreferSameZone"), []catalog.Endpoint{ep("10.0.0.1", "zone=z2", "serving")}, "1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := Compile(&catalog.Entry{Service: svc(tc.change), Endpoints: tc.eps}, Place{"a", "z1"})
			if len(got) != 1 {
				t.Fatalf("%d frontends, want 1", len(got))
			}
			if s := show(got[0].Backends); s != tc.want {
				t.Errorf("backends %q, want %q", s, tc.want)
			}
		})
	}
	t.Run("zone not known", func(t *testing.T) {
		got := Compile(&catalog.Entry{Service: svc(prefer("PreferClose")), Endpoints: []catalog.Endpoint{ep("10.0.0.1"), ep("10.0.0.2", "zone=z2")}}, Place{Node: "a"})
		if s := show(got[0].Backends); s != "1 2" {
			t.Errorf("backends %q, want both", s)
		}
	})
}

func TestFrontends(t *testing.T) {
	eps := []catalog.Endpoint{ep("10.0.0.1", "node=a"), ep("10.0.0.2", "node=b"), ep("fd00::3", "node=b")}
	for _, tc := range []struct {
		name   string
		change func(*catalog.Service)
		want   []string // scope, front, backends, local
	}{
		{"plain", func(*catalog.Service) {}, []string{"ClusterIP 10.96.0.7:80/TCP [1 2]"}},
		{"headless", func(s *catalog.Service) { s.Headless, s.ClusterIPs = true, nil }, nil},
		{"external name", func(s *catalog.Service) { s.Type = catalog.ExternalName }, nil},
		{"another proxy's", func(s *catalog.Service) { s.ProxyName = "mine" }, nil},
		{"no address yet", func(s *catalog.Service) { s.ClusterIPs = nil }, nil},
		{"two families", func(s *catalog.Service) { s.ClusterIPs = addrs("10.96.0.7", "fd96::7") },
			[]string{"ClusterIP 10.96.0.7:80/TCP [1 2]", "ClusterIP [fd96::7]:80/TCP [3]"}},
		{"node port in both families", func(s *catalog.Service) {
			s.Ports = []catalog.Port{{Name: "http", Protocol: catalog.TCP, Port: 80, NodePort: 30080}}
			s.ClusterIPs = addrs("10.96.0.7", "fd96::7")
		}, []string{"ClusterIP 10.96.0.7:80/TCP [1 2]", "NodePort 0.0.0.0:30080/TCP [1 2]",
			"ClusterIP [fd96::7]:80/TCP [3]", "NodePort [::]:30080/TCP [3]"}},
		{"external and load balancer, external Local", func(s *catalog.Service) {
			s.ExternalIPs, s.LoadBalancerIPs, s.ExternalLocal = addrs("192.0.2.1", "fd00::9", "192.0.2.1"), addrs("192.0.2.2"), true
		}, []string{"ClusterIP 10.96.0.7:80/TCP [1 2]", "ExternalIP 192.0.2.1:80/TCP [1 2] local [1]", "LoadBalancerIP 192.0.2.2:80/TCP [1 2] local [1]"}},
		{"another port's name", func(s *catalog.Service) { s.Ports = []catalog.Port{{Name: "grpc", Protocol: catalog.TCP, Port: 90}} },
			[]string{"ClusterIP 10.96.0.7:90/TCP []"}},
		{"another protocol", func(s *catalog.Service) {
			s.Ports = append(s.Ports[:1:1], catalog.Port{Name: "http", Protocol: catalog.UDP, Port: 80})
		}, []string{"ClusterIP 10.96.0.7:80/TCP [1 2]", "ClusterIP 10.96.0.7:80/UDP []"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got []string
			for _, f := range Compile(&catalog.Entry{Service: svc(tc.change), Endpoints: eps}, Place{Node: "a"}) {
				s := f.Scope.String() + " " + f.Front.String() + " [" + show(f.Backends) + "]"
				if f.LocalOnly {
					s += " local [" + show(f.Local) + "]"
				}
				got = append(got, s)
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("got  %q\nwant %q", got, tc.want)
			}
		})
	}
}

func TestFrontendQuestions(t *testing.T) {
	f := &Frontend{Backends: []Backend{{Weight: 1}}, LocalOnly: true, Sources: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	if len(f.For(true)) != 0 || len(f.For(false)) != 1 {
		t.Error("traffic from outside must use Local, traffic from here Backends")
	}
	if !f.Allowed(addr("10.1.2.3")) || f.Allowed(addr("192.0.2.1")) {
		t.Error("source ranges not followed")
	}
	if !(&Frontend{}).Allowed(addr("192.0.2.1")) {
		t.Error("no source ranges means everybody")
	}
	if Compile(nil, Place{}) != nil || Compile(&catalog.Entry{}, Place{}) != nil {
		t.Error("nothing gives nothing")
	}
}

func BenchmarkCompile(b *testing.B) {
	e := &catalog.Entry{Service: svc(func(s *catalog.Service) { s.Affinity = time.Hour })}
	for i := range 10 {
		e.Endpoints = append(e.Endpoints, ep("10.0.0."+string(rune('0'+i)), "node=a"))
	}
	b.ReportAllocs()
	for b.Loop() {
		Compile(e, Place{"a", "z"})
	}
}
