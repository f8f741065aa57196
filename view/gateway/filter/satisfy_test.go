package filter

import (
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/fingerpost/fingerpost/view/gateway/route"
	"github.com/fingerpost/fingerpost/view/gateway/stream"
	"github.com/fingerpost/fingerpost/wire/http"
)

// TestSatisfyAny holds what is decided against what nginx does: the first that
// lets the client in is enough; 401 goes before 403; an error of the
// authentication server is one.
func TestSatisfyAny(t *testing.T) {
	s := newSet(t, Config{})
	const in, out = "192.0.2.0/24", "198.51.100.0/24" // of the client, and not
	basic := &route.BasicAuth{Realm: "r", Users: map[string]string{"ann": "{PLAIN}right"}}
	none := &route.BasicAuth{Problem: "no Secret"}
	auth := &route.ExternalAuth{URL: "http://auth.example.com/"}
	signIn := &route.ExternalAuth{URL: "http://auth.example.com/", SignIn: "https://login.example.com/"}
	for _, c := range []struct {
		name        string
		allow, deny string
		basic       *route.BasicAuth
		password    string
		auth        *route.ExternalAuth
		verdict     int // of the authentication server; 0: it is not there
		want        int
		asked       int // how often that was
	}{
		{name: "nobody asks", want: 0},
		{name: "address", allow: in, basic: basic, want: 0},
		{name: "password", allow: out, basic: basic, password: "right", want: 0},
		{name: "neither", allow: out, basic: basic, want: 401},
		{name: "wrong password", allow: out, basic: basic, password: "wrong", want: 401},
		{name: "address alone", allow: out, want: 403},
		{name: "not denied is not let in", deny: out, basic: basic, want: 401},
		{name: "not denied, nobody else asks", deny: out, want: 0},
		{name: "denied, with the password", deny: in, basic: basic, password: "right", want: 0},
		{name: "denied and allowed", allow: in, deny: in, basic: basic, want: 401},
		{name: "no Secret", allow: in, basic: none, want: 503},
		{name: "address, nobody is asked", allow: in, auth: auth, verdict: 403, want: 0},
		{name: "server says yes", allow: out, basic: basic, auth: auth, verdict: 200, want: 0, asked: 1},
		{name: "password, nobody is asked", basic: basic, password: "right", auth: auth, verdict: 403, want: 0},
		{name: "server says no", allow: out, auth: auth, verdict: 403, want: 403, asked: 1},
		{name: "server says no, a password would help", basic: basic, auth: auth, verdict: 403, want: 401, asked: 1},
		{name: "server says who are you", allow: out, auth: auth, verdict: 401, want: 401, asked: 1},
		{name: "server is broken", allow: out, basic: basic, auth: auth, verdict: 500, want: 500, asked: 1},
		{name: "server is away", allow: out, auth: auth, want: 500, asked: 1},
		{name: "sign in", allow: out, auth: signIn, verdict: 401, want: 302, asked: 1},
	} {
		p := route.Policy{SatisfyAny: true, Basic: c.basic, Auth: c.auth}
		if c.allow != "" {
			p.Allow = prefixes(c.allow)
		}
		if c.deny != "" {
			p.Deny = prefixes(c.deny)
		}
		a := ask{}
		if c.password != "" {
			a.fields = []string{authorization("ann", c.password)}
		}
		x := a.exchange(s)
		asked := 0
		x.Fetch = func(call *Call) error {
			if asked++; c.verdict == 0 {
				return errors.New("away")
			}
			call.Status = c.verdict
			return nil
		}
		chain := chainOf(t, s, p)
		if got := status(chain, x); got != c.want || asked != c.asked {
			t.Errorf("%s: %d after %d questions, want %d after %d", c.name, got, asked, c.want, c.asked)
		}
		if c.want == 0 && x.answer.By != "" {
			t.Errorf("%s: let in, and marked as answered by %s", c.name, x.answer.By)
		}
		if c.want == 401 && c.basic != nil && x.answer.Fields.Get(http.WWWAuthenticate) == nil {
			t.Errorf("%s: 401 without a challenge", c.name)
		}
	}
	// Without it all must agree.
	p := route.Policy{Allow: prefixes(in), Basic: basic}
	if got := status(chainOf(t, s, p), ask{}.exchange(s)); got != 401 {
		t.Errorf("all: %d", got)
	}
}

