package route

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/wire/http"
)

func name(_ *Host, r *Rule) any { return r.Origin.Name }

func rule(kind PathKind, path string) Rule {
	return Rule{Origin: Origin{Kind: "ingress", Namespace: "default", Name: kind.String() + path, Rule: -1}, Path: Path{Kind: kind, Value: path},
		Backends: []Backend{{Service: catalog.Key{Namespace: "default", Name: "web"}, Port: "80"}}}
}

func host(name string, rules ...Rule) *Host { return &Host{Name: name, Rules: rules} }

func hosts(hs ...*Host) *Update {
	u := &Update{Hosts: map[string]*Host{}, Replace: true}
	for _, h := range hs {
		u.Hosts[h.Name] = h
	}
	return u
}

func got(m Match) string {
	switch {
	case m.Refused != "":
		return "400"
	case m.Rule == nil:
		return "404"
	}
	return m.Data.(string)
}

func TestHosts(t *testing.T) {
	one := func(n string) *Host {
		h := host(n, rule(Prefix, "/"))
		h.Rules[0].Origin.Name = n
		return h
	}
	table := Build(hosts(one("shop.example.com"), one("*.example.com"), one("*.shop.example.com"), one("::1"), one("")), name)
	for _, c := range [][2]string{
		{"shop.example.com", "shop.example.com"},
		{"SHOP.Example.com", "shop.example.com"},
		{"shop.example.com:8080", "shop.example.com"},
		{"Shop.example.com.:8080", "shop.example.com"},
		{"shop.example.com.", "shop.example.com"},
		{"a.example.com", "*.example.com"},
		{"A.EXAMPLE.COM:1", "*.example.com"},
		{"a.b.example.com", ""},
		{"a.shop.example.com", "*.shop.example.com"},
		{"example.com", ""},
		{".example.com", ""},
		{"[::1]:80", "::1"},
		{"[::2]", ""},
		{"", ""},
		{":80", ""},
		{strings.Repeat("a", 300) + ".example.com", ""},
	} {
		m := table.Match(&Query{Host: []byte(c[0]), Path: []byte("/")})
		if m.Host == nil || got(m) != c[1] {
			t.Errorf("%q: %q, want %q", c[0], got(m), c[1])
		}
		if h := table.HostOf(c[0]); h == nil || h.Name != c[1] {
			t.Errorf("HostOf(%q): %v", c[0], h)
		}
	}
	if m := (*Table)(nil).Match(&Query{Host: []byte("x"), Path: []byte("/")}); m.Rule != nil || m.Host != nil {
		t.Error("a nil table matches")
	}
}

