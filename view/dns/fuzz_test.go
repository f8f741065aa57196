package dns

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	miekg "github.com/miekg/dns"
)

// FuzzParse holds the parser against a library where both take the packet,
// and looks for panics where they do not.
func FuzzParse(f *testing.F) {
	f.Add(question("web.default.svc.cluster.local.", miekg.TypeA))
	f.Add([]byte("\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01\x00\x00\x06\x00\x01\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00"))
	f.Add([]byte("\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x02\x01a\x00\x00\x06\x00\x01\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x00\x00\x04\x01\x02\x03\x04\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, pkt []byte) {
		var q query
		if q.parse(pkt) != parsed {
			return
		}
		if q.n < 1 || q.n > maxName || q.b[q.n-1] != 0 || q.end > len(pkt) || !bytes.EqualFold(q.b[:q.n], pkt[headerLen:headerLen+q.n]) {
			t.Fatalf("bad name: %+v", q)
		}
		for i := range q.labels {
			if l := q.label(i); len(l) == 0 || len(l) > maxLabel || bytes.ContainsFunc(l, func(r rune) bool { return r >= 'A' && r <= 'Z' }) {
				t.Fatalf("bad label %q", l)
			}
		}
		var m miekg.Msg
		if m.Unpack(pkt) != nil {
			return // it looks into records that do not matter here
		}
		if m.Id != q.id || m.Question[0].Qtype != q.qtype || m.Question[0].Qclass != q.class {
			t.Fatalf("%+v is not %v", q, &m)
		}
		if o := m.IsEdns0(); o != nil && (o.Version() != q.version || o.UDPSize() != q.size || o.Do() != q.do) {
			t.Fatalf("%+v is not %v", q, o)
		}
	})
}

// FuzzAnswer puts any packet through the whole way to the answer.
func FuzzAnswer(f *testing.F) {
	w := newWorld(f, Config{Addrs: []string{"127.0.0.1:0"}, Autopath: true, Pods: PodsVerified, Records: []string{
		"192.0.2.7 printer.example", "*.dev.example A 192.0.2.8", "txt.example TXT words", "alias.example CNAME ext.a.svc.cluster.local",
		"x.a.svc.cluster.local CNAME alias.example", "_l._tcp.example SRV 1 2 3 printer.example",
	}})
	w.must(f,
		"service a/web clusterip=10.96.0.1,fd00::1 ports=http:80,dns:53/UDP",
		"endpoint a/web 10.0.0.1 ports=http:8080",
		"service a/db headless ports=sql:5432",
		"endpoints a/db 100 ports=sql:5432",
		"endpoint a/db 10.0.0.1 host=h ports=sql:5432",
		"endpoint a/db fd00::2 ports=sql:5433",
		"service a/ext external=www.example.com",
		"service a/in external=db.a.svc.cluster.local",
		"service a/loop external=loop.a.svc.cluster.local",
	)
	for _, n := range []string{
		"web.a.svc.cluster.local.", "_http._tcp.web.a.svc.cluster.local.", "db.a.svc.cluster.local.", "_sql._tcp.db.a.svc.cluster.local.",
		"h.db.a.svc.cluster.local.", "10-1-0-100.db.a.svc.cluster.local.", "fd00--2.db.a.svc.cluster.local.", "in.a.svc.cluster.local.",
		"ext.a.svc.cluster.local.", "loop.a.svc.cluster.local.", "1.0.96.10.in-addr.arpa.", "1-2-3-4.a.pod.cluster.local.", "cluster.local.",
		"dns-version.cluster.local.", "ns.dns.cluster.local.", "_tcp.web.a.svc.cluster.local.", "nope.cluster.local.",
		"printer.example.", "a.b.dev.example.", "txt.example.", "alias.example.", "x.a.svc.cluster.local.", "_l._tcp.example.", "7.2.0.192.in-addr.arpa.",
		"10-0-0-1.a.pod.cluster.local.", "printer.example.a.svc.cluster.local.", "web.a.a.svc.cluster.local.", "x.a.a.svc.cluster.local.", "a.dev.example.a.svc.cluster.local.",
	} {
		for _, typ := range []uint16{miekg.TypeA, miekg.TypeAAAA, miekg.TypeSRV, miekg.TypePTR, miekg.TypeANY, miekg.TypeSOA, miekg.TypeNS, miekg.TypeTXT} {
			f.Add(question(n, typ), false)
		}
		var m miekg.Msg
		m.SetQuestion(strings.ToUpper(n), miekg.TypeSRV)
		m.SetEdns0(4096, true)
		b, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, true)
	}
	var q query
	q.client = netip.MustParseAddr("10.0.0.1") // an endpoint of a
	f.Fuzz(func(t *testing.T, pkt []byte, tcp bool) {
		checkAnswer(t, pkt, w.server.Answer(pkt, nil, tcp), tcp)
		resp, _, wait := w.server.immediate(&q, pkt, nil, tcp)
		checkAnswer(t, pkt, resp, tcp)
		if wait {
			t.Fatal("there is nobody to wait for")
		}
	})
}

