package route

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/wire/http"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (go test -update writes it anew):\n%s", file, got)
	}
}

// shop is a table with something of everything.
func shop() *Table {
	in := func(name string, n int, kind PathKind, path, service string) Rule {
		return Rule{Origin: Origin{"ingress", "default", name, n}, Path: Path{Kind: kind, Value: path},
			Backends: []Backend{{Service: catalog.Key{Namespace: "default", Name: service}, Port: "80", Weight: 1}}}
	}
	canary := in("shop", 1, Prefix, "/api", "api-next")
	canary.Headers = []ValueMatch{{Name: "X-Team", Value: "next"}, {Name: "X-Old", Present: true, Not: true}}
	post := in("shop", 2, Prefix, "/api", "write")
	post.Method = "POST"
	broken := in("shop", 3, Exact, "/broken", "gone")
	broken.Problem = "the service default/gone does not exist"
	redirect := in("shop", 4, Prefix, "/old", "x")
	redirect.Redirect = &Redirect{Status: 301, URL: "https://$host/new"}
	split := in("shop", 5, Prefix, "/split", "a")
	split.Backends = append(split.Backends, Backend{External: "example.org:443", Weight: 9})
	split.Canaries = []Canary{{Backends: []Backend{{Service: catalog.Key{Namespace: "default", Name: "b"}}}}}
	regex := in("legacy", 0, Regex, "/v1(/|$)(.*)", "legacy")
	bad := in("legacy", 1, Regex, "/(", "legacy")
	param := in("legacy", 2, Prefix, "/", "debug")
	param.Query = []ValueMatch{{Name: "debug", Regex: regexp.MustCompile("[0-9]+")}}
	many := &Host{Name: "many.example.com"}
	for i := range 30 {
		many.Rules = append(many.Rules, in("many", i, Prefix, fmt.Sprint("/", i), "m"))
	}
	return Build(&Update{
		Hosts: map[string]*Host{
			"shop.example.com": {Name: "shop.example.com", TLS: true, Rules: []Rule{in("shop", 0, Prefix, "/api", "api"), canary, post, broken, redirect, split, in("shop", 6, Prefix, "/", "web"), in("later", 0, Prefix, "/api/", "late")}},
			"*.example.com":    {Name: "*.example.com", Rules: []Rule{regex, bad, param}},
			"many.example.com": many,
			"raw.example.com":  {Name: "raw.example.com", Passthrough: &Backend{Service: catalog.Key{Namespace: "default", Name: "raw"}, Port: "443"}},
			"":                 {Rules: []Rule{in("any", 0, Exact, "/healthz", "health")}},
		},
		Global: &Global{Default: &Backend{Service: catalog.Key{Namespace: "default", Name: "fallback"}, Port: "http"}},
	}, nil)
}

func TestExplain(t *testing.T) {
	table := shop()
	var out strings.Builder
	for _, c := range []struct{ line, header, value string }{
		{"GET shop.example.com /api/v1?x=1", "", ""},
		{"POST Shop.example.com:443 /api", "", ""},
		{"GET shop.example.com /api", "X-Team", "next"},
		{"GET shop.example.com /broken", "", ""},
		{"GET shop.example.com /old/page", "", ""},
		{"GET shop.example.com /split", "", ""},
		{"GET shop.example.com /x/../api", "", ""},
		{"GET shop.example.com /api%2fv1", "", ""},
		{"GET shop.example.com /x%2Fy%7ez", "", ""},
		{"GET shop.example.com /../etc/passwd", "", ""},
		{"GET a.example.com /V1/users", "", ""},
		{"GET a.example.com /x?debug=7", "", ""},
		{"GET a.example.com /x?debug=yes", "", ""},
		{"GET many.example.com /7/x", "", ""},
		{"GET many.example.com /none", "", ""},
		{"GET example.org /healthz", "", ""},
		{"OPTIONS example.org *", "", ""},
	} {
		w := strings.Fields(c.line)
		q := &Query{Method: []byte(w[0]), Host: []byte(w[1]), Path: []byte(w[2])}
		fmt.Fprintf(&out, "%s %s%s\n", w[0], w[1], w[2])
		if c.header != "" {
			fmt.Fprintf(&out, "%s: %s\n", c.header, c.value)
			q.Fields = http.Fields{{Name: []byte(c.header), Value: []byte(c.value)}}
		}
		for _, s := range table.Explain(q) {
			mark := " "
			if s.Chosen {
				mark = ">"
			}
			fmt.Fprintf(&out, "  %s %-6s %s\n", mark, s.About, s.Text)
		}
		out.WriteString("\n")
	}
	q := &Query{Method: []byte("GET"), Host: []byte("x"), Path: []byte("/")}
	for _, s := range (*Table)(nil).Explain(q) {
		fmt.Fprintf(&out, "    %-6s %s\n", s.About, s.Text)
	}
	golden(t, "explain.txt", out.String())
}

