//go:build linux

package e2e

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// annotationWorld is a dev with what Ingresses of ingress-nginx lead to.
type annotationWorld struct {
	*system
	*doorway
	ns string
}

// TestGatewayAnnotations: the annotations of ingress-nginx, as clients see them.
func TestGatewayAnnotations(t *testing.T) {
	t.Parallel()
	const ns = "old"
	sys := dev(t)
	sys.makeNamespace(t, ns)
	w := &annotationWorld{sys, sys.doorway(), ns}
	s := sys.site
	a, b := listenEndpoint(t, s, 10, 1, 9000, "a", nil, nil), listenEndpoint(t, s, 10, 2, 9000, "b", nil, nil)
	next := listenEndpoint(t, s, 10, 3, 9000, "next", nil, nil)
	spare := listenEndpoint(t, s, 10, 4, 9000, "spare", nil, spareHandler())
	auth := listenEndpoint(t, s, 10, 5, 9000, "auth", nil, authHandler())
	cert, key := keyPair(t, "inside.example.com")
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	secure := listenEndpoint(t, s, 10, 6, 9443, "secure", &tls.Config{Certificates: []tls.Certificate{pair}}, nil)
	outside, outsideKey := keyPair(t, "tls.example.com", "*.tls.example.com")
	sys.must(t, "create", "secret", "tls", "tls", "-n", ns, "--cert", outside, "--key", outsideKey)
	sys.must(t, "create", "secret", "generic", "inside-ca", "-n", ns, "--from-file=ca.crt="+cert)
	sys.must(t, "create", "secret", "generic", "other-ca", "-n", ns, "--from-file=ca.crt="+outside)
	sys.apply(t, ns, behind(t, "echo", a, b)+behind(t, "next", next)+behind(t, "spare", spare)+behind(t, "auth", auth)+behind(t, "secure", secure)+behind(t, "nobody"))
	for name, try := range map[string]func(*testing.T, *annotationWorld){
		"path": tryPath, "redirect": tryRedirect, "www": tryWWW, "basic": tryBasic, "auth url": tryAuthURL, "ranges": tryRanges,
		"cors": tryCORS, "limit": tryLimit, "affinity": tryAffinity, "canary": tryCanary, "body size": tryBodySize, "backend tls": tryBackendTLS,
		"fields": tryFields, "alias": tryAlias, "default backend": tryDefaultBackend, "client certificate": tryClientCertificate,
		"passthrough": tryPassthrough, "next upstream": tryNextUpstream, "service upstream": tryServiceUpstream, "balance": tryBalance, "grpc": tryGRPC,
		"satisfy": trySatisfy, "replace": tryReplace,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			try(t, w)
		})
	}
}

// rules applies Ingresses.
func (w *annotationWorld) rules(t testing.TB, all ...rule) {
	t.Helper()
	var b strings.Builder
	for _, r := range all {
		b.WriteString(r.String())
	}
	w.apply(t, w.ns, b.String())
}

func (w *annotationWorld) all(t testing.TB, asks ...ask) {
	t.Helper()
	for i, q := range asks {
		if i == 0 { // the rules may be on their way
			w.comes(t, q)
			continue
		}
		// So may be what other rules need; but what must not be is not there for a moment.
		if err := poll(func() error {
			a, err := w.curl(t, q.args...)
			if err == nil {
				err = q.check(a)
			}
			if a != nil && slices.ContainsFunc(q.not, func(n string) bool { return strings.Contains(a.String(), n) }) {
				return halt{err}
			}
			return err
		}); err != nil {
			t.Error(err)
		}
	}
}

// spareHandler answers for others, and says what it was told of why.
func spareHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Code") != "" {
			w.WriteHeader(http.StatusTeapot)
		}
		fmt.Fprintf(w, "spare: code %q uri %q host %q\n", r.Header.Get("X-Code"), r.Header.Get("X-Original-Uri"), r.Host)
	})
}

// authHandler lets in who has a session.
func authHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := r.Cookie("session")
		switch {
		case r.URL.Path == "/broken":
			w.WriteHeader(http.StatusBadGateway)
		case err != nil:
			w.WriteHeader(http.StatusUnauthorized)
		case c.Value == "blocked":
			w.WriteHeader(http.StatusForbidden)
		default:
			w.Header().Set("X-Auth-User", c.Value)
			w.Header().Set("X-Asked", r.Header.Get("X-Original-Url"))
			w.WriteHeader(http.StatusAccepted)
		}
	})
}

