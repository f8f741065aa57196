//go:build linux

package e2e

import (
	"net/http"
	"testing"
)

// trySatisfy: an address or a password is enough.
func trySatisfy(t *testing.T, w *annotationWorld) {
	in, out := w.site.ip(50, 1), w.site.ip(51, 1)
	w.must(t, "create", "secret", "generic", "satisfy-users", "-n", w.ns, "--from-literal=auth=foo:{PLAIN}bar")
	both := []string{"whitelist-source-range: " + in + "/32", "auth-type: basic", "auth-secret: satisfy-users"}
	w.rules(t,
		rule{name: "any", host: "any.example.com", annotations: append(both, "satisfy: any")},
		rule{name: "all", host: "all.example.com", annotations: append(both, "satisfy: all")})
	from := func(ip, host string, more ...string) []string {
		return append([]string{"--interface", ip, "http://" + host + "/"}, more...)
	}
	w.all(t,
		ask{"any: address", from(in, "any.example.com"), 200, nil, nil},
		ask{"any: password", from(out, "any.example.com", "-u", "foo:bar"), 200, nil, nil},
		ask{"any: neither", from(out, "any.example.com", "-u", "foo:wrong"), 401, []string{"Www-Authenticate: Basic"}, []string{"X-Endpoint"}},
		ask{"all: both", from(in, "all.example.com", "-u", "foo:bar"), 200, nil, nil},
		ask{"all: address", from(in, "all.example.com"), 401, nil, []string{"X-Endpoint"}},
		ask{"all: password", from(out, "all.example.com", "-u", "foo:bar"), 403, nil, []string{"X-Endpoint"}})
}

// tryReplace: places in responses become those that clients know.
func tryReplace(t *testing.T, w *annotationWorld) {
	inner := listenEndpoint(t, w.site, 10, 7, 9000, "inner", nil, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", "http://inner:9000/login?next=1")
		w.Header().Set("Set-Cookie", "id=1; Path=/; Domain=inner; HttpOnly")
		w.WriteHeader(http.StatusFound)
	}))
	w.apply(t, w.ns, behind(t, "inner", inner))
	w.rules(t, rule{name: "replace", host: "replace.example.com", service: "inner", annotations: []string{
		"proxy-redirect-from: http://inner:9000/", "proxy-redirect-to: http://$host/app/",
		"proxy-cookie-domain: inner replace.example.com", "proxy-cookie-path: / /app/"}})
	w.all(t, ask{"replaced", []string{"http://replace.example.com/"}, 302,
		[]string{"Location: http://replace.example.com/app/login?next=1\n", "Set-Cookie: id=1; Path=/app/; Domain=replace.example.com; HttpOnly\n"}, []string{"inner"}})
}