// TestMatchCN: the subject must match, whether a certificate is required or not;
// one that nobody signed never does.
func TestMatchCN(t *testing.T) {
	s := newSet(t, Config{})
	web := &stream.Identity{Verified: true, Subject: "CN=web,O=Shop"}
	for _, c := range []struct {
		name     string
		required bool
		plain    bool
		sni      string
		client   *stream.Identity
		want     int
	}{
		{"right", true, false, "shop.example.com", web, 0},
		{"right, optional", false, false, "shop.example.com", web, 0},
		{"another", true, false, "shop.example.com", &stream.Identity{Verified: true, Subject: "CN=db,O=Shop"}, 403},
		{"another, optional", false, false, "shop.example.com", &stream.Identity{Verified: true, Subject: "CN=db,O=Shop"}, 403},
		{"another case", true, false, "shop.example.com", &stream.Identity{Verified: true, Subject: "CN=WEB,O=Shop"}, 403},
		{"none", true, false, "shop.example.com", nil, 400},
		{"none, optional", false, false, "shop.example.com", nil, 403},
		{"unsigned", true, false, "shop.example.com", &stream.Identity{Subject: web.Subject}, 400},
		{"unsigned, optional", false, false, "shop.example.com", &stream.Identity{Subject: web.Subject}, 403},
		{"of another host", false, false, "other.example.com", web, 421},
		{"http", false, true, "", nil, 308},
	} {
		chain := chainOf(t, s, route.Policy{}, func(h *route.Host, _ *route.Rule) {
			h.ClientCert = &route.ClientCert{Required: c.required, Match: regexp.MustCompile("CN=(web|shop),O=Shop")}
		})
		x := ask{tls: !c.plain, sni: c.sni, client: c.client}.exchange(s)
		if got := status(chain, x); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

// TestReplace: what endpoints say about places becomes what clients can use.
func TestReplace(t *testing.T) {
	s := newSet(t, Config{})
	re := regexp.MustCompile
	for _, c := range []struct {
		name        string
		p           route.Policy
		field, want string
	}{
		{"prefix", route.Policy{Location: &route.Replacement{From: "http://in:8080/", To: "https://$host/app/"}}, "Location: http://in:8080/a?b=c#d", "https://shop.example.com/app/a?b=c#d"},
		{"another place", route.Policy{Location: &route.Replacement{From: "http://in:8080/", To: "/x/"}}, "Location: http://other/a", "http://other/a"},
		{"relative", route.Policy{Location: &route.Replacement{From: "/", To: "/app/"}}, "Location: /a", "/app/a"},
		{"expression", route.Policy{Location: &route.Replacement{Regex: re("(?i)^http://[^/]+/(.*)$"), To: "/$1"}}, "Location: HTTP://IN/a/b?c", "/a/b?c"},
		{"no way to another host", route.Policy{Location: &route.Replacement{Regex: re("^/(.*)$"), To: "$1"}}, "Location: ///evil.example.com", "/evil.example.com"},
		{"refresh", route.Policy{Location: &route.Replacement{From: "http://in/", To: "/"}}, "Refresh: 5; url=http://in/a", "5; url=/a"},
		{"refresh without place", route.Policy{Location: &route.Replacement{From: "http://in/", To: "/"}}, "Refresh: 5", "5"},
		{"domain", route.Policy{CookieDomain: &route.Replacement{From: "In.example.com", To: ".example.com"}}, "Set-Cookie: a=b; Domain=.in.example.com; Path=/", "a=b; Domain=example.com; Path=/"},
		{"a longer domain", route.Policy{CookieDomain: &route.Replacement{From: "in", To: "out"}}, "Set-Cookie: a=b; Domain=in.example.com", "a=b; Domain=in.example.com"},
		{"domain expression", route.Policy{CookieDomain: &route.Replacement{Regex: re("(?i)^in(.*)$"), To: "out$1"}}, "Set-Cookie: a=b;domain=in.example.com", "a=b;domain=out.example.com"},
		{"path", route.Policy{CookiePath: &route.Replacement{From: "/two/", To: "/"}}, "Set-Cookie: domain=path=/two/; path=/two/x; HttpOnly", "domain=path=/two/; path=/x; HttpOnly"},
		{"path expression", route.Policy{CookiePath: &route.Replacement{Regex: re("^/user/([^/]+)"), To: "/u/$1"}}, "Set-Cookie: a=b; Path=/user/ann/x", "a=b; Path=/u/ann"},
		{"no new attributes", route.Policy{CookiePath: &route.Replacement{From: "/", To: "/$arg_p/"}}, "Set-Cookie: a=b; Path=/", "a=b; Path=/xDomain=evil/"},
		{"nothing to do", route.Policy{CookiePath: &route.Replacement{From: "/x", To: "/y"}}, "Set-Cookie: a=b;;=;", "a=b;;=;"},
	} {
		chain := chainOf(t, s, c.p)
		x := ask{path: "/?p=x;Domain=evil"}.exchange(s)
		if a := chain.Request(x); a != nil {
			t.Fatalf("%s: %+v", c.name, a)
		}
		name, value, _ := strings.Cut(c.field, ": ")
		r := http.Response{Status: 302}
		r.Fields.AddNamed([]byte(name), []byte(value))
		chain.Response(x, &r)
		if got := string(r.Fields[0].Value); got != c.want || len(r.Fields) != 1 {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	// The gateway's own answers name the right place already.
	chain := chainOf(t, s, route.Policy{ForceSSLRedirect: true, Location: &route.Replacement{From: "https://", To: "ftp://"}})
	x := ask{}.exchange(s)
	a := chain.Request(x)
	r := http.Response{Status: a.Status, Fields: a.Fields}
	chain.Response(x, &r)
	if got := string(r.Fields.Get(http.Location)); !strings.HasPrefix(got, "https://") {
		t.Errorf("own redirect: %s", got)
	}
}

func FuzzReplace(f *testing.F) {
	f.Add("a=b; Path=/x; Domain=in", "http://in/a")
	f.Add(";;;=", "\x00")
	s, err := New(Config{})
	if err != nil {
		f.Fatal(err)
	}
	chain := chainOf(f, s, route.Policy{
		Location:     &route.Replacement{Regex: regexp.MustCompile("^(.*)in(.*)$"), To: "https://$host/$2"},
		CookieDomain: &route.Replacement{Regex: regexp.MustCompile("(.*)in(.*)"), To: "$1out$2"},
		CookiePath:   &route.Replacement{From: "/", To: "/app/"},
	})
	f.Fuzz(func(t *testing.T, cookie, location string) {
		if !clean([]byte(cookie)) || !clean([]byte(location)) {
			return // no codec gives such values
		}
		x := ask{}.exchange(s)
		chain.Request(x)
		r := http.Response{Status: 302}
		r.Fields.Add(http.SetCookie, []byte(cookie))
		r.Fields.Add(http.Location, []byte(location))
		chain.Response(x, &r)
		for _, v := range r.Fields {
			if !clean(v.Value) {
				t.Errorf("%q", v.Value)
			}
		}
		if v := string(r.Fields[1].Value); v != location && !strings.HasPrefix(v, "https://shop.example.com/") {
			t.Errorf("%q goes to %q", location, v)
		}
		if got := string(r.Fields[0].Value); strings.Count(got, ";") != strings.Count(cookie, ";") {
			t.Errorf("%q has other attributes: %q", cookie, got)
		}
	})
}
