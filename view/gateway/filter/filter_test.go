package filter

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/fingerpost/fingerpost/view/gateway/route"
	"github.com/fingerpost/fingerpost/view/gateway/stream"
	"github.com/fingerpost/fingerpost/wire/http"
)

// ask describes a request of a test.
type ask struct {
	method, host, path string
	remote             string
	tls                bool
	fields             []string // "Name: value"
	captures           []string
	client             *stream.Identity
	sni                string
}

func (a ask) exchange(s *Set) *Exchange {
	x := &Exchange{}
	s.Begin(x, a.peer(), a.request(), time.Unix(1700000000, 0))
	for _, c := range a.captures {
		x.Captures = append(x.Captures, []byte(c))
	}
	return x
}

func (a ask) peer() *stream.Peer {
	remote, port := a.remote, 80
	if remote == "" {
		remote = "192.0.2.7:4711"
	}
	if a.tls {
		port = 443
	}
	return &stream.Peer{Remote: net.TCPAddrFromAddrPort(netip.MustParseAddrPort(remote)),
		Local: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}, TLS: a.tls, Client: a.client, ServerName: a.sni}
}

func (a ask) request() *http.Request {
	r := &http.Request{Version: http.HTTP11, Method: []byte("GET"), Authority: []byte("shop.example.com"), Path: []byte("/")}
	if a.method != "" {
		r.Method = []byte(a.method)
	}
	if a.host != "" {
		r.Authority = []byte(a.host)
	}
	if a.path != "" {
		r.Path = []byte(a.path)
	}
	for _, f := range a.fields {
		name, value, _ := strings.Cut(f, ": ")
		r.Fields.AddNamed([]byte(name), []byte(value))
	}
	return r
}

