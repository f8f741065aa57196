package filter

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/fingerpost/fingerpost/view/gateway/route"
	"github.com/fingerpost/fingerpost/view/gateway/stream"
	"github.com/fingerpost/fingerpost/wire/http"
)

func status(c *Chain, x *Exchange) int {
	if a := c.Request(x); a != nil {
		return a.Status
	}
	return 0
}

func TestAddresses(t *testing.T) {
	s := newSet(t, Config{Trusted: prefixes("10.0.0.0/8")})
	for _, c := range []struct {
		allow, deny []netip.Prefix
		ask         ask
		want        int
	}{
		{prefixes("192.0.2.0/24"), nil, ask{}, 0},
		{prefixes("192.0.3.0/24"), nil, ask{}, 403},
		{nil, prefixes("192.0.2.7/32"), ask{}, 403},
		{prefixes("0.0.0.0/0"), prefixes("192.0.2.0/25"), ask{}, 403},
		{prefixes("::ffff:192.0.2.0/120"), nil, ask{remote: "[::ffff:192.0.2.9]:1"}, 0},
		{prefixes("192.0.2.0/24"), nil, ask{remote: "[2001:db8::1]:1"}, 403},
		{prefixes("192.0.2.0/24"), nil, ask{remote: "10.0.0.1:1", fields: []string{"X-Forwarded-For: 192.0.2.1"}}, 0},
		{prefixes("192.0.2.0/24"), nil, ask{remote: "11.0.0.1:1", fields: []string{"X-Forwarded-For: 192.0.2.1"}}, 403},
	} {
		if got := status(chainOf(t, s, route.Policy{Allow: c.allow, Deny: c.deny}), c.ask.exchange(s)); got != c.want {
			t.Errorf("%v %v %+v: %d, want %d", c.allow, c.deny, c.ask, got, c.want)
		}
	}
}

// TestRanges holds the search against looking at each prefix.
func TestRanges(t *testing.T) {
	var list []netip.Prefix
	for i := range 2000 {
		a := netip.AddrFrom4([4]byte{byte(i * 7), byte(i * 13), byte(i * 29), byte(i)})
		list = append(list, netip.PrefixFrom(a, 8+i%25))
		list = append(list, netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, byte(i), 2: byte(i * 3), 9: byte(i)}), 12+i%117))
	}
	list = list[len(list)-700:]
	r := newRanges(list)
	for i := range 20000 {
		a := netip.AddrFrom4([4]byte{byte(i * 11), byte(i >> 3), byte(i * 5), byte(i)})
		if i%2 == 0 {
			a = netip.AddrFrom16([16]byte{0x20, byte(i), 2: byte(i >> 4), 9: byte(i)})
		}
		want := false
		for _, p := range list {
			want = want || p.Contains(a)
		}
		if got := r.has(a); got != want {
			t.Fatalf("%s: %v, want %v", a, got, want)
		}
	}
}

// The hashes are what openssl passwd makes.
func TestCheck(t *testing.T) {
	bcrypted, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ hash, password string }{
		{"$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5", "Hello world!"},
		{"$5$rounds=10000$saltstringsaltst$3xv.VbSHBb41AL9AvLeujZkZRBAwqFMz2.opqey6IcA", "Hello world!"},
		{"$6$rounds=1400$anotherlongsalts$POfYwTEok97VWcjxIiSOjiykti.o/pQs.wPvMxQ6Fm7I6IoYN3CmLs66x9t0oSwbtEW7o7UmJEiDwGqd8p4ur1", "a very much longer text to encrypt.  This one even stretches over morethan one line."},
		{"$apr1$abcdefgh$0d5JF0OapBC2qzHVrtVYd.", "a very much longer text to encrypt."},
		{"$apr1$abcdefgh$h9FWgUz3n9YxylKLlR5SQ/", "secret"},
		{"$1$abc$iCQ2D3nhptRYi27fDYv2s1", "secret"},
		{string(bcrypted), "secret"},
		{"$2y" + string(bcrypted[3:]), "secret"},
		{"$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1", "Hello world!"},
		{"{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", "secret"},
		{"{PLAIN}secret", "secret"},
		{"secret", "secret"},
	} {
		if !check(c.hash, []byte(c.password)) {
			t.Errorf("%s: the right password is refused", c.hash)
		}
		if check(c.hash, []byte(c.password+"x")) || check(c.hash, nil) {
			t.Errorf("%s: a wrong password is let in", c.hash)
		}
	}
	for _, broken := range []string{"", "$2y$05$short", "$apr1$", "$5$", "$6$rounds=x$a$b", "$6$rounds=999999999$a$b", "{SHA}??", "{SSHA}AAAA"} {
		if check(broken, []byte("x")) || check(broken, nil) {
			t.Errorf("%q lets somebody in", broken)
		}
	}
}