func tryPath(t *testing.T, w *annotationWorld) {
	w.rules(t, rule{name: "rewrite", host: "rewrite.example.com", path: "/app(/|$)(.*)", annotations: []string{"rewrite-target: /$2", "x-forwarded-prefix: /app"}},
		rule{name: "regex", host: "regex.example.com", path: "/v[0-9]+/", annotations: []string{"use-regex: true"}})
	w.all(t,
		ask{"captures", []string{"http://rewrite.example.com/app/x/y?q=1"}, 200, []string{`"URI":"/x/y?q=1"`, `"X-Forwarded-Prefix":["/app"]`}, nil},
		ask{"without the rest", []string{"http://rewrite.example.com/app"}, 200, []string{`"URI":"/"`}, nil},
		ask{"without regard to case", []string{"http://rewrite.example.com/APP/Z"}, 200, []string{`"URI":"/Z"`}, nil},
		ask{"another path", []string{"http://rewrite.example.com/apple"}, 404, nil, nil})
	w.all(t,
		ask{"regular expression", []string{"http://regex.example.com/v12/x"}, 200, []string{`"URI":"/v12/x"`}, nil},
		ask{"it must match", []string{"http://regex.example.com/vx/x"}, 404, nil, nil})
}

func tryRedirect(t *testing.T, w *annotationWorld) {
	const to = "https://other.example.com/there"
	port := w.https[strings.LastIndex(w.https, ":"):]
	w.rules(t,
		rule{name: "ssl", host: "ssl.tls.example.com", tls: "tls"},
		rule{name: "nossl", host: "nossl.tls.example.com", tls: "tls", annotations: []string{"ssl-redirect: false"}},
		rule{name: "force", host: "force.example.com", annotations: []string{"force-ssl-redirect: true"}},
		rule{name: "permanent", host: "permanent.example.com", annotations: []string{"permanent-redirect: " + to}},
		rule{name: "code", host: "code.example.com", annotations: []string{"permanent-redirect: " + to, "permanent-redirect-code: 308"}},
		rule{name: "temporal", host: "temporal.example.com", annotations: []string{"temporal-redirect: https://other.example.com$request_uri"}},
		rule{name: "root", host: "root.example.com", annotations: []string{"app-root: /home"}})
	w.all(t,
		ask{"app-root", []string{"http://root.example.com/"}, 302, []string{"root.example.com/home\n"}, nil},
		ask{"app-root, another path", []string{"http://root.example.com/x"}, 200, []string{`"URI":"/x"`}, nil},
		ask{"to https", []string{"http://ssl.tls.example.com/a?b=c"}, 308, []string{"Location: https://ssl.tls.example.com" + port + "/a?b=c\n"}, nil},
		ask{"https", []string{"https://ssl.tls.example.com/a?b=c"}, 200, []string{`"URI":"/a?b=c"`, `"X-Forwarded-Proto":["https"]`}, nil},
		ask{"to https, of a POST", []string{"-d", "x", "http://ssl.tls.example.com/"}, 308, nil, nil},
		ask{"no redirect", []string{"http://nossl.tls.example.com/"}, 200, nil, nil},
		ask{"forced", []string{"http://force.example.com/"}, 308, []string{"Location: https://force.example.com"}, nil},
		ask{"permanent", []string{"http://permanent.example.com/x"}, 301, []string{"Location: " + to + "\n"}, nil},
		ask{"permanent with a code", []string{"http://code.example.com/x"}, 308, []string{"Location: " + to + "\n"}, nil},
		ask{"temporal", []string{"http://temporal.example.com/x?y"}, 302, []string{"Location: https://other.example.com/x?y\n"}, nil})
}

func tryWWW(t *testing.T, w *annotationWorld) {
	w.rules(t, rule{name: "www", host: "plain.example.com", annotations: []string{"from-to-www-redirect: true"}},
		rule{name: "www2", host: "www.full.example.com", annotations: []string{"from-to-www-redirect: true"}})
	w.all(t,
		ask{"the other way", []string{"http://full.example.com/a"}, 308, []string{"Location: http://www.full.example.com", "/a\n"}, nil},
		ask{"from www", []string{"http://www.plain.example.com/a?b"}, 308, []string{"Location: http://plain.example.com", "/a?b\n"}, nil},
		ask{"to it", []string{"http://plain.example.com/a"}, 200, nil, nil},
		ask{"the full one", []string{"http://www.full.example.com/a"}, 200, nil, nil})
}

