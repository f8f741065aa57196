package filter

import (
	"testing"
	"time"

	"github.com/fingerpost/fingerpost/view/gateway/route"
	"github.com/fingerpost/fingerpost/wire/http"
)

// browser is what a browser sends.
var browser = ask{path: "/shop/item?id=17", fields: []string{
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64)", "Accept: text/html", "Accept-Encoding: gzip", "Accept-Language: en",
	"Cookie: a=b; INGRESSCOOKIE=x; c=d", "X-Custom: 1", "Referer: https://shop.example.com/", "Authorization: Basic Ym9iOmE6Yg==", "Origin: https://a.example.com",
}}

type runner struct {
	set  *Set
	c    *Chain
	x    Exchange
	ask  ask
	head http.Fields
	req  http.Request
	resp http.Response
	now  time.Time
}

func newRunner(t testing.TB, cfg Config, p route.Policy, a ask) *runner {
	s := newSet(t, cfg)
	r := &runner{set: s, c: chainOf(t, s, p), ask: a, now: time.Unix(1700000000, 0)}
	r.req = *a.request()
	r.head = append(r.head, r.req.Fields...)
	return r
}

func (r *runner) once(m *http.Request) *Answer {
	r.set.Begin(&r.x, r.x.Peer, m, r.now)
	a := r.c.Request(&r.x)
	r.resp.Fields = r.resp.Fields[:0]
	r.resp.Status = 200
	r.c.Response(&r.x, &r.resp)
	r.x.Done()
	r.req.Fields = m.Fields
	return a
}

var common = map[string]route.Policy{
	"empty":   {},
	"rewrite": {Rewrite: text("/new/$1"), SSLRedirect: false, UpstreamHost: "inner"},
	"fields": {RequestFields: []route.FieldEdit{{Name: "X-A", Value: "$host-$remote_addr"}}, ResponseFields: []route.FieldEdit{{Name: "X-B", Value: "y"}},
		CORS: &route.CORS{Origins: []string{"https://a.example.com"}, Methods: "GET"}},
	"access":   {Allow: prefixes("192.0.2.0/24"), Limit: &route.Limit{RPS: 1e9, Connections: 5}, Basic: &route.BasicAuth{Users: map[string]string{"bob": "{PLAIN}a:b"}}},
	"affinity": {Affinity: &route.Affinity{}, Balance: route.Balance{HashBy: "$request_uri"}},
}

// TestAllocations: no policy but external authentication allocates.
func TestAllocations(t *testing.T) {
	for name, p := range common {
		r := newRunner(t, Config{Trace: true, HSTS: "x"}, p, browser)
		r.x.Peer = browser.peer()
		var m http.Request
		got := testing.AllocsPerRun(100, func() {
			m = r.req
			m.Fields = append(r.req.Fields[:0], r.head...)
			if a := r.once(&m); a != nil {
				t.Fatalf("%s: answer %d by %s", name, a.Status, a.By)
			}
		})
		if got != 0 {
			t.Errorf("%s: %v allocations", name, got)
		}
	}
}

func BenchmarkChain(b *testing.B) {
	for _, name := range []string{"empty", "rewrite", "fields", "access", "affinity"} {
		b.Run(name, func(b *testing.B) {
			r := newRunner(b, Config{}, common[name], browser)
			r.x.Peer = browser.peer()
			var m http.Request
			b.ReportAllocs()
			for b.Loop() {
				m = r.req
				m.Fields = append(r.req.Fields[:0], r.head...)
				r.once(&m)
			}
		})
	}
}