func authorization(user, password string) string {
	return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

func TestBasic(t *testing.T) {
	s := newSet(t, Config{Cached: 16})
	c := chainOf(t, s, route.Policy{Basic: &route.BasicAuth{Realm: `say "hi"`, Users: map[string]string{
		"ann": "$2y$04$Zmyx8xZ8ILH/gKMlHmY9P.dZ6yBbKnPNsZkjdLTMwOSBMMSRyNcU2", "bob": "{PLAIN}a:b"}}})
	for range 3 { // the second time from memory
		for _, a := range []struct {
			field string
			want  int
		}{
			{authorization("bob", "a:b"), 0}, {authorization("bob", "a"), 401}, {authorization("eve", "a:b"), 401}, {authorization("", ""), 401},
			{"Authorization: basic   " + base64.RawStdEncoding.EncodeToString([]byte("bob:a:b")), 0},
			{"Authorization: Bearer x", 401}, {"Authorization: Basic ???", 401}, {"X: y", 401},
			{authorization("bob\n", "a:b"), 401}, {authorization("bob", strings.Repeat("x", 5000)), 401},
		} {
			x := ask{fields: []string{a.field}}.exchange(s)
			if got := status(c, x); got != a.want {
				t.Errorf("%q: %d, want %d", a.field, got, a.want)
			} else if got == 0 && string(x.User) != "bob" {
				t.Errorf("user %q", x.User)
			}
		}
	}
	x := ask{}.exchange(s)
	if a := c.Request(x); string(a.Fields.Get(http.WWWAuthenticate)) != `Basic realm="say \"hi\"", charset="UTF-8"` {
		t.Errorf("challenge %q", a.Fields)
	}
	for i := range 200 { // memory stays bounded
		status(c, ask{fields: []string{authorization("bob", fmt.Sprint(i))}}.exchange(s))
	}
	n := 0
	for i := range s.basic.shards {
		n += len(s.basic.shards[i].m)
	}
	if n > 16 {
		t.Errorf("%d remembered", n)
	}
	if got := status(chainOf(t, s, route.Policy{Basic: &route.BasicAuth{Problem: "no secret"}}), ask{fields: []string{authorization("a", "")}}.exchange(s)); got != 503 {
		t.Errorf("without its secret: %d", got)
	}
}

func TestLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSet(t, Config{})
		c := chainOf(t, s, route.Policy{Limit: &route.Limit{RPS: 2, Burst: 3, Except: prefixes("198.51.100.0/24")}})
		ok := func(remote string) bool {
			x := ask{remote: remote}.exchange(s)
			x.Now = time.Now()
			return status(c, x) == 0
		}
		count := func(n int, remote string) (passed int) {
			for range n {
				if ok(remote) {
					passed++
				}
			}
			return passed
		}
		if got := count(50, "192.0.2.1:1"); got != 7 { // the first, and a burst of 2 × 3
			t.Errorf("%d pass at once, want 7", got)
		}
		if got := count(50, "192.0.2.2:1"); got != 7 {
			t.Errorf("another client: %d pass, want 7", got)
		}
		if got := count(50, "198.51.100.2:1"); got != 50 {
			t.Errorf("excepted: %d pass, want 50", got)
		}
		time.Sleep(time.Second)
		if got := count(50, "192.0.2.1:1"); got != 2 {
			t.Errorf("%d pass after a second, want 2", got)
		}
		time.Sleep(time.Hour)
		if got := count(50, "192.0.2.1:1"); got != 6 {
			t.Errorf("%d pass after an hour, want 6", got)
		}
		if got := count(20, "[2001:db8::1]:1") + count(20, "[2001:db8::2]:1"); got != 7 {
			t.Errorf("two addresses of one IPv6 network: %d pass, want 7", got)
		}
		// A rule that is compiled anew does not forget.
		c = chainOf(t, s, route.Policy{Limit: &route.Limit{RPS: 2, Burst: 3}})
		if got := count(20, "192.0.2.1:1"); got != 0 {
			t.Errorf("%d pass after a change of the rule", got)
		}
	})
}

