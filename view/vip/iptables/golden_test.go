package iptables

import (
	"bytes"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/vip"
)

var update = flag.Bool("golden", false, "rewrite testdata")

func addrs(list ...string) (out []netip.Addr) {
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func prefixes(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

var key = catalog.Key{Namespace: "shop", Name: "web"}

func service(change func(*catalog.Service)) *catalog.Service {
	s := &catalog.Service{
		Key: key, Type: catalog.ClusterIP, ClusterIPs: addrs("10.96.0.7"),
		Ports: []catalog.Port{{Name: "http", Protocol: catalog.TCP, Port: 80}},
	}
	if change != nil {
		change(s)
	}
	return s
}

// endpoints are on node a if their address ends in less than 10.
func endpoints(list ...string) (out []catalog.Endpoint) {
	for _, a := range addrs(list...) {
		node, last := "a", a.AsSlice()
		if last[len(last)-1] >= 10 {
			node = "b"
		}
		out = append(out, catalog.Endpoint{
			Addr: a, Node: node, Ready: true, Serving: true, Weight: 100,
			Ports: []catalog.EndpointPort{{Name: "http", Protocol: catalog.TCP, Port: 8080}, {Name: "dns", Protocol: catalog.UDP, Port: 5353}},
		})
	}
	return out
}

func testPlace(v6 bool) place {
	return place{
		v6: v6, anyNode: true, mark: 0x4000, random: true, recent: true,
		pods:      ofFamily(prefixes("10.244.0.0/16", "fd24::/48"), v6),
		services:  ofFamily(prefixes("10.96.0.0/16", "fd96::/112"), v6),
		protocols: map[catalog.Protocol]bool{catalog.TCP: true, catalog.UDP: true},
	}
}

func compile(s *catalog.Service, eps []catalog.Endpoint) []*port {
	e := &catalog.Entry{Service: s, Endpoints: eps}
	return portsOf(vip.Compile(e, vip.Place{Node: "a"}), extraOf(e))
}

// TestGolden: what goes to iptables-restore, for one service at a time.
func TestGolden(t *testing.T) {
	three := endpoints("10.244.0.1", "10.244.0.2", "10.244.0.11")
	for _, tc := range []struct {
		name string
		s    *catalog.Service
		eps  []catalog.Endpoint
		at   func(*place)
	}{
		{"clusterip", service(nil), three, nil},
		{"empty", service(nil), nil, nil},
		{"weights", service(nil), func() []catalog.Endpoint {
			eps := endpoints("10.244.0.1", "10.244.0.2")
			eps[0].Weight = 300
			return eps
		}(), nil},
		{"affinity", service(func(s *catalog.Service) { s.Affinity = 3 * time.Hour }), three, nil},
		{"nodeport", service(func(s *catalog.Service) { s.Ports[0].NodePort = 30080 }), three, nil},
		{"nodeport-addresses", service(func(s *catalog.Service) { s.Ports[0].NodePort = 30080 }), three, func(p *place) {
			p.anyNode, p.nodes = false, addrs("192.168.77.1", "192.168.78.1")
		}},
		{"loadbalancer", service(func(s *catalog.Service) {
			s.Type, s.LoadBalancerIPs, s.SourceRanges = catalog.LoadBalancer, addrs("203.0.113.5"), prefixes("192.168.77.0/24", "fd77::/64")
			s.ExternalIPs = addrs("203.0.113.9")
		}), three, func(p *place) { p.anyNode, p.nodes = false, addrs("192.168.77.1") }},
		{"external-local", service(func(s *catalog.Service) {
			s.Type, s.ExternalLocal, s.HealthCheckNodePort = catalog.LoadBalancer, true, 30999
			s.LoadBalancerIPs, s.Ports[0].NodePort = addrs("203.0.113.5"), 30080
		}), three, nil},
		{"external-local-none", service(func(s *catalog.Service) {
			s.ExternalLocal, s.Ports[0].NodePort = true, 30080
		}), endpoints("10.244.0.11"), nil},
		{"internal-local", service(func(s *catalog.Service) {
			s.InternalLocal, s.Ports[0].NodePort = true, 30080
		}), three, nil},
		{"udp", service(func(s *catalog.Service) {
			s.Ports = []catalog.Port{{Name: "dns", Protocol: catalog.UDP, Port: 53}, {Name: "http", Protocol: catalog.TCP, Port: 80}}
		}), three, nil},
		{"ipv6", service(func(s *catalog.Service) {
			s.ClusterIPs, s.Ports[0].NodePort = addrs("fd96::7"), 30080
		}), endpoints("fd24::1", "fd24::2"), func(p *place) { *p = testPlace(true) }},
		{"pods-many", service(nil), three, func(p *place) { p.pods = prefixes("10.244.0.0/24", "10.244.1.0/24") }},
		{"pods-unknown", service(nil), three, func(p *place) { p.pods, p.services = nil, nil }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			at := testPlace(false)
			if tc.at != nil {
				tc.at(&at)
			}
			all := func(yield func(rules) bool) {
				for _, p := range compile(tc.s, tc.eps) {
					if !yield(at.render(p)) {
						return
					}
				}
			}
			lists, _ := collect(all)
			golden(t, tc.name, at.full(all, &lists, nil))
		})
	}
}

// TestGoldenChange: what goes there when something changes.
func TestGoldenChange(t *testing.T) {
	nodePort := func(s *catalog.Service) { s.Ports[0].NodePort = 30080 }
	for _, tc := range []struct {
		name     string
		old, now *catalog.Service
		before   []catalog.Endpoint
		after    []catalog.Endpoint
	}{
		{"change-endpoint", service(nil), service(nil), endpoints("10.244.0.1", "10.244.0.2"), endpoints("10.244.0.1", "10.244.0.3")},
		{"change-to-none", service(nodePort), service(nodePort), endpoints("10.244.0.1"), nil},
		{"change-from-none", service(nodePort), service(nodePort), nil, endpoints("10.244.0.1")},
		{"change-new", nil, service(nil), nil, endpoints("10.244.0.1")},
		{"change-gone", service(nil), nil, endpoints("10.244.0.1"), nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			at := testPlace(false)
			f := family{place: at}
			var c change
			if tc.old != nil {
				c.old = compile(tc.old, tc.before)
			}
			if tc.now != nil {
				c.now = compile(tc.now, tc.after)
			}
			_, f.refs = collect(func(yield func(rules) bool) {
				for _, p := range c.old {
					if !yield(at.render(p)) {
						return
					}
				}
			})
			var d delta
			eachPair(c, func(old, now *port) { d.add(f.rulesOf(old), f.rulesOf(now)) })
			d.settle(&f.refs)
			golden(t, tc.name, d.text)
		})
	}
}