func TestPaths(t *testing.T) {
	table := Build(hosts(
		host("p", rule(Exact, "/foo"), rule(Prefix, "/foo"), rule(Prefix, "/foo/bar/"), rule(StringPrefix, "/fo"), rule(Prefix, "/caf\u00e9"), rule(Prefix, "/a b")),
		host("r", rule(Regex, "/api(/|$)(.*)"), rule(Regex, "/api/v[0-9]+/(.*)"), rule(Exact, "/api"), rule(Prefix, "/api/v1/exact"), rule(Prefix, "/")),
		host("u", rule(Regex, "/caf\u00e9+/(.*)"), rule(Regex, "/a b\\.(.*)")),
		host("npm", rule(Prefix, "/"), rule(Prefix, "/admin"), rule(Exact, "/login")),
	), name)
	for _, c := range []struct{ host, path, want, forward string }{
		{"p", "/foo", "Exact/foo", ""},
		{"p", "/foo?x=/..", "Exact/foo", ""},
		{"p", "/foo/", "Prefix/foo", ""},
		{"p", "/foo/ba", "Prefix/foo", ""},
		{"p", "/foo/bar", "Prefix/foo/bar/", ""},
		{"p", "/foo/bar/x", "Prefix/foo/bar/", ""},
		{"p", "/foobar", "StringPrefix/fo", ""},
		{"p", "/Foo", "404", ""},
		{"p", "/caf%C3%a9/x", "Prefix/caf\u00e9", ""},
		{"p", "/caf\u00e9", "Prefix/caf\u00e9", ""},
		{"p", "/a%20b", "Prefix/a b", ""},
		{"r", "/API", "Regex/api(/|$)(.*)", ""},
		{"r", "/api", "Exact/api", ""},
		{"r", "/apis", "Prefix/", ""},
		{"r", "/api/v1/exact", "Regex/api/v[0-9]+/(.*)", ""},
		{"u", "/Caf%c3%a9%C3%A9/x", "Regex/caf\u00e9+/(.*)", ""},
		{"u", "/a%20b.c", "Regex/a b\\.(.*)", ""},
		{"u", "/a%20bxc", "404", ""},
		{"npm", "/@scope%2fname", "Prefix/", ""},
		{"npm", "/%61dmin", "Prefix/admin", ""},
		{"npm", "/x/../admin", "Prefix/admin", "/admin"},
		{"npm", "/x/%2e%2E/admin?q", "Prefix/admin", "/admin"},
		{"npm", "/./admin/.", "Prefix/admin", "/admin/"},
		{"npm", "/../admin", "400", ""},
		{"npm", "/x/..", "Prefix/", "/"},
		{"npm", "//admin", "Prefix/admin", "/admin"},
		{"npm", "//host/admin", "Prefix/", "/host/admin"},
		{"npm", "/proxy/http://x/y", "Prefix/", ""},
		{"npm", "/admin//x", "Prefix/admin", ""},
		{"npm", "/x//../admin", "400", ""},
		{"npm", "/x%2f../admin", "400", ""},
		{"npm", "/x/..%2fadmin", "400", ""},
		{"npm", "/x/..;/admin", "400", ""},
		{"npm", "/x/..%3b/admin", "400", ""},
		{"npm", "/admin%2fx", "400", ""},
		{"npm", "/admin%5cx", "400", ""},
		{"npm", "/admin;x=1/y", "400", ""},
		{"npm", "/y;x=1", "Prefix/", ""},
		{"npm", "/login/", "Prefix/", ""},
		{"npm", "/.well-known/x", "Prefix/", ""},
		{"npm", "/.../admin", "Prefix/", ""},
		{"npm", "/%zz", "400", ""},
		{"npm", "/%2", "400", ""},
		{"npm", "/%00", "400", ""},
		{"npm", "/a#b", "400", ""},
		{"npm", "/a\x01", "400", ""},
		{"npm", "admin", "400", ""},
		{"npm", "*", "Prefix/", ""},
		{"npm", "", "Prefix/", ""},
		{"npm", "/%252e%252e/admin", "Prefix/", ""},
	} {
		m := table.Match(&Query{Host: []byte(c.host), Path: []byte(c.path)})
		if got(m) != c.want || m.Refused == "" && string(m.Forward) != c.forward {
			t.Errorf("%s %s: %s forward %q (%s), want %s %q", c.host, c.path, got(m), m.Forward, m.Refused, c.want, c.forward)
		}
	}
}

func TestCaptures(t *testing.T) {
	for _, text := range []string{"/api", "/api$", "/api(.*)", "/api/(.*)", "/api/?(.*)", "/api(/|$)(.*)", "/api(/|$)", "/api(/.*)", "/a.i/(v\\d)?(.*)", "^/api/(.*)$", "/x|/api/(.*)", "/api*", "(/(api))/"} {
		p := Path{Kind: Regex, Value: text}
		table := Build(hosts(host("h", Rule{Path: p})), nil)
		re := regexp.MustCompile("(?i)^(?:" + text + ")")
		for _, path := range []string{"/api", "/API", "/api/", "/api/v1", "/api/v1/x", "/apix", "/ap", "/", "/x", "/api/a%2Fb", "/APII"} {
			m := table.Match(&Query{Host: []byte("h"), Path: []byte(path)})
			want := re.FindStringSubmatch(path)
			if (want == nil) != (m.Rule == nil) {
				t.Errorf("%s on %s: %v, want %q", text, path, m.Rule != nil, want)
				continue
			}
			for i := 1; i < len(want); i++ {
				if string(m.Capture(i)) != want[i] {
					t.Errorf("%s on %s: $%d is %q, want %q", text, path, i, m.Capture(i), want[i])
				}
			}
			if m.Capture(9) != nil && len(want) < 10 {
				t.Errorf("%s: $9 is there", text)
			}
		}
	}
	for path, want := range map[string]bool{"/a/b": false, "/a/../b": true, "/a/..": true, "/a..b/": false, "/%2e": true, "/..;/a": true, "/a%2f..": true, "x": true} {
		if Unsafe([]byte(path)) != want {
			t.Errorf("Unsafe(%s): %v", path, !want)
		}
	}
}