// FuzzRecords: what is taken as custom records is answered like anything else.
func FuzzRecords(f *testing.F) {
	for _, s := range []string{
		"192.0.2.7 printer.example printer", "2001:db8::1 six", "a.example CNAME b.example", "*.example 60 IN TXT \"a b\" c", "_l._tcp.example SRV 1 2 3 x.example.",
		"x.example MX 1 y.example # why", "$INCLUDE /etc/passwd", "$GENERATE 1-9 a$ A 192.0.2.$", "a.example A (\n192.0.2.1)", "h.example HTTPS 1 . alpn=h2",
	} {
		f.Add(s, "a.example.")
	}
	w := newWorld(f, Config{})
	f.Fuzz(func(t *testing.T, line, name string) {
		if w.server.SetRecords([]string{line}) != nil {
			return
		}
		c := w.server.index.customs.Load()
		if c == nil {
			return
		}
		for _, names := range []map[string]*custom{c.names, c.below} {
			for wire, r := range names {
				types := []uint16{typeA, typeANY, typeCNAME, typePTR}
				for _, s := range r.sets {
					types = append(types, s.typ)
				}
				for _, typ := range types {
					pkt := append([]byte("\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"), wire...)
					pkt = append(pkt, byte(typ>>8), byte(typ), 0, 1)
					for _, tcp := range []bool{false, true} {
						resp := w.server.Answer(pkt, nil, tcp)
						var m miekg.Msg
						if err := m.Unpack(resp); err != nil {
							t.Fatalf("%q: the answer to %x cannot be read: %v: %x", line, pkt, err, resp)
						}
					}
				}
			}
		}
		var m miekg.Msg
		if m.SetQuestion(miekg.Fqdn(name), miekg.TypeA); len(name) > 0 {
			if pkt, err := m.Pack(); err == nil {
				w.server.Answer(pkt, nil, false)
			}
		}
	})
}

// FuzzDashed holds the reader of dashed addresses against net/netip.
func FuzzDashed(f *testing.F) {
	for _, s := range []string{"1-2-3-4", "fd00--1", "--", "--1", "1-2-3-4-5-6-7-8", "1--", "1-2-3-4-5-6-7--", "01-2-3-4"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, ok := parseDashed([]byte(s))
		var want netip.Addr
		err := error(nil)
		if strings.ContainsAny(s, ".:%") || s != strings.ToLower(s) {
			if ok {
				t.Fatalf("%q is %v", s, got)
			}
			return
		}
		if want, err = netip.ParseAddr(strings.ReplaceAll(s, "-", ".")); err != nil {
			want, err = netip.ParseAddr(strings.ReplaceAll(s, "-", ":"))
		}
		if ok != (err == nil) || ok && got != want {
			t.Fatalf("%q: %v %v, want %v %v", s, got, ok, want, err)
		}
		if ok {
			if back, ok := parseDashed(dashed(nil, got)); ok && back != got || !ok && !got.Is4In6() {
				t.Fatalf("%v does not survive: %v", got, back)
			}
		}
	})
}
