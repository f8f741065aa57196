package cli

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/vip"
)

func vipTestWorld(t *testing.T, mode string) *vipWorld {
	t.Helper()
	c := catalog.New(nil)
	a := netip.MustParseAddr
	ep := func(ip, node string) catalog.Endpoint {
		return catalog.Endpoint{Addr: a(ip), Ready: true, Serving: true, Weight: 100, Node: node, Ports: []catalog.EndpointPort{{Name: "http", Protocol: catalog.TCP, Port: 8080}}}
	}
	c.Update(func(txn *catalog.Txn) {
		put := func(name, ip string, change func(*catalog.Service), eps ...catalog.Endpoint) {
			s := &catalog.Service{Key: catalog.Key{Namespace: "default", Name: name}, Type: catalog.ClusterIP, ClusterIPs: []netip.Addr{a(ip)},
				Ports: []catalog.Port{{Name: "http", Protocol: catalog.TCP, Port: 80}}}
			if change != nil {
				change(s)
			}
			txn.PutService(s)
			txn.PutEndpoints(s.Key, eps)
		}
		put("web", "10.96.0.7", nil, ep("10.0.0.1", "n"), ep("10.0.1.1", "m"))
		put("empty", "10.96.0.8", nil)
		put("far", "10.96.0.9", func(s *catalog.Service) {
			s.Ports[0].NodePort, s.ExternalLocal = 30080, true
			s.LoadBalancerIPs, s.SourceRanges = []netip.Addr{a("192.0.2.9")}, []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}
		}, ep("10.0.1.1", "m"))
		put("np", "10.96.0.11", func(s *catalog.Service) { s.Ports[0].NodePort = 30081 }, ep("10.0.0.1", "n"))
		put("mine", "10.96.0.10", func(s *catalog.Service) { s.ProxyName = "other" })
	})
	w := &vipWorld{}
	if !w.read(strings.NewReader("# x\nfingerpost_vip_info{mode=\"" + mode + "\",node=\"n\",node_addresses=\"198.51.100.1\",pod_cidrs=\"10.0.0.0/8\",service_cidrs=\"10.96.0.0/16\",zone=\"\"} 1\n")) {
		t.Fatal("the metric is not understood")
	}
	w.fill(c.Snapshot())
	return w
}

func TestVIPTrace(t *testing.T) {
	for _, tt := range []struct {
		at, from, verdict, says string
		masq                    bool
	}{
		{"10.96.0.7:80", "pod", verdictForward, "map slots", false},
		{"10.96.0.7:80", "node", verdictForward, "starts on the node", true},
		{"10.96.0.7:80", "10.0.9.9", verdictForward, "a pod, 10.0.9.9", false},
		{"10.96.0.7:81", "pod", verdictReject, "no port 81/TCP", false},
		{"10.96.0.8:80", "pod", verdictReject, "fingerpost explain empty.default", false},
		{"10.96.0.99:80", "pod", verdictDrop, "none has", false},
		{"10.96.0.10:80", "pod", verdictPass, "left to the proxy other", false},
		{"192.0.2.1:80", "pod", verdictPass, "unchanged", false},
		{"198.51.100.1:30080", "outside", verdictDrop, "no endpoint is on this node", false},
		{"198.51.100.1:30080", "pod", verdictForward, "does not bind", false},
		{"198.51.100.1:30081", "outside", verdictForward, "map node-svc", true},
		{"192.0.2.9:80", "192.0.2.77", verdictDrop, "loadBalancerSourceRanges", false},
		{"192.0.2.9:80", "203.0.113.5", verdictDrop, "no endpoint is on this node", false},
	} {
		w := vipTestWorld(t, "nftables")
		src, err := w.source(tt.from)
		if err != nil {
			t.Fatal(err)
		}
		got := w.trace(vip.Front{Addr: netip.MustParseAddrPort(tt.at), Proto: catalog.TCP}, src)
		text := ""
		for _, s := range got.Steps {
			text += s.Where + ": " + s.What + "\n"
		}
		if got.Verdict != tt.verdict || got.Masquerade != tt.masq || !strings.Contains(text, tt.says) {
			t.Errorf("%s from %s: %s, masquerade %v:\n%s", tt.at, tt.from, got.Verdict, got.Masquerade, text)
		}
	}
}

func TestVIPHits(t *testing.T) {
	h := hitCounts{}
	h.read(`*nat
[7:420] -A KUBE-SEP-ABCDEF -p tcp -m comment --comment "default/web:http" -m tcp -j DNAT --to-destination 10.0.0.1:8080
[1:60] -A KUBE-SEP-ABCDEF -s 10.0.0.1/32 -m comment --comment "default/web:http" -j KUBE-MARK-MASQ
[3:180] -A KUBE-SEP-FEDCBA -p tcp -m comment --comment "default/lap:http" -m tcp -j DNAT --to-destination 192.0.0.8:61234
`, map[string]netip.AddrPort{"192.0.0.8:61234/TCP": netip.MustParseAddrPort("127.0.0.1:80")})
	w := vipTestWorld(t, "iptables")
	f := w.table.Get(vip.Front{Addr: netip.MustParseAddrPort("10.96.0.7:80"), Proto: catalog.TCP})
	it := newFrontItem(f, &h)
	if it.Backends[0].Hits == nil || *it.Backends[0].Hits != 7 || it.Backends[1].Hits != nil || it.Backends[0].Share != 0.5 {
		t.Errorf("%+v", it.Backends)
	}
	if n := h.n["default/lap:http TCP 127.0.0.1:80"]; n != 3 {
		t.Errorf("%d hits of an endpoint behind a relay, want 3", n)
	}
	// Where the proxy itself counts, nothing is zero.
	h.all = true
	if it := newFrontItem(f, &h); it.Backends[1].Hits == nil || *it.Backends[1].Hits != 0 {
		t.Errorf("%+v", it.Backends)
	}
}