func TestConnectionLimit(t *testing.T) {
	s := newSet(t, Config{Slots: 8})
	c := chainOf(t, s, route.Policy{Limit: &route.Limit{Connections: 2, Status: 429}})
	a, b, third := ask{}.exchange(s), ask{}.exchange(s), ask{}.exchange(s)
	if status(c, a) != 0 || status(c, b) != 0 || status(c, third) != 429 {
		t.Fatal("wrong count")
	}
	a.Done()
	a.Done()
	third = ask{}.exchange(s)
	if status(c, third) != 0 || status(c, ask{}.exchange(s)) != 429 {
		t.Error("Done did not give back exactly one")
	}
	// More clients than room: nobody is locked out.
	for i := range 100 {
		x := ask{remote: fmt.Sprintf("198.51.100.%d:1", i)}.exchange(s)
		if status(c, x) != 0 {
			t.Fatal("a new client was refused")
		}
	}
}

func TestCORS(t *testing.T) {
	s := newSet(t, Config{})
	some := route.CORS{Origins: []string{"https://a.example.com", "https://*.example.org"}, Methods: "GET, PUT", Headers: "X-A", Expose: "X-E", Credentials: true, MaxAge: 60}
	every := route.CORS{Origins: []string{"*"}, Methods: "GET", Credentials: true}
	pre := func(origin string) ask {
		return ask{method: "OPTIONS", fields: []string{"Origin: " + origin, "Access-Control-Request-Method: PUT"}}
	}
	full := func(origin string) string {
		return "answer 204 by cors\n< Vary: Origin\n< Access-Control-Allow-Origin: " + origin + "\n< Access-Control-Allow-Credentials: true\n< Access-Control-Allow-Methods: GET, PUT\n< Access-Control-Allow-Headers: X-A\n< Access-Control-Expose-Headers: X-E\n< Access-Control-Max-Age: 60\n"
	}
	for _, c := range []struct {
		cors route.CORS
		ask  ask
		want string
	}{
		{some, pre("https://a.example.com"), full("https://a.example.com")},
		{some, pre("https://x.y.example.org"), full("https://x.y.example.org")},
		{some, pre("https://example.org"), "OPTIONS"},
		{some, pre("https://evil.com/.example.org"), "OPTIONS"},
		{some, pre("http://a.example.com"), "OPTIONS"},
		{some, ask{method: "OPTIONS"}, "OPTIONS"},
		{every, pre("https://any"), "answer 204 by cors\n< Access-Control-Allow-Origin: *\n< Access-Control-Allow-Methods: GET\n"},
	} {
		if got := show(chainOf(t, s, route.Policy{CORS: &c.cors}), c.ask.exchange(s)); !strings.HasPrefix(got, c.want) || strings.HasPrefix(c.want, "answer") && got != c.want {
			t.Errorf("%+v: got\n%s\nwant\n%s", c.ask, got, c.want)
		}
	}
	ch := chainOf(t, s, route.Policy{CORS: &some})
	x := ask{fields: []string{"Origin: https://a.example.com"}}.exchange(s)
	ch.Request(x)
	r := http.Response{Status: 200}
	r.Fields.AddNamed([]byte("Access-Control-Allow-Origin"), []byte("*"))
	r.Fields.AddNamed([]byte("Vary"), []byte("Accept, origin"))
	ch.Response(x, &r)
	if got := string(r.Fields[0].Value); got != "Accept, origin" || string(r.Fields.Get(http.AccessControlAllowOrigin)) != "https://a.example.com" || len(r.Fields) != 6 {
		t.Errorf("response %q", r.Fields)
	}
}