func newSet(t testing.TB, cfg Config) *Set {
	t.Helper()
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var someRule = route.Rule{
	Origin:   route.Origin{Kind: "Ingress", Namespace: "default", Name: "web"},
	Path:     route.Path{Value: "/"},
	Backends: []route.Backend{{Port: "80"}},
}

func chainOf(t testing.TB, s *Set, p route.Policy, more ...func(*route.Host, *route.Rule)) *Chain {
	t.Helper()
	h, r := &route.Host{Name: "shop.example.com", TLS: true}, someRule
	r.Policy = &p
	for _, m := range more {
		m(h, &r)
	}
	c, err := s.Compile(h, &r)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// show writes what a chain did, one line a fact.
func show(c *Chain, x *Exchange) string {
	var b strings.Builder
	if a := c.Request(x); a != nil {
		fmt.Fprintf(&b, "answer %d by %s\n", a.Status, a.By)
		r := http.Response{Status: a.Status, Fields: append(http.Fields(nil), a.Fields...)}
		c.Response(x, &r)
		for _, f := range r.Fields {
			fmt.Fprintf(&b, "< %s: %s\n", f.Name, f.Value)
		}
		return b.String()
	}
	fmt.Fprintf(&b, "%s %s %s\n", x.Request.Method, x.Request.Authority, x.Request.Path)
	for _, f := range x.Request.Fields {
		if f.ID == http.XRequestID {
			continue
		}
		fmt.Fprintf(&b, "%s: %s\n", f.Name, f.Value)
	}
	return b.String()
}

// allow has every address.
func prefixes(list ...string) (out []netip.Prefix) {
	for _, p := range list {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

func text(s string) *string { return &s }

const plainFields = "X-Real-IP: 192.0.2.7\nX-Forwarded-For: 192.0.2.7\nX-Forwarded-Host: shop.example.com\nX-Forwarded-Port: 80\nX-Forwarded-Proto: http\nX-Forwarded-Scheme: http\nX-Scheme: http\n"

func TestForwarded(t *testing.T) {
	cfg := Config{Trusted: prefixes("10.0.0.0/8", "fd00::/8")}
	for _, c := range []struct {
		name string
		cfg  Config
		ask  ask
		want string
	}{
		{"plain", cfg, ask{}, "GET shop.example.com /\n" + plainFields},
		{"what a client invents", cfg, ask{fields: []string{"X-Real-IP: 1.1.1.1", "x-forwarded-for: 1.1.1.1", "X-Forwarded-Proto: https", "X-Forwarded-Host: evil",
			"X-Forwarded-Port: 1", "X-Scheme: https", "Forwarded: for=1.1.1.1", "X-Forwarded-Prefix: /x", "ssl-client-verify: SUCCESS", "X_Real_IP: 1.1.1.1", "X-Original-Forwarded-For: 8.8.8.8", "Accept: a/b"}},
			"GET shop.example.com /\nAccept: a/b\n" + plainFields + "X-Original-Forwarded-For: 1.1.1.1\n"},
		{"a trusted proxy", cfg, ask{remote: "10.1.1.1:1", fields: []string{"X-Forwarded-For: 6.6.6.6, 203.0.113.9, 10.2.2.2", "X-Forwarded-Proto: https", "X-Forwarded-Host: www.example.com", "X-Forwarded-Prefix: /p"}},
			"GET shop.example.com /\nX-Real-IP: 203.0.113.9\nX-Forwarded-For: 6.6.6.6, 203.0.113.9, 10.2.2.2, 10.1.1.1\nX-Forwarded-Host: www.example.com\nX-Forwarded-Port: 443\nX-Forwarded-Proto: https\nX-Forwarded-Scheme: https\nX-Scheme: https\nX-Forwarded-Prefix: /p\n"},
		{"a trusted proxy that sends rubbish", cfg, ask{remote: "10.1.1.1:1", fields: []string{"X-Forwarded-For: nobody", "X-Forwarded-Proto: gopher", "X-Forwarded-Host: a b", "X-Forwarded-Port: x"}},
			"GET shop.example.com /\nX-Real-IP: 10.1.1.1\nX-Forwarded-For: nobody, 10.1.1.1\nX-Forwarded-Host: shop.example.com\nX-Forwarded-Port: 80\nX-Forwarded-Proto: http\nX-Forwarded-Scheme: http\nX-Scheme: http\n"},
		{"two fields, with ports", cfg, ask{remote: "[fd00::1]:1", fields: []string{"X-Forwarded-For: 1.2.3.4:99", "X-Forwarded-For: [2001:db8::1]:7", "X-Forwarded-Port: 8443"}},
			"GET shop.example.com /\nX-Real-IP: 2001:db8::1\nX-Forwarded-For: 1.2.3.4:99, [2001:db8::1]:7, fd00::1\nX-Forwarded-Host: shop.example.com\nX-Forwarded-Port: 8443\nX-Forwarded-Proto: http\nX-Forwarded-Scheme: http\nX-Scheme: http\n"},
		{"RFC 7239", Config{Forwarded: true}, ask{remote: "[2001:db8::5]:1", tls: true},
			"GET shop.example.com /\nX-Real-IP: 2001:db8::5\nX-Forwarded-For: 2001:db8::5\nX-Forwarded-Host: shop.example.com\nX-Forwarded-Port: 443\nX-Forwarded-Proto: https\nX-Forwarded-Scheme: https\nX-Scheme: https\nForwarded: for=\"[2001:db8::5]\";host=\"shop.example.com\";proto=https\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSet(t, c.cfg)
			if got := show(chainOf(t, s, route.Policy{}), c.ask.exchange(s)); got != c.want {
				t.Errorf("got:\n%s\nwant:\n%s", got, c.want)
			}
		})
	}
}

func TestRequestIDAndTrace(t *testing.T) {
	s := newSet(t, Config{Trace: true})
	c := chainOf(t, s, route.Policy{})
	run := func(fields ...string) http.Fields {
		x := ask{fields: fields}.exchange(s)
		c.Request(x)
		return x.Request.Fields
	}
	made := run()
	if id := made.Get(http.XRequestID); len(id) != 32 || !isHex(id) {
		t.Errorf("id %q", id)
	}
	if tp := made.Get(http.Traceparent); !validTrace(tp) {
		t.Errorf("traceparent %q", tp)
	}
	const valid = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	kept := run("X-Request-ID: abc-1", "traceparent: "+valid)
	if string(kept.Get(http.XRequestID)) != "abc-1" || string(kept.Get(http.Traceparent)) != valid {
		t.Errorf("not kept: %q", kept)
	}
	for _, bad := range []string{"00-00000000000000000000000000000000-b7ad6b7169203331-01", "ff" + valid[2:], valid + "-x", valid[:54], strings.ToUpper(valid), ""} {
		if got := run("traceparent: " + bad).Get(http.Traceparent); string(got) == bad || !validTrace(got) {
			t.Errorf("traceparent %q became %q", bad, got)
		}
	}
	for _, bad := range []string{"a b", strings.Repeat("x", 129), "<script>"} {
		if got := run("X-Request-ID: " + bad).Get(http.XRequestID); string(got) == bad {
			t.Errorf("id %q kept", bad)
		}
	}
}

func TestRedirects(t *testing.T) {
	rule := func(url string, status int) func(*route.Host, *route.Rule) {
		return func(_ *route.Host, r *route.Rule) { r.Redirect = &route.Redirect{URL: url, Status: status} }
	}
	for _, c := range []struct {
		name   string
		cfg    Config
		policy route.Policy
		rule   func(*route.Host, *route.Rule)
		ask    ask
		want   string
	}{
		{"ssl", Config{}, route.Policy{SSLRedirect: true}, nil, ask{path: "/a?b=c"}, "answer 308 by ssl-redirect\n< Location: https://shop.example.com/a?b=c\n"},
		{"ssl, ports", Config{HTTPSPort: 8443}, route.Policy{SSLRedirect: true, RedirectStatus: 301}, nil, ask{host: "shop.example.com:8080"}, "answer 301 by ssl-redirect\n< Location: https://shop.example.com:8443/\n"},
		{"ssl, IPv6", Config{}, route.Policy{SSLRedirect: true}, nil, ask{host: "[2001:db8::1]:80"}, "answer 308 by ssl-redirect\n< Location: https://[2001:db8::1]/\n"},
		{"ssl without TLS", Config{}, route.Policy{SSLRedirect: true}, func(h *route.Host, _ *route.Rule) { h.TLS = false }, ask{}, "GET shop.example.com /\n" + plainFields},
		{"forced", Config{}, route.Policy{ForceSSLRedirect: true}, func(h *route.Host, _ *route.Rule) { h.TLS = false }, ask{path: "//evil.com/"}, "answer 308 by ssl-redirect\n< Location: https://shop.example.com//evil.com/\n"},
		{"a host that is none", Config{}, route.Policy{SSLRedirect: true}, nil, ask{host: "a/b@evil.com"}, "answer 400 by host\n"},
		{"options *", Config{}, route.Policy{SSLRedirect: true}, nil, ask{path: "*", method: "OPTIONS"}, "answer 308 by ssl-redirect\n< Location: https://shop.example.com/\n"},
		{"app-root", Config{}, route.Policy{AppRoot: "/app"}, nil, ask{path: "/?x"}, "answer 302 by app-root\n< Location: http://shop.example.com/app\n"},
		{"fixed", Config{}, route.Policy{}, rule("https://other.example.com/x", 301), ask{}, "answer 301 by redirect\n< Location: https://other.example.com/x\n"},
		{"variables", Config{}, route.Policy{}, rule("$scheme://www.$host$request_uri", 0), ask{path: "/a?b"}, "answer 302 by redirect\n< Location: http://www.shop.example.com/a?b\n"},
		{"a capture behind a host", Config{}, route.Policy{}, rule("https://example.com$1", 302), ask{captures: []string{"", ".evil.com"}}, "answer 302 by redirect\n< Location: https://example.com/.evil.com\n"},
		{"a capture with an @", Config{}, route.Policy{}, rule("https://example.com$1", 302), ask{captures: []string{"", "@evil.com"}}, "answer 302 by redirect\n< Location: https://example.com/@evil.com\n"},
		{"a capture as a label", Config{}, route.Policy{}, rule("https://$1.example.com/$2", 302), ask{captures: []string{"", "de", "x"}}, "answer 302 by redirect\n< Location: https://de.example.com/x\n"},
		{"a capture that ends the host", Config{}, route.Policy{}, rule("https://$1.example.com/", 302), ask{captures: []string{"", "evil.com/"}}, "answer 400 by redirect\n"},
		{"another host by //", Config{}, route.Policy{}, rule("$1", 302), ask{captures: []string{"", "//evil.com"}}, "answer 302 by redirect\n< Location: /evil.com\n"},
		{"another host by / and a capture", Config{}, route.Policy{}, rule("/$1", 302), ask{captures: []string{"", "/evil.com"}}, "answer 302 by redirect\n< Location: /evil.com\n"},
		{"another scheme", Config{}, route.Policy{}, rule("$arg_to", 302), ask{path: "/?to=javascript:x"}, "answer 302 by redirect\n< Location: /javascript:x\n"},
		{"line breaks", Config{}, route.Policy{}, rule("/x?$arg_to", 302), ask{path: "/?to=a\r\nb"}, "answer 302 by redirect\n< Location: /x?a%0D%0Ab\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSet(t, c.cfg)
			var more []func(*route.Host, *route.Rule)
			if c.rule != nil {
				more = append(more, c.rule)
			}
			if got := show(chainOf(t, s, c.policy, more...), c.ask.exchange(s)); got != c.want {
				t.Errorf("got:\n%s\nwant:\n%s", got, c.want)
			}
		})
	}
}

func TestRewrite(t *testing.T) {
	for _, c := range []struct {
		target, path string
		captures     []string
		want         string
	}{
		{"/$2", "/api/v1/x?q=1", []string{"", "/", "v1/x"}, "/v1/x?q=1"},
		{"/", "/something", nil, "/"},
		{"/", "/something?a=b", nil, "/?a=b"},
		{"/x?y=$1", "/z?a=b", []string{"", "1"}, "/x?y=1&a=b"},
		{"/x?", "/z?a=b", nil, "/x"},
		{"$1", "/z", []string{"", "no-slash"}, "/no-slash"},
		{"/$1", "/z", []string{"", "a b?c#d"}, "/a%20b%3Fc%23d"},
		{"/p$1", "/z", []string{"", "%2Fx"}, "/p%2Fx"},
		{"/y$request_uri", "/z?a=b", nil, "/y/z?a=b"},
		{"/$1", "/z", []string{"", "../etc"}, "400"},
		{"/x$1", "/z", []string{"", "/..%2f"}, "400"},
		{"https://new.example.com/$1", "/z", []string{"", "a"}, "302"},
	} {
		s := newSet(t, Config{})
		ch := chainOf(t, s, route.Policy{Rewrite: text(c.target)})
		x := ask{path: c.path, captures: c.captures}.exchange(s)
		got := ""
		if a := ch.Request(x); a != nil {
			got = fmt.Sprint(a.Status)
		} else {
			got = string(x.Request.Path)
		}
		if got != c.want {
			t.Errorf("%s of %s %q: %s, want %s", c.target, c.path, c.captures, got, c.want)
		}
	}
}

func TestFields(t *testing.T) {
	s := newSet(t, Config{HSTS: "max-age=1"})
	c := chainOf(t, s, route.Policy{
		UpstreamHost: "inner.example", ForwardPrefix: "/pre",
		RequestFields:  []route.FieldEdit{{Name: "X-Who", Value: "$remote_addr at $host"}, {Name: "Cookie", Op: route.Remove}, {Name: "X-For", Value: "$http_x_forwarded_for"}, {Name: "X-Cost", Value: "$5 or $nothing"}},
		ResponseFields: []route.FieldEdit{{Name: "X-Frame-Options", Value: "DENY"}, {Name: "Server", Op: route.Remove}},
	})
	x := ask{tls: true, fields: []string{"Cookie: a=b", "X-Who: me", "X-Forwarded-For: 9.9.9.9"}}.exchange(s)
	got := show(c, x)
	for _, want := range []string{"GET inner.example /\n", "X-Who: 192.0.2.7 at shop.example.com\n", "X-Forwarded-Prefix: /pre\n", "X-For: 9.9.9.9\n", "X-Forwarded-Host: shop.example.com\n", "X-Cost: $5 or $nothing\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if strings.Contains(got, "a=b") || strings.Contains(got, ": me") {
		t.Errorf("not removed:\n%s", got)
	}
	r := http.Response{Status: 200}
	r.Fields.AddNamed([]byte("server"), []byte("x"))
	c.Response(x, &r)
	if r.Fields.Get(http.Server) != nil || string(r.Fields.Lookup([]byte("x-frame-options"))) != "DENY" || string(r.Fields.Get(http.StrictTransportSecurity)) != "max-age=1" {
		t.Errorf("response: %q", r.Fields)
	}
}

func TestCompileRefuses(t *testing.T) {
	s := newSet(t, Config{})
	for _, p := range []route.Policy{
		{AppRoot: "app"}, {AppRoot: "/a\r\nb"}, {Rewrite: text("/$nonsense")}, {ForwardPrefix: "/\n"},
		{RequestFields: []route.FieldEdit{{Name: "Content-Length", Value: "1"}}}, {RequestFields: []route.FieldEdit{{Name: "a b"}}},
		{ResponseFields: []route.FieldEdit{{Name: "X", Value: "a\r\nb"}}},
		{CORS: &route.CORS{Origins: []string{"https://a.*.com"}}}, {Auth: &route.ExternalAuth{URL: "ftp://x"}}, {Auth: &route.ExternalAuth{URL: "http://u:p@x"}},
		{Auth: &route.ExternalAuth{URL: "http://x", Method: "A B"}}, {Auth: &route.ExternalAuth{URL: "http://$host/"}}, {Auth: &route.ExternalAuth{URL: "http://$arg_x.y/"}}, {Balance: route.Balance{HashBy: "$what"}},
	} {
		r := someRule
		r.Policy = &p
		if _, err := s.Compile(&route.Host{}, &r); err == nil || !strings.Contains(err.Error(), "default/web") {
			t.Errorf("%+v: %v", p, err)
		}
	}
}

func TestHash(t *testing.T) {
	s := newSet(t, Config{})
	c := chainOf(t, s, route.Policy{Balance: route.Balance{HashBy: "$http_x_user$cookie_sid-$arg_k"}})
	run := func(a ask) uint64 { x := a.exchange(s); c.Request(x); return x.Hash }
	a := run(ask{path: "/?a=1&K=v&x", fields: []string{"X-User: u", "Cookie: x=1; sid=42"}})
	if b := run(ask{path: "/other?k=v", fields: []string{"Cookie: sid=42", "x-user: u"}}); a != b {
		t.Error("the same key, another hash")
	}
	if a == run(ask{path: "/?k=w", fields: []string{"X-User: u", "Cookie: sid=42"}}) {
		t.Error("another key, the same hash")
	}
}

func TestCustomErrors(t *testing.T) {
	s := newSet(t, Config{})
	c := chainOf(t, s, route.Policy{CustomErrors: []int{503, 404}})
	if !c.Intercepts(404) || !c.Intercepts(503) || c.Intercepts(500) {
		t.Error("wrong statuses")
	}
	x := ask{path: "/a?b", fields: []string{"Accept: text/html"}}.exchange(s)
	c.Request(x)
	var r http.Request
	c.ErrorRequest(x, 503, &r)
	var b bytes.Buffer
	for _, f := range r.Fields {
		if f.ID != http.XRequestID {
			fmt.Fprintf(&b, "%s=%s ", f.Name, f.Value)
		}
	}
	if got := b.String(); got != "X-Code=503 X-Format=text/html X-Original-URI=/a?b X-Namespace=default X-Ingress-Name=web X-Service-Port=80 X-Real-IP=192.0.2.7 X-Forwarded-For=192.0.2.7 " {
		t.Error(got)
	}
}

// TestExchangeIsUsedAgain: nothing of one client is left for the next.
func TestExchangeIsUsedAgain(t *testing.T) {
	s := newSet(t, Config{Trusted: prefixes("10.0.0.0/8")})
	c := chainOf(t, s, route.Policy{Basic: &route.BasicAuth{Users: map[string]string{"ann": "{PLAIN}x"}}})
	peer := ask{remote: "10.0.0.1:1"}.peer()
	x := &Exchange{}
	s.Begin(x, peer, ask{fields: []string{"X-Forwarded-For: 192.0.2.1, 192.0.2.9", authorization("ann", "x")}}.request(), time.Now())
	if a := c.Request(x); a != nil || x.Client.String() != "192.0.2.9" || string(x.User) != "ann" {
		t.Fatalf("%v %s %s", a, x.Client, x.User)
	}
	// The same Peer with another address behind it.
	peer.Remote = &net.TCPAddr{IP: net.IPv4(203, 0, 113, 1), Port: 5}
	s.Begin(x, peer, ask{fields: []string{"X-Forwarded-For: 192.0.2.1"}}.request(), time.Now())
	if a := c.Request(x); a == nil || a.Status != 401 || x.Client.String() != "203.0.113.1" || x.User != nil || string(x.Remote()) != "203.0.113.1" {
		t.Errorf("%v %s %s", a, x.Client, x.User)
	}
	s.Begin(x, &stream.Peer{}, ask{}.request(), time.Now())
	if string(x.Remote()) != "unknown" || x.Client.IsValid() {
		t.Errorf("without an address: %s", x.Remote())
	}
	s.Begin(x, ask{}.peer(), ask{path: "/" + strings.Repeat("x", 100000)}.request(), time.Now())
	chainOf(t, s, route.Policy{Rewrite: text("/y$1"), RequestFields: []route.FieldEdit{{Name: "X-U", Value: "$uri"}}}).Request(x)
	if s.Begin(x, ask{}.peer(), ask{}.request(), time.Now()); cap(x.buf) > mostKept {
		t.Errorf("a buffer of %d bytes is kept", cap(x.buf))
	}
}
