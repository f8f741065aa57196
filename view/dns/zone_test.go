package dns

import (
	"testing"
	"time"

	miekg "github.com/miekg/dns"
)

// TestOtherZone: any zone and TTL; negative answers are kept for 300 s at most.
func TestOtherZone(t *testing.T) {
	w := newWorld(t, Config{Zone: "K8s.Example.Org.", TTL: time.Hour, Addrs: []string{"192.0.2.53:53", "[2001:db8::53]:53", "0.0.0.0:53"}})
	w.must(t, "service a/web clusterip=10.96.0.1")
	for _, c := range []struct {
		name string
		typ  uint16
		want string
	}{
		{"web.a.svc.k8s.example.org.", miekg.TypeA, "NOERROR aa rd\nanswer web.a.svc.k8s.example.org. 3600 IN A 10.96.0.1\n"},
		{"web.a.svc.k8s.example.org.", miekg.TypeTXT, "NOERROR aa rd\nauthority k8s.example.org. 300 IN SOA ns.dns.k8s.example.org. hostmaster.k8s.example.org. 1767225600 7200 1800 86400 300\n"},
		{"web.a.svc.cluster.local.", miekg.TypeA, "REFUSED rd\n"},
		{"k8s.example.org.", miekg.TypeNS, "NOERROR aa rd\nanswer k8s.example.org. 3600 IN NS ns.dns.k8s.example.org.\nadditional ns.dns.k8s.example.org. 3600 IN A 192.0.2.53\nadditional ns.dns.k8s.example.org. 3600 IN AAAA 2001:db8::53\n"},
		{"1.0.96.10.in-addr.arpa.", miekg.TypeTXT, "NOERROR aa rd\nauthority in-addr.arpa. 300 IN SOA ns.dns.k8s.example.org. hostmaster.k8s.example.org. 1767225600 7200 1800 86400 300\n"},
	} {
		var m miekg.Msg
		if err := m.Unpack(w.server.Answer(question(c.name, c.typ), nil, false)); err != nil {
			t.Fatal(err)
		}
		if got := render(&m); got != c.want {
			t.Errorf("%s:\n%s-- want\n%s", c.name, got, c.want)
		}
	}
}