func tryBasic(t *testing.T, w *annotationWorld) {
	file := filepath.Join(t.TempDir(), "auth")
	hash := finish(t, exec.Command("openssl", "passwd", "-apr1", "-salt", "abcdefgh", "s3cret"))
	if err := os.WriteFile(file, []byte("foo:"+hash.out+"bar:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	anno := []string{"auth-type: basic", "auth-secret: basic-auth", "auth-realm: Members only"}
	w.rules(t, rule{name: "basic", host: "basic.example.com", annotations: anno})
	w.comes(t, ask{"closed while the Secret is not there", []string{"http://basic.example.com/"}, 503, nil, nil})
	w.must(t, "create", "secret", "generic", "basic-auth", "-n", w.ns, "--from-file=auth="+file)
	w.all(t,
		ask{"nobody", []string{"http://basic.example.com/"}, 401, []string{`Www-Authenticate: Basic realm="Members only"`}, []string{"X-Endpoint"}},
		ask{"right", []string{"-u", "foo:s3cret", "http://basic.example.com/"}, 200, nil, nil},
		ask{"right, SHA", []string{"-u", "bar:password", "http://basic.example.com/"}, 200, nil, nil},
		ask{"wrong", []string{"-u", "foo:secret", "http://basic.example.com/"}, 401, nil, []string{"X-Endpoint"}},
		ask{"unknown", []string{"-u", "baz:s3cret", "http://basic.example.com/"}, 401, nil, nil})
	// Who is not in the Secret any more gets in no more.
	w.must(t, "delete", "secret", "basic-auth", "-n", w.ns)
	w.comes(t, ask{"closed again", []string{"-u", "foo:s3cret", "http://basic.example.com/"}, 503, nil, nil})
}

func tryAuthURL(t *testing.T, w *annotationWorld) {
	at := "http://auth." + w.ns + ".svc.cluster.local"
	w.rules(t,
		rule{name: "auth", host: "auth.example.com", annotations: []string{"auth-url: " + at + "/check", "auth-response-headers: X-Auth-User, X-Asked",
			"auth-signin: https://login.example.com/start"}},
		rule{name: "auth-plain", host: "auth-plain.example.com", annotations: []string{"auth-url: " + at + "/check"}},
		rule{name: "auth-broken", host: "auth-broken.example.com", annotations: []string{"auth-url: " + at + "/broken"}})
	w.all(t,
		ask{"the server's mistake", []string{"-b", "session=jane", "http://auth-broken.example.com/"}, 500, nil, []string{"X-Endpoint"}},
		ask{"nobody", []string{"http://auth.example.com/a?b=c"}, 302, []string{"Location: https://login.example.com/start?rd=http://auth.example.com%2Fa%3Fb%3Dc\n"}, []string{"X-Endpoint"}},
		ask{"somebody", []string{"-b", "session=jane", "http://auth.example.com/a?b=c"}, 200, []string{`"X-Auth-User":["jane"]`, `"X-Asked":["http://auth.example.com/a?b=c"]`}, nil},
		ask{"somebody with a body", []string{"-b", "session=jane", "-d", "hello", "http://auth.example.com/"}, 200, []string{`"Body":5`, `"Method":"POST"`}, nil},
		ask{"who says so himself", []string{"-b", "session=jane", "-H", "X-Auth-User: root", "http://auth.example.com/"}, 200, []string{`"X-Auth-User":["jane"]`}, []string{"root"}},
		ask{"blocked", []string{"-b", "session=blocked", "http://auth.example.com/"}, 403, nil, []string{"X-Endpoint"}},
		ask{"nobody, nowhere to sign in", []string{"http://auth-plain.example.com/"}, 401, nil, []string{"X-Endpoint"}},
		ask{"not asked for: not told", []string{"-b", "session=jane", "http://auth-plain.example.com/"}, 200, nil, []string{"X-Auth-User"}})
}

func tryRanges(t *testing.T, w *annotationWorld) {
	in, out := w.site.ip(50, 1), w.site.ip(51, 1)
	from := func(ip, host string) []string { return []string{"--interface", ip, "http://" + host + "/"} }
	w.rules(t,
		rule{name: "white", host: "white.example.com", annotations: []string{"whitelist-source-range: 192.0.2.0/24," + in + "/32"}},
		rule{name: "deny", host: "deny.example.com", annotations: []string{"denylist-source-range: " + out + "/24"}},
		rule{name: "white-bad", host: "white-bad.example.com", annotations: []string{"whitelist-source-range: everybody"}})
	w.all(t,
		ask{"a list that cannot be understood lets nobody in", from(in, "white-bad.example.com"), 503, nil, []string{"X-Endpoint"}},
		ask{"inside", from(in, "white.example.com"), 200, []string{`"X-Real-Ip":["` + in + `"]`}, nil},
		ask{"outside", from(out, "white.example.com"), 403, nil, []string{"X-Endpoint"}},
		ask{"who only says so", []string{"--interface", out, "-H", "X-Forwarded-For: " + in, "http://white.example.com/"}, 403, nil, nil},
		ask{"denied", from(out, "deny.example.com"), 403, nil, nil},
		ask{"not denied", from(in, "deny.example.com"), 200, nil, nil})
}

func tryCORS(t *testing.T, w *annotationWorld) {
	w.rules(t, rule{name: "cors", host: "cors.example.com", annotations: []string{"enable-cors: true",
		"cors-allow-origin: https://app.example.com, https://*.apps.example.com", "cors-allow-methods: GET, PUT", "cors-max-age: 60"}},
		rule{name: "cors-any", host: "cors-any.example.com", annotations: []string{"enable-cors: true"}})
	preflight := func(origin, host string) []string {
		return []string{"-X", "OPTIONS", "-H", "Origin: " + origin, "-H", "Access-Control-Request-Method: PUT", "http://" + host + "/"}
	}
	w.all(t,
		ask{"of anywhere", preflight("https://x.example.com", "cors-any.example.com"), 204, []string{"Access-Control-Allow-Origin: ", "Access-Control-Allow-Methods: GET, PUT, POST, DELETE, PATCH, OPTIONS", "Access-Control-Max-Age: 1728000"}, nil},
		ask{"preflight", preflight("https://app.example.com", "cors.example.com"), 204, []string{"Access-Control-Allow-Origin: https://app.example.com\n", "Access-Control-Allow-Methods: GET, PUT\n", "Access-Control-Max-Age: 60\n"}, []string{"X-Endpoint"}},
		ask{"preflight of a wildcard", preflight("https://one.apps.example.com", "cors.example.com"), 204, []string{"Access-Control-Allow-Origin: https://one.apps.example.com\n"}, nil},
		ask{"request", []string{"-H", "Origin: https://app.example.com", "http://cors.example.com/"}, 200, []string{"Access-Control-Allow-Origin: https://app.example.com\n", "Access-Control-Allow-Credentials: true\n"}, nil},
		ask{"request of another origin", []string{"-H", "Origin: https://evil.example.com", "http://cors.example.com/"}, 200, nil, []string{"Access-Control-Allow-Origin"}})
}

func tryLimit(t *testing.T, w *annotationWorld) {
	me, other := w.site.ip(52, 1), w.site.ip(52, 2)
	w.rules(t, rule{name: "limit", host: "limit.example.com", annotations: []string{"limit-rpm: 2", "limit-burst-multiplier: 1"}},
		rule{name: "limit-rps", host: "limit-rps.example.com", annotations: []string{"limit-rps: 1"}},
		rule{name: "limit-not", host: "limit-not.example.com", annotations: []string{"limit-rpm: 1", "limit-burst-multiplier: 1", "limit-whitelist: " + me + "/32"}})
	w.comes(t, ask{"the first", []string{"--interface", me, "http://limit.example.com/"}, 200, nil, nil})
	w.comes(t, ask{"too many", []string{"--interface", me, "http://limit.example.com/"}, 503, nil, []string{"X-Endpoint"}})
	w.is(t, ask{"another client", []string{"--interface", other, "http://limit.example.com/"}, 200, nil, nil})
	w.comes(t, ask{"who is not limited", []string{"--interface", me, "http://limit-not.example.com/"}, 200, nil, nil})
	for range 5 {
		w.is(t, ask{"who is not limited", []string{"--interface", me, "http://limit-not.example.com/"}, 200, nil, nil})
	}
	// One curl with many requests: more than one a second and five at once.
	cmd := exec.Command("curl", "-sS", "--connect-to", ":80:"+w.doorway.http, "-o", "/dev/null", "-w", "%{http_code}\n", "http://limit-rps.example.com/[1-60]")
	r := finish(t, cmd)
	if ok, no := strings.Count(r.out, "200"), strings.Count(r.out, "503"); ok < 5 || no < 1 || ok+no != 60 {
		t.Errorf("limit-rps 1: %d of 60 got in and %d were refused\n%s", ok, no, r.err)
	}
}

func tryAffinity(t *testing.T, w *annotationWorld) {
	w.rules(t, rule{name: "affinity", host: "affinity.example.com", annotations: []string{"affinity: cookie", "session-cookie-name: route",
		"session-cookie-max-age: 60", "session-cookie-samesite: Lax"}})
	a := w.comes(t, ask{"a cookie", []string{"http://affinity.example.com/"}, 200, []string{"Set-Cookie: route="}, nil})
	cookie, attributes, _ := strings.Cut(a.header.Get("Set-Cookie"), ";")
	for _, want := range []string{"Max-Age=60", "SameSite=Lax", "HttpOnly", "Path=/"} {
		if !strings.Contains(attributes, want) {
			t.Errorf("the cookie %q has no %s", a.header.Get("Set-Cookie"), want)
		}
	}
	if got := w.who(t, 10, "-b", cookie, "http://affinity.example.com/"); got[a.header.Get("X-Endpoint")] != 10 {
		t.Errorf("the cookie of %s leads to %v", a.header.Get("X-Endpoint"), got)
	}
	eventually(t, "both endpoints without cookie", func() error {
		got := w.who(t, 8, "http://affinity.example.com/")
		return unless(len(got) == 2, "%v", got)
	})
	w.is(t, ask{"a cookie of nobody", []string{"-b", "route=nonsense", "http://affinity.example.com/"}, 200, []string{"Set-Cookie: route="}, nil})
}

func tryCanary(t *testing.T, w *annotationWorld) {
	const host = "canary.example.com"
	w.rules(t, rule{name: "canary", host: host, service: "next", annotations: []string{"canary: true", "canary-by-header: X-Canary", "canary-by-cookie: try", "canary-weight: 0"}},
		rule{name: "stable", host: host},
		rule{name: "canary-value", host: "canary-value.example.com", service: "next", annotations: []string{"canary: true", "canary-by-header: X-Region", "canary-by-header-pattern: ^(eu|us)$"}},
		rule{name: "stable-value", host: "canary-value.example.com"})
	asked := func(what, next string, args ...string) ask {
		q := ask{what, append(args, "http://"+host+"/"), 200, []string{`"Name":"next"`}, nil}
		if next != "next" {
			q.has, q.not = nil, q.has
		}
		return q
	}
	w.all(t, asked("always", "next", "-H", "X-Canary: always"), asked("no header", ""), asked("never", "", "-H", "X-Canary: never", "-b", "try=always"),
		asked("cookie", "next", "-b", "try=always"), asked("another value", "", "-H", "X-Canary: yes"), asked("another value and the cookie", "next", "-H", "X-Canary: yes", "-b", "try=always"))
	w.all(t, ask{"pattern", []string{"-H", "X-Region: eu", "http://canary-value.example.com/"}, 200, []string{`"Name":"next"`}, nil},
		ask{"another value", []string{"-H", "X-Region: europe", "http://canary-value.example.com/"}, 200, nil, []string{`"Name":"next"`}})
	w.rules(t, rule{name: "canary", host: host, service: "next", annotations: []string{"canary: true", "canary-weight: 50"}})
	eventually(t, "a half goes to the canary", func() error {
		// 40 requests at 50 %: beyond 5 standard deviations is 4 and 36.
		n := w.who(t, 40, "http://"+host+"/")["next"]
		return unless(n > 4 && n < 36, "%d of 40", n)
	})
	w.rules(t, rule{name: "canary", host: host, service: "next", annotations: []string{"canary: true", "canary-weight: 100"}})
	eventually(t, "all go to the canary", func() error {
		got := w.who(t, 20, "http://"+host+"/")
		return unless(got["next"] == 20, "at 100 %%: %v", got)
	})
	w.must(t, "delete", "ingress", "canary", "-n", w.ns)
	eventually(t, "the canary is gone", func() error {
		got := w.who(t, 5, "http://"+host+"/")
		return unless(got["next"] == 0, "%v", got)
	})
}

func tryBodySize(t *testing.T, w *annotationWorld) {
	w.rules(t, rule{name: "body", host: "body.example.com", annotations: []string{"proxy-body-size: 1k"}},
		rule{name: "silent", host: "silent.example.com", annotations: []string{"proxy-read-timeout: 1", "proxy-next-upstream: off"}})
	file := filepath.Join(t.TempDir(), "body")
	send := func(what string, size, status int, has []string, args ...string) ask {
		name := fmt.Sprintf("%s-%d", file, size)
		if err := os.WriteFile(name, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
		return ask{what, append(args, "--data-binary", "@"+name, "http://body.example.com/"), status, has, nil}
	}
	w.all(t, send("small", 1024, 200, []string{`"Body":1024`}), send("big", 1025, 413, nil),
		send("chunked, small", 1024, 200, []string{`"Body":1024`}, "-H", "Transfer-Encoding: chunked"),
		send("chunked, big", 4096, 413, nil, "-H", "Transfer-Encoding: chunked"),
		send("asked first", 4096, 413, nil, "-H", "Expect: 100-continue"),
		ask{"an endpoint that is silent", []string{"http://silent.example.com/slow"}, 504, nil, nil})
}