func golden(t *testing.T, name string, what text) {
	t.Helper()
	var got bytes.Buffer
	if err := what.to(&got); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(path, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, got.Bytes()) {
		t.Errorf("%s differs from what is made now; look at it with -golden and git diff:\n%s", path, got.String())
	}
}

// TestNames: they are the ones that kube-proxy gives.
func TestNames(t *testing.T) {
	if got := hash("default/kubernetes:https", "tcp"); got != "NPX46M4PTMTKRN6Y" {
		t.Errorf("the chain of the API server ends in %s, want NPX46M4PTMTKRN6Y, as everywhere", got)
	}
	if got := hash("kube-system/kube-dns:dns", "udp"); got != "TCOU7JCQXEZGVUNU" {
		t.Errorf("the chain of DNS ends in %s, want TCOU7JCQXEZGVUNU, as everywhere", got)
	}
}

// TestClean: nothing that a source of the catalog calls its things becomes part
// of a rule.
func TestClean(t *testing.T) {
	k := catalog.Key{Namespace: "a\nCOMMIT", Name: `b" -j DROP #`}
	if got := portName(k, "c d"); strings.ContainsAny(got, " \n\"#") {
		t.Errorf("a name with %q in it gives the comment %q", k, got)
	}
	if got := portName(catalog.Key{Name: strings.Repeat("x", 500)}, "y"); len(got) > 160 {
		t.Errorf("a comment of %d bytes", len(got))
	}
}
