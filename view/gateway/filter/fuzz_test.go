package filter

import (
	"bytes"
	"net"
	"testing"
	"time"

	"github.com/fingerpost/fingerpost/view/gateway/route"
	"github.com/fingerpost/fingerpost/view/gateway/stream"
	"github.com/fingerpost/fingerpost/wire/http"
)

// FuzzChain: whatever a client sends, what is built of it has no line break,
// and a redirect stays on a host that the configuration or the client's Host
// names.
func FuzzChain(f *testing.F) {
	f.Add("shop.example.com", "/a?to=x", "1.2.3.4, 5.6.7.8", "id", "a=b; route=x", "https://a", "Basic YTpi", "v1")
	f.Add("a:1", "//evil.com", "[::1]:80", "", ";;=;", "null", "Basic", "//evil")
	f.Add("[::1]", "/%0d%0a", "for=x", "\r\n", "route=00000000000000000000000000000000", "\r\n", "basic  ", "\\evil\r\n")
	f.Add(":", "0", "0", "0", "0", "\x18", "0", "0")
	f.Add("", "/", ":1", "0", "0", "\x18", "0", "0")
	s, err := New(Config{Trusted: prefixes("10.0.0.0/8"), Trace: true, Forwarded: true, HSTS: "x"})
	if err != nil {
		f.Fatal(err)
	}
	policies := []route.Policy{
		{},
		{SSLRedirect: true},
		{AppRoot: "/x", Rewrite: text("/$1?q=$arg_to$cookie_a"), UpstreamHost: "$host", RequestFields: []route.FieldEdit{{Name: "X-A", Value: "$http_x_request_id$1$uri$args"}},
			ResponseFields: []route.FieldEdit{{Name: "X-B", Value: "$request_uri$http_origin$1"}}, CORS: &route.CORS{Origins: []string{"https://*.a", "*"}},
			Affinity: &route.Affinity{Cookie: "route"}, Balance: route.Balance{HashBy: "$cookie_a$arg_to"}, Limit: &route.Limit{RPS: 1000000, Connections: 10}},
		{Basic: &route.BasicAuth{Users: map[string]string{"a": "{PLAIN}b"}}},
		{Auth: &route.ExternalAuth{URL: "http://auth/$arg_to", SignIn: "/login", CacheKey: "$http_cookie"}},
	}
	var chains []*Chain
	for _, p := range policies {
		chains = append(chains, chainOf(f, s, p, func(_ *route.Host, r *route.Rule) { r.Canaries = []route.Canary{{Cookie: "a", Header: "Origin"}} }))
	}
	for _, url := range []string{"$1", "/$1", "https://example.com$1", "https://$1.example.com/", "$scheme://$host$1", "$arg_to", "https://example.com/x?y=$1"} {
		chains = append(chains, chainOf(f, s, route.Policy{}, func(_ *route.Host, r *route.Rule) { r.Redirect = &route.Redirect{URL: url} }))
	}
	f.Fuzz(func(t *testing.T, host, path, xff, id, cookies, origin, auth, captured string) {
		for _, remote := range []net.IP{{10, 0, 0, 1}, {192, 0, 2, 1}} {
			for _, c := range chains {
				r := &http.Request{Version: http.HTTP11, Method: []byte("OPTIONS"), Authority: []byte(host), Path: []byte(path)}
				r.Fields.Add(http.XForwardedFor, []byte(xff))
				r.Fields.Add(http.XForwardedHost, []byte(xff))
				r.Fields.Add(http.XForwardedPort, []byte(xff))
				r.Fields.Add(http.XRequestID, []byte(id))
				r.Fields.Add(http.Traceparent, []byte(id))
				r.Fields.Add(http.AccessControlRequestMethod, []byte("GET"))
				came := []http.Field{{ID: http.Cookie, Value: []byte(cookies)}, {ID: http.Origin, Value: []byte(origin)}, {ID: http.Authorization, Value: []byte(auth)}}
				r.Fields = append(r.Fields, came...)
				x := &Exchange{Fetch: func(k *Call) error {
					broken(t, k.Request.Fields)
					k.Status = 401
					return nil
				}}
				s.Begin(x, &stream.Peer{Remote: &net.TCPAddr{IP: remote, Port: 1}, Local: &net.TCPAddr{Port: 80}}, r, time.Unix(1e9, 0))
				x.Captures = [][]byte{nil, []byte(captured)}
				resp := http.Response{Status: 200}
				if a := c.Request(x); a != nil {
					broken(t, a.Fields)
					away(t, a.Fields.Get(http.Location), x)
					resp.Status, resp.Fields = a.Status, append(resp.Fields, a.Fields...)
				} else {
					broken(t, r.Fields)
				}
				x.Chose("endpoint", false)
				c.Response(x, &resp)
				broken(t, resp.Fields)
				x.Done()
			}
		}
	})
}