func TestCanary(t *testing.T) {
	s := newSet(t, Config{})
	with := func(k route.Canary) *Chain {
		return chainOf(t, s, route.Policy{}, func(_ *route.Host, r *route.Rule) { r.Canaries = []route.Canary{k} })
	}
	header := route.Canary{Header: "X-Canary", Cookie: "canary", Weight: 100}
	value := route.Canary{Header: "X-Canary", HeaderValue: "de"}
	pattern := route.Canary{Header: "X-Canary", HeaderPattern: regexp.MustCompile("^v[0-9]+$"), Cookie: "canary"}
	for _, c := range []struct {
		canary route.Canary
		fields []string
		want   int
	}{
		{header, nil, 0}, {header, []string{"X-Canary: never"}, -1}, {header, []string{"X-Canary: maybe", "Cookie: canary=never"}, -1},
		{route.Canary{Header: "X-Canary"}, []string{"x-canary: always"}, 0}, {route.Canary{Cookie: "canary"}, []string{"Cookie: canary=always"}, 0},
		{value, []string{"X-Canary: de"}, 0}, {value, []string{"X-Canary: always"}, -1}, {value, nil, -1},
		{pattern, []string{"X-Canary: v12"}, 0}, {pattern, []string{"X-Canary: x", "Cookie: a; canary=always"}, 0}, {pattern, []string{"X-Canary: x"}, -1},
	} {
		x := ask{fields: c.fields}.exchange(s)
		if with(c.canary).Request(x); x.Canary != c.want {
			t.Errorf("%+v with %q: %d, want %d", c.canary, c.fields, x.Canary, c.want)
		}
	}
	ch, n := with(route.Canary{Weight: 30, Total: 100}), 0
	for range 20000 {
		x := ask{}.exchange(s)
		if ch.Request(x); x.Canary == 0 {
			n++
		}
	}
	if n < 5600 || n > 6400 {
		t.Errorf("%d of 20000 for a weight of 30", n)
	}
}