func TestDescribe(t *testing.T) {
	var out strings.Builder
	for _, d := range shop().Describe() {
		fmt.Fprintf(&out, "%s | %s %s | %s | %s | %s | %v %s\n", d.Host, d.Kind, d.Path, strings.Join(d.Conditions, ", "), d.Target, d.Origin, d.TLS, d.Problem)
	}
	golden(t, "describe.txt", out.String())
	if (*Table)(nil).Describe() != nil || (*Table)(nil).Global() != nil || len(shop().Hosts()) != 5 {
		t.Error("the lists of an empty table, or of all hosts")
	}
}

func TestShadowed(t *testing.T) {
	h := shop().HostOf("shop.example.com")
	if got := h.Shadowed(); !slices.Equal(got, []Shadow{{Rule: 7, By: 0}}) {
		t.Errorf("%v", got)
	}
	h = host("h", rule(Prefix, "/"), rule(Exact, "/a"), rule(Prefix, ""), rule(Exact, "/%61"), rule(Regex, "/a"), rule(Exact, "/a/"), rule(Regex, "/a"))
	if got := h.Shadowed(); !slices.Equal(got, []Shadow{{2, 0}, {3, 1}, {6, 4}}) {
		t.Errorf("%v", got)
	}
	a, b := rule(Prefix, "/"), rule(Prefix, "/")
	a.Headers = []ValueMatch{{Name: "A", Value: "1"}, {Name: "B", Present: true}}
	b.Headers = []ValueMatch{{Name: "b", Present: true}, {Name: "a", Value: "1"}}
	c := b
	c.Headers = b.Headers[:1]
	if got := host("h", a, b, c).Shadowed(); !slices.Equal(got, []Shadow{{1, 0}}) {
		t.Errorf("%v", got)
	}
}

func at(t *Table, name string) *entry { return t.named(name, t.hash(name)) }

// With shares what an update does not name, and the compiled form of rules that
// stay.
func TestWith(t *testing.T) {
	calls := 0
	count := func(*Host, *Rule) any { calls++; return calls }
	p := defaultPolicy()
	mk := func(n int) *Host {
		h := &Host{Name: "big"}
		for i := range n {
			h.Rules = append(h.Rules, Rule{Path: Path{Value: fmt.Sprint("/", i)}, Policy: p})
		}
		return h
	}
	big, other := mk(100), host("Other.", rule(Prefix, "/"))
	one := Build(hosts(big, other), count)
	if calls != 100 {
		t.Fatalf("%d calls", calls)
	}
	// A host with few rules is looked at when a request comes, once.
	calls = 0
	for range 2 {
		if m := one.Match(&Query{Host: []byte("other"), Path: []byte("/")}); calls != 1 || m.Data != 1 {
			t.Fatalf("%d calls, %v", calls, m.Data)
		}
	}
	calls = 0
	next := mk(100)
	next.Rules = slices.Insert(next.Rules, 50, Rule{Path: Path{Value: "/new"}, Policy: p})
	two := one.With(&Update{Hosts: map[string]*Host{"big": next}}, count)
	if calls != 1 || at(two, "other") != at(one, "other") {
		t.Errorf("%d calls for one new rule", calls)
	}
	q := &Query{Host: []byte("big"), Path: []byte("/new")}
	if one.Match(q).Rule != nil || two.Match(q).Rule == nil {
		t.Error("/new")
	}
	if at(two, "big").made.Load().all[3] != at(one, "big").made.Load().all[3] {
		t.Error("a rule was compiled again")
	}
	calls = 0
	tls := *next
	tls.TLS = true
	if two.With(&Update{Hosts: map[string]*Host{"big": &tls}}, count); calls != 101 {
		t.Errorf("%d calls when the host changed", calls)
	}
	calls = 0
	three := two.With(&Update{Replace: true, Hosts: map[string]*Host{"big": next}, Global: &Global{Default: &Backend{}}}, count)
	if calls != 0 || three.Len() != 1 {
		t.Errorf("%d calls, %d hosts", calls, three.Len())
	}
	q.Host = []byte("nobody")
	if m := three.Match(q); m.Data != 1 || m.Rule == nil || m.Host != nil || m.Rule.Policy == nil || !m.Rule.Policy.Retry.Reset {
		t.Error("no default")
	}
	// Hosts come and go: the slots stay right.
	table := Build(&Update{}, nil)
	live := map[string]bool{}
	for i := range 2000 {
		n := fmt.Sprintf("h%d", i*7%300)
		if live[n] {
			table = table.With(&Update{Hosts: map[string]*Host{n: nil}}, nil)
		} else {
			table = table.With(&Update{Hosts: map[string]*Host{n: host(n, rule(Prefix, "/"))}}, nil)
		}
		live[n] = !live[n]
		if i%97 == 0 {
			for n, want := range live {
				if (at(table, n) != nil) != want {
					t.Fatalf("%s: %v", n, !want)
				}
			}
		}
	}
}
