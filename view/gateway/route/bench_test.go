package route

import (
	"fmt"
	"testing"

	"github.com/fingerpost/fingerpost/catalog"
)

// big is n hosts with m rules each.
func big(n, m int) *Update {
	u := &Update{Hosts: make(map[string]*Host, n), Replace: true}
	p := defaultPolicy()
	for i := range n {
		h := &Host{Name: fmt.Sprintf("host-%d.example.com", i), TLS: true, Rules: make([]Rule, m)}
		for j := range h.Rules {
			h.Rules[j] = Rule{Origin: Origin{Kind: "ingress", Namespace: "default", Name: fmt.Sprintf("web-%d", i), Rule: j}, Policy: p,
				Path:     Path{Kind: Prefix, Value: fmt.Sprintf("/app-%d/v1", j)},
				Backends: []Backend{{Service: catalog.Key{Namespace: "default", Name: "web"}, Port: "80"}}}
			if m == 1 {
				h.Rules[j].Path.Value = "/"
			}
		}
		u.Hosts[h.Name] = h
	}
	return u
}

var shapes = []struct{ hosts, rules int }{{10000, 1}, {1000, 10}, {1, 10000}}

func each(b *testing.B, f func(b *testing.B, u *Update)) {
	for _, s := range shapes {
		b.Run(fmt.Sprintf("%dx%d", s.hosts, s.rules), func(b *testing.B) {
			b.ReportAllocs()
			f(b, big(s.hosts, s.rules))
		})
	}
}

func BenchmarkBuild(b *testing.B) {
	each(b, func(b *testing.B, u *Update) {
		for b.Loop() {
			Build(u, nil)
		}
	})
}

func BenchmarkChangeOne(b *testing.B) {
	each(b, func(b *testing.B, u *Update) {
		t := Build(u, nil)
		old := u.Hosts["host-0.example.com"]
		change := func(k string) *Update {
			h := *old
			h.Rules = append([]Rule(nil), old.Rules...)
			h.Rules[len(h.Rules)/2].Path.Value = k
			return &Update{Hosts: map[string]*Host{h.Name: &h}}
		}
		us := []*Update{change("/x"), change("/y")}
		n := 0
		for b.Loop() {
			t = t.With(us[n%2], nil)
			n++
		}
	})
}

func BenchmarkMatch(b *testing.B) {
	each(b, func(b *testing.B, u *Update) {
		t := Build(u, nil)
		qs := make([]Query, 1024)
		for i := range qs {
			h := i * 7919 % len(u.Hosts)
			r := u.Hosts[fmt.Sprintf("host-%d.example.com", h)].Rules
			qs[i] = Query{Host: fmt.Appendf(nil, "host-%d.example.com", h), Path: []byte(r[i*7919%len(r)].Path.Value + "/some/thing?q=1")}
			if len(r) == 1 {
				qs[i].Path = []byte("/some/thing?q=1")
			}
		}
		n := 0
		for b.Loop() {
			if m := t.Match(&qs[n&1023]); m.Rule == nil {
				b.Fatal("no match")
			}
			n++
		}
	})
}

// Few rules tried one by one, and in a tree: where few should be.
func BenchmarkFew(b *testing.B) {
	for _, n := range []int{1, 2, 4, 6, 8, 12} {
		u := big(1, n)
		h := u.Hosts["host-0.example.com"]
		list := &index{list: make([]compiled, n)}
		for i := range list.list {
			list.list[i].prepare(h, &h.Rules[i], nil)
		}
		tree := &index{host: h}
		tree.many(nil, nil)
		q := &Query{}
		path := fmt.Appendf(nil, "/app-%d/v1/some/thing", n-1)
		for name, e := range map[string]*index{"list": list, "tree": tree} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				for b.Loop() {
					e.find(q, path)
				}
			})
		}
	}
}

func TestMatchDoesNotAllocate(t *testing.T) {
	u := hosts(host("h.example.com", rule(Prefix, "/a"), rule(Regex, "/api(/|$)(.*)")), host("*.example.com", rule(Prefix, "/")))
	table := Build(u, nil)
	q := &Query{}
	for _, c := range [][2]string{{"h.example.com", "/a/b"}, {"H.example.com:80", "/a"}, {"x.example.com", "/"}, {"h.example.com", "/api/x"}, {"h.example.com", "/a%20/../b;x"}} {
		q.Host, q.Path = []byte(c[0]), []byte(c[1])
		if n := testing.AllocsPerRun(100, func() { table.Match(q) }); n != 0 {
			t.Errorf("%s%s: %v allocations", c[0], c[1], n)
		}
	}
}
