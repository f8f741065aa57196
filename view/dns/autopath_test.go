package dns

import (
	"net/netip"
	"strings"
	"testing"

	miekg "github.com/miekg/dns"
)

// TestAutopath: the first name of a search list is answered with the first one
// that exists. The client is 127.0.0.1, an endpoint in namespace shop.
func TestAutopath(t *testing.T) {
	works := upstream(t, good)
	for _, c := range []struct {
		upstreams []string
		question  string
		want      string
	}{
		{nil, "web.shop.svc.cluster.local. A", "NOERROR aa rd\nanswer web.shop.svc.cluster.local. 5 IN A 10.96.0.1\n"},
		{nil, "db.other.shop.svc.cluster.local. A", "NOERROR aa rd\nanswer db.other.shop.svc.cluster.local. 5 IN CNAME db.other.svc.cluster.local.\nanswer db.other.svc.cluster.local. 5 IN A 10.96.0.2\n"},
		{nil, "db.other.shop.svc.cluster.local. AAAA", "NOERROR aa rd\nanswer db.other.shop.svc.cluster.local. 5 IN CNAME db.other.svc.cluster.local.\nauthority cluster.local. 5 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 1767225600 7200 1800 86400 5\n"},
		{nil, "db.other.svc.shop.svc.cluster.local. A", "NOERROR aa rd\nanswer db.other.svc.shop.svc.cluster.local. 5 IN CNAME db.other.svc.cluster.local.\nanswer db.other.svc.cluster.local. 5 IN A 10.96.0.2\n"},
		{nil, "ext.other.shop.svc.cluster.local. A", "NOERROR aa rd\nanswer ext.other.shop.svc.cluster.local. 5 IN CNAME ext.other.svc.cluster.local.\nanswer ext.other.svc.cluster.local. 5 IN CNAME db.other.svc.cluster.local.\nanswer db.other.svc.cluster.local. 5 IN A 10.96.0.2\n"},
		{nil, "printer.example.shop.svc.cluster.local. A", "NOERROR aa rd\nanswer printer.example.shop.svc.cluster.local. 5 IN CNAME printer.example.\nanswer printer.example. 5 IN A 192.0.2.7\n"},
		// Nobody to ask: the search goes on.
		{nil, "www.example.com.shop.svc.cluster.local. A", "NXDOMAIN aa rd\nauthority cluster.local. 5 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 1767225600 7200 1800 86400 5\n"},
		{[]string{works}, "www.example.com.shop.svc.cluster.local. A", "NOERROR aa rd ra\nanswer www.example.com.shop.svc.cluster.local. 5 IN CNAME www.example.com.\nanswer www.example.com. 60 IN A 192.0.2.80\n"},
		{[]string{works}, "no.example.com.shop.svc.cluster.local. A", "NXDOMAIN aa rd ra\nanswer no.example.com.shop.svc.cluster.local. 5 IN CNAME no.example.com.\n"},
		// Not the client's first name.
		{[]string{works}, "www.example.com.other.svc.cluster.local. A", "NXDOMAIN aa rd ra\nauthority cluster.local. 5 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 1767225600 7200 1800 86400 5\n"},
		{[]string{works}, "www.example.com.svc.cluster.local. A", "NXDOMAIN aa rd ra\nauthority cluster.local. 5 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 1767225600 7200 1800 86400 5\n"},
	} {
		for _, plain := range []bool{false, true} {
			w := newWorld(t, Config{Addrs: []string{"127.0.0.1:0"}, Upstreams: c.upstreams, Autopath: true, PlainUDP: plain, Records: []string{"192.0.2.7 printer.example"}})
			w.must(t, "service shop/web clusterip=10.96.0.1", "endpoint shop/web 127.0.0.1", "service other/db clusterip=10.96.0.2", "service other/ext external=db.other.svc.cluster.local")
			clients := newClients(t, w.server)
			name, typ, _ := strings.Cut(c.question, " ")
			var m miekg.Msg
			m.SetQuestion(name, miekg.StringToType[typ])
			for _, conn := range []*miekg.Conn{clients.udp, clients.tcp} {
				r, _, err := asker("udp").ExchangeWithConn(&m, conn)
				if err != nil {
					t.Fatal(c.question, err)
				}
				if got := render(r); got != c.want {
					t.Errorf("%s:\n%s-- want\n%s", c.question, got, c.want)
				}
			}
			// A stranger gets what is true.
			var q query
			q.client = netip.MustParseAddr("192.0.2.1")
			resp, f, _ := w.server.immediate(&q, question(name, miekg.StringToType[typ]), nil, true)
			if f.rule == ruleAutopath || resp == nil {
				t.Errorf("%s: a stranger is helped", c.question)
			}
		}
	}
}