func TestConditions(t *testing.T) {
	with := func(n string, f func(*Rule)) Rule {
		r := rule(Prefix, "/")
		r.Origin.Name = n
		f(&r)
		return r
	}
	table := Build(hosts(host("h",
		with("plain", func(*Rule) {}),
		with("post", func(r *Rule) { r.Method = "POST" }),
		with("header", func(r *Rule) { r.Headers = []ValueMatch{{Name: "x-canary", Value: "yes"}} }),
		with("both", func(r *Rule) {
			r.Method = "POST"
			r.Headers = []ValueMatch{{Name: "X-Canary", Regex: regexp.MustCompile("y.*")}}
		}),
		with("query", func(r *Rule) { r.Query = []ValueMatch{{Name: "a b", Value: "c&d"}} }),
		with("agent", func(r *Rule) {
			r.Headers = []ValueMatch{{Name: "user-agent", Present: true}, {Name: "user-agent", Value: "curl", Not: true}, {Name: "host", Value: "h"}}
		}),
	)), name)
	for _, c := range []struct{ method, path, header, value, want string }{
		{"GET", "/", "", "", "plain"},
		{"POST", "/", "", "", "post"},
		{"POST", "/", "X-CANARY", "yes", "both"},
		{"GET", "/", "X-Canary", "yes", "header"},
		{"GET", "/", "X-Canary", "oh yes", "plain"},
		{"GET", "/?x&a+b=c%26d", "", "", "query"},
		{"GET", "/?a%20b=c&d", "", "", "plain"},
		{"GET", "/", "User-Agent", "curl", "plain"},
		{"GET", "/", "User-Agent", "wget", "agent"},
	} {
		q := Query{Host: []byte("h"), Path: []byte(c.path), Method: []byte(c.method)}
		if c.header != "" {
			q.Fields.AddNamed([]byte(c.header), []byte(c.value))
		}
		if g := got(table.Match(&q)); g != c.want {
			t.Errorf("%s %s %s: %s, want %s", c.method, c.path, c.value, g, c.want)
		}
	}
	var _ http.Fields
}

// slow is the obvious matcher: all rules, by the words of doc.go, on a path as
// elements that are decoded already.
func slow(h *Host, path []string) string {
	best, bestRank, bestLen := "404", -1, -1
	for _, r := range h.Rules {
		value := strings.Split(r.Path.Value, "/")[1:]
		rank := -1
		switch r.Path.Kind {
		case Exact:
			if slices.Equal(value, path) {
				rank = 3
			}
		case Regex:
			if regexp.MustCompile("(?i)^(?:" + r.Path.Value + ")").MatchString("/" + strings.Join(path, "/")) {
				rank = 2
			}
		case Prefix:
			if value[len(value)-1] == "" {
				value = value[:len(value)-1]
			}
			if len(path) >= len(value) && slices.Equal(path[:len(value)], value) {
				rank = 1
			}
		}
		n := len(strings.TrimSuffix(r.Path.Value, "/"))
		if r.Path.Kind != Prefix {
			n = len(r.Path.Value)
		}
		if rank > bestRank || rank >= 0 && rank == bestRank && n > bestLen {
			best, bestRank, bestLen = r.Origin.Name, rank, n
		}
	}
	return best
}

var words = []string{"a", "b", "ab", "api", "x"}

func randomPath(r *rand.Rand) string {
	var b strings.Builder
	for range 1 + r.IntN(4) {
		b.WriteString("/" + words[r.IntN(len(words))])
	}
	if r.IntN(4) == 0 {
		b.WriteString("/")
	}
	return b.String()
}

func randomHost(r *rand.Rand, n int, regex bool) *Host {
	h := &Host{Name: "h"}
	for i := range n {
		k := []PathKind{Prefix, Exact}[r.IntN(2)]
		p := randomPath(r)
		if r.IntN(20) == 0 {
			p = "/"
		}
		if regex && r.IntN(3) == 0 {
			k, p = Regex, p+[]string{"", "(.*)", "(/|$)(.*)", "/?(.*)", "[a-c]+/(.*)", "$"}[r.IntN(6)]
		}
		x := rule(k, p)
		x.Origin.Name = fmt.Sprint(i, " ", k, p)
		h.Rules = append(h.Rules, x)
	}
	return h
}