func TestAffinity(t *testing.T) {
	s := newSet(t, Config{Key: []byte("0123456789abcdef")})
	p := route.Policy{Affinity: &route.Affinity{Cookie: "route", SameSite: "Lax", MaxAge: time.Hour, Expires: time.Hour, Domain: "example.com; Secure"}}
	canaries := func(weight uint32) func(*route.Host, *route.Rule) {
		return func(_ *route.Host, r *route.Rule) {
			r.Canaries = []route.Canary{{Origin: route.Origin{Kind: "Ingress", Namespace: "default", Name: "next"}, Weight: weight}}
		}
	}
	visit := func(c *Chain, cookie, endpoint string, failed bool) (x *Exchange, set string) {
		a := ask{tls: true}
		if cookie != "" {
			a.fields = []string{"Cookie: x=y; route=" + cookie}
		}
		x = a.exchange(s)
		if got := c.Request(x); got != nil {
			t.Fatalf("answer %d", got.Status)
		}
		x.Chose(endpoint, failed)
		r := http.Response{Status: 200}
		c.Response(x, &r)
		return x, string(r.Fields.Get(http.SetCookie))
	}
	none := chainOf(t, s, p, canaries(0))
	_, set := visit(none, "", "1y2p0ij32e8e7", false)
	m := regexp.MustCompile(`^route=([0-9a-f]{32}); Expires=Tue, 14 Nov 2023 23:13:20 GMT; Path=/; Domain=example.comSecure; Max-Age=3600; HttpOnly; SameSite=Lax; Secure$`).FindStringSubmatch(set)
	if m == nil {
		t.Fatalf("cookie %q", set)
	}
	x, set := visit(none, m[1], "1y2p0ij32e8e7", false)
	if x.Sticky != "1y2p0ij32e8e7" || set != "" || x.Canary != -1 {
		t.Errorf("the second time: sticky %q, cookie %q, canary %d", x.Sticky, set, x.Canary)
	}
	// Who was with the old version stays there, though all others go to the new.
	all := chainOf(t, s, p, canaries(100))
	if x, _ := visit(all, m[1], "1y2p0ij32e8e7", false); x.Canary != -1 {
		t.Error("moved to the canary")
	}
	x, set = visit(all, "", "abc", false)
	if x.Canary != 0 || set == "" {
		t.Fatal("not at the canary")
	}
	if x, _ := visit(none, set[6:38], "abc", false); x.Canary != 0 || x.Sticky != "abc" {
		t.Errorf("canary %d, sticky %q", x.Canary, x.Sticky)
	}
	// One that failed: the client comes back to it unless it should not.
	if _, set := visit(none, m[1], "other", true); set != "" {
		t.Errorf("cookie %q after a failure", set)
	}
	p.Affinity.OnFailure = true
	if _, set := visit(chainOf(t, s, p), m[1], "other", true); set == "" {
		t.Error("no new cookie after a failure")
	}
	for _, forged := range []string{"1y2p0ij32e8e7", strings.Repeat("0", 32), strings.Repeat("z", 32), m[1][:31] + "g"} {
		if x, _ := visit(none, forged, "e", false); x.Sticky != "" {
			t.Errorf("%q was taken for %q", forged, x.Sticky)
		}
	}
}

func TestClientCert(t *testing.T) {
	s := newSet(t, Config{})
	with := func(k route.ClientCert) *Chain {
		return chainOf(t, s, route.Policy{}, func(h *route.Host, _ *route.Rule) { h.ClientCert = &k })
	}
	good := &stream.Identity{Verified: true, Subject: "CN=ann\r\nX: y", PEM: "pem"}
	bad := &stream.Identity{Problem: "expired", Subject: "CN=eve"}
	for _, c := range []struct {
		cert route.ClientCert
		ask  ask
		want string
	}{
		{route.ClientCert{Required: true}, ask{tls: true, sni: "shop.example.com"}, "answer 400"},
		{route.ClientCert{Required: true}, ask{tls: true, sni: "shop.example.com", client: bad}, "answer 400"},
		{route.ClientCert{Required: true}, ask{tls: true, sni: "other.example.com", client: good}, "answer 421"},
		{route.ClientCert{Required: true}, ask{}, "answer 308"},
		{route.ClientCert{Required: true, ErrorURL: "https://e/"}, ask{tls: true, sni: "shop.example.com"}, "answer 302 by client-certificate\n< Location: https://e/\n"},
		{route.ClientCert{Required: true, Pass: true}, ask{tls: true, sni: "shop.example.com", client: good}, "ssl-client-verify: SUCCESS\nssl-client-subject-dn: CN=ann  X: y\nssl-client-cert: pem\n"},
		{route.ClientCert{}, ask{tls: true, sni: "shop.example.com", client: bad, fields: []string{"ssl-client-cert: x"}}, "ssl-client-verify: FAILED:expired\nssl-client-subject-dn: CN=eve\n"},
		{route.ClientCert{}, ask{tls: true, sni: "other", client: good}, "X-Scheme: https\nssl-client-verify: NONE\n"},
	} {
		if got := show(with(c.cert), c.ask.exchange(s)); !strings.HasPrefix(got, c.want) && !strings.HasSuffix(got, c.want) {
			t.Errorf("%+v %+v:\n%s\nwant\n%s", c.cert, c.ask, got, c.want)
		}
	}
}