// broken looks for line breaks in what was built; what only passes through is
// the decoder's to refuse.
func broken(t *testing.T, fields http.Fields) {
	for _, f := range fields {
		switch f.ID {
		case http.Cookie, http.Origin, http.Authorization, http.AccessControlRequestMethod:
			continue
		}
		if bytes.Equal(f.Name, nameOriginalFor) {
			continue
		}
		if !clean(f.Value) {
			t.Fatalf("%s: %q", f.Name, f.Value)
		}
	}
}

func away(t *testing.T, location []byte, x *Exchange) {
	if location == nil {
		return
	}
	if bytes.HasPrefix(location, []byte("//")) || bytes.HasPrefix(location, []byte("/\\")) {
		t.Fatalf("redirect to %q", location)
	}
	if location[0] == '/' {
		return
	}
	_, rest, ok := bytes.Cut(location, []byte("://"))
	if !ok {
		t.Fatalf("redirect to %q", location)
	}
	if i := bytes.IndexAny(rest, "/?#"); i >= 0 {
		rest = rest[:i]
	}
	if string(rest) != "example.com" && !bytes.HasSuffix(rest, []byte(".example.com")) && !bytes.Equal(rest, x.host) && !bytes.Equal(rest, hostname(x.host)) && !bytes.Equal(rest, hostname(x.Authority)) {
		t.Fatalf("redirect to %q", location)
	}
}

func FuzzOrigin(f *testing.F) {
	f.Add("1.2.3.4, 10.1.1.1")
	f.Add("[::1]:80,,x")
	trusted := newRanges(prefixes("10.0.0.0/8"))
	f.Fuzz(func(t *testing.T, list string) {
		start, _ := parseAddr([]byte("10.0.0.1"))
		got, addr := origin(&trusted, []byte(list), []byte("10.0.0.1"), start)
		if !addr.IsValid() || !clean(got) {
			t.Fatalf("%q: %q %s", list, got, addr)
		}
		if again, ok := parseAddr(got); !ok || again != addr {
			t.Fatalf("%q: text %q is not %s", list, got, addr)
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"$scheme://$host$request_uri", "${host}x$1$", "$arg_a$cookie_b$http_c", "$$1"} {
		f.Add(s)
	}
	s, err := New(Config{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, tmpl string) {
		p, err := parse(tmpl, &someRule)
		if err != nil {
			return
		}
		x := ask{path: "/a?a=b", captures: []string{"", "c\n"}}.exchange(s)
		if !clean(x.text(p)) || !clean(x.place(p)) {
			t.Fatalf("%q: %q %q", tmpl, x.text(p), x.place(p))
		}
	})
}

func FuzzCheck(f *testing.F) {
	f.Add("$apr1$abcdefgh$h9FWgUz3n9YxylKLlR5SQ/", []byte("secret"))
	f.Add("$5$rounds=1000$x$y", []byte(""))
	f.Fuzz(func(t *testing.T, stored string, password []byte) {
		if len(stored) > 200 || len(password) > 200 || len(stored) > 1 && stored[:2] == "$2" || bytes.Contains([]byte(stored), []byte("rounds")) {
			return // slow by design
		}
		check(stored, password)
	})
}