// The fast matcher against the slow one, small and large hosts, while rules come
// and go.
func TestRandom(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for round := range 100 {
		h := randomHost(r, 1+r.IntN(60), round%2 == 0)
		table := Build(hosts(h), name)
		for range 20 {
			for range 20 {
				p := randomPath(r)
				if g, want := got(table.Match(&Query{Host: []byte("h"), Path: []byte(p)})), slow(h, strings.Split(p, "/")[1:]); g != want {
					t.Fatalf("%s: %q, want %q", p, g, want)
				}
			}
			c := &Host{Name: "h", Rules: slices.Clone(at(table, "h").host.Rules)}
			at := r.IntN(len(c.Rules))
			switch r.IntN(3) {
			case 0:
				c.Rules = slices.Delete(c.Rules, at, at+1)
				if len(c.Rules) == 0 {
					continue
				}
			case 1:
				c.Rules = slices.Insert(c.Rules, at, randomHost(r, 1, round%2 == 0).Rules[0])
				c.Rules[at].Origin.Name += fmt.Sprint(" new ", r.IntN(1000))
			default:
				c.Rules[at].Path.Value = randomPath(r)
				c.Rules[at].Path.Kind = Prefix
			}
			old, was := table, h
			h, table = c, table.With(&Update{Hosts: map[string]*Host{"h": c}}, name)
			for range 10 {
				p := randomPath(r)
				if g, want := got(old.Match(&Query{Host: []byte("h"), Path: []byte(p)})), slow(was, strings.Split(p, "/")[1:]); g != want {
					t.Fatalf("the table before changed: %s: %q, want %q", p, g, want)
				}
			}
		}
	}
}

// Readers of a path: what an endpoint may make of it.
func readings(p string) [][]string {
	var out [][]string
	for mask := range 16 {
		s := p
		if mask&1 != 0 {
			s = regexp.MustCompile("(?i)%2f").ReplaceAllString(s, "/")
		}
		if mask&2 != 0 {
			s = regexp.MustCompile(`(?i)%5c|\\`).ReplaceAllString(s, "/")
		}
		if mask&4 != 0 {
			s = regexp.MustCompile("(?i)(;|%3b)[^/]*").ReplaceAllString(s, "")
		}
		if mask&8 != 0 {
			s = regexp.MustCompile("/+").ReplaceAllString(s, "/")
		}
		var elements []string
		parts := strings.Split(s, "/")[1:]
		for i, e := range parts {
			d, err := url.PathUnescape(e)
			switch {
			case err != nil:
				return nil
			case d == "." || d == "..":
				if d == ".." && len(elements) > 0 {
					elements = elements[:len(elements)-1]
				}
				if i == len(parts)-1 {
					elements = append(elements, "")
				}
			default:
				elements = append(elements, d)
			}
		}
		out = append(out, elements)
	}
	return out
}

func FuzzMatch(f *testing.F) {
	for _, s := range []string{"/a/b", "//a", "/a/../b", "/a%2fb", "/a;x/b", "/a%5C..%2fb", "/a//b?x=%zz", "/%61/b", "/a/%2e%2e/b", "*", "/a;%2fb"} {
		f.Add("h:80", s)
	}
	r := rand.New(rand.NewPCG(3, 4))
	small := &Host{Name: "h", Rules: []Rule{rule(Prefix, "/"), rule(Prefix, "/a"), rule(Exact, "/a/b"), rule(Prefix, "/a/b"), rule(Exact, "/b/")}}
	large := randomHost(r, 200, false)
	wild := *large
	wild.Name = "*.w"
	table := Build(hosts(small, &wild), name)
	f.Fuzz(func(t *testing.T, h, p string) {
		q := &Query{Host: []byte(h), Path: []byte(p)}
		m := table.Match(q)
		table.Explain(q)
		m = table.Match(q)
		for i := range m.Captures() {
			m.Capture(i)
		}
		if m.Host == nil || m.Refused != "" || p == "*" || p == "" {
			return
		}
		sent, _, _ := strings.Cut(p, "?")
		if m.Forward != nil {
			sent = string(m.Forward)
		}
		for _, path := range readings(sent) {
			if want := slow(m.Host, path); got(m) != want {
				t.Fatalf("%q is sent as %q by %q, but %q takes it to %q", p, sent, got(m), path, want)
			}
		}
	})
}