func TestExternalAuth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSet(t, Config{})
		var seen string
		calls, reply, replied := 0, 200, http.Fields(nil)
		run := func(c *Chain, a ask) (string, *Exchange) {
			x := a.exchange(s)
			x.Now = time.Now()
			x.Fetch = func(k *Call) error {
				calls++
				seen = fmt.Sprintf("%v %s %s %s", k.TLS, k.Host, k.Request.Method, k.Request.Path)
				for _, f := range k.Request.Fields {
					seen += fmt.Sprintf("|%s: %s", f.Name, f.Value)
				}
				k.Status, k.Fields = reply, append(k.Fields, replied...)
				if reply == 0 {
					return errors.New("nobody there")
				}
				return nil
			}
			return show(c, x), x
		}
		c := chainOf(t, s, route.Policy{Auth: &route.ExternalAuth{URL: "https://auth.example.com/check?u=$request_method", SignIn: "https://auth.example.com/start", ResponseFields: []string{"X-User", "Authorization"}}})
		replied.AddNamed([]byte("x-user"), []byte("ann"))
		replied.AddNamed([]byte("Set-Cookie"), []byte("s=1"))
		a := ask{path: "/a b?c", fields: []string{"X-User: root", "Cookie: k", "X-Original-URL: evil"}}
		got, x := run(c, a)
		if !strings.Contains(got, "X-User: ann\n") || strings.Contains(got, "root") {
			t.Errorf("passed on:\n%s", got)
		}
		for _, want := range []string{"true auth.example.com GET /check?u=GET|", "|X-Original-URL: http://shop.example.com/a%20b?c|", "|X-Original-Method: GET|", "|X-Auth-Request-Redirect: /a%20b?c", "|Cookie: k|", "|X-Real-IP: 192.0.2.7|", "|X-Sent-From: nginx-ingress-controller|"} {
			if !strings.Contains(seen, want) {
				t.Errorf("no %q in the call %s", want, seen)
			}
		}
		if strings.Contains(seen, "evil") {
			t.Errorf("the call %s", seen)
		}
		r := http.Response{Status: 200}
		if c.Response(x, &r); string(r.Fields.Get(http.SetCookie)) != "s=1" {
			t.Errorf("response %q", r.Fields)
		}
		for _, k := range []struct {
			status int
			want   string
		}{
			{401, "answer 302 by auth\n< Location: https://auth.example.com/start?rd=http://shop.example.com%2Fa%20b%3Fc\n< Set-Cookie: s=1\n"},
			{403, "answer 403 by auth\n"}, {500, "answer 500 by auth\n"}, {302, "answer 500 by auth\n"}, {0, "answer 500 by auth\n"},
		} {
			reply = k.status
			if got, _ := run(c, a); !strings.HasPrefix(got, k.want) {
				t.Errorf("%d: %s", k.status, got)
			}
		}

		cached := chainOf(t, s, route.Policy{Auth: &route.ExternalAuth{URL: "http://auth", CacheKey: "$http_authorization", CacheDuration: time.Minute, ResponseFields: []string{"X-User"}}})
		reply, replied, calls = 200, replied[:1], 0
		for range 3 {
			if got, _ := run(cached, ask{fields: []string{"Authorization: t"}}); !strings.Contains(got, "X-User: ann\n") {
				t.Error(got)
			}
		}
		if run(cached, ask{fields: []string{"Authorization: other"}}); calls != 2 {
			t.Errorf("%d calls, want 2", calls)
		}
		time.Sleep(time.Minute)
		if run(cached, ask{fields: []string{"Authorization: t"}}); calls != 3 {
			t.Errorf("%d calls after the time is over, want 3", calls)
		}
	})
}
