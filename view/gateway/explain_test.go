package gateway

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/gateway/route"
)

// told is an explanation as lines.
func told(x *Explanation) string {
	var b strings.Builder
	for i, d := range x.Does {
		fmt.Fprintf(&b, "%d. %s\n", i+1, d.Text)
	}
	for _, p := range x.Policy {
		fmt.Fprintf(&b, "- %s\n", p)
	}
	for _, s := range x.Backends {
		for _, l := range s.Left {
			fmt.Fprintf(&b, "out %s %s: %s\n", l.Address, l.Target, l.Why)
		}
	}
	fmt.Fprintf(&b, "%d %s\n", x.Status, x.Answer)
	return b.String()
}

const usual = "- time to connect 5s, between two reads 1m0s, between two writes 1m0s\n"

// TestExplained: what is said is what would be done, in order, and nothing that does not
// concern the request.
func TestExplained(t *testing.T) {
	rewrite, away := "/app/$1", "https://old.example.com/$1"
	open := func(*route.Policy) {}
	for _, x := range []struct {
		name string
		q    Question
		p    func(*route.Policy)
		want string
	}{
		{"plain", Question{}, open, usual + "0 that of one endpoint\n"},
		{"redirect to https", Question{Path: "/a?b"}, func(p *route.Policy) { p.ForceSSLRedirect = true },
			"1. http is redirected: force-ssl-redirect: 308 to https://shop.example.com/a?b\n" + usual + "308 http is redirected: force-ssl-redirect: 308 to https://shop.example.com/a?b\n"},
		{"https already", Question{Scheme: "https"}, func(p *route.Policy) { p.ForceSSLRedirect = true }, usual + "0 that of one endpoint\n"},
		{"app root", Question{}, func(p *route.Policy) { p.AppRoot = "/app" },
			"1. redirected to the app-root: 302 to http://shop.example.com/app\n" + usual + "302 redirected to the app-root: 302 to http://shop.example.com/app\n"},
		{"not the root", Question{Path: "/x"}, func(p *route.Policy) { p.AppRoot = "/app" }, usual + "0 that of one endpoint\n"},
		{"address not said", Question{}, func(p *route.Policy) { p.Allow = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")} },
			"1. addresses of clients: allowed 10.0.0.0/8\n" + usual + "0 that of one endpoint\n"},
		{"address refused", Question{Client: netip.MustParseAddr("192.0.2.1")}, func(p *route.Policy) { p.Allow = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")} },
			"1. the address 192.0.2.1 is not let in (allowed 10.0.0.0/8): 403\n" + usual + "403 the address 192.0.2.1 is not let in (allowed 10.0.0.0/8): 403\n"},
		{"password", Question{Headers: [][2]string{{"Authorization", "Basic YW5uOnJpZ2h0"}}}, func(p *route.Policy) {
			p.Basic = &route.BasicAuth{Users: map[string]string{"ann": "{PLAIN}right"}}
		}, "1. the password of ann is right\n" + usual + "0 that of one endpoint\n"},
		{"any", Question{Client: netip.MustParseAddr("10.0.0.1")}, func(p *route.Policy) {
			p.Allow, p.SatisfyAny = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, true
			p.Basic = &route.BasicAuth{Users: map[string]string{"ann": "{PLAIN}right"}}
		}, "1. the address 10.0.0.1 is let in\n2. one of address, password and authentication server is enough (satisfy: any)\n" + usual + "0 that of one endpoint\n"},
		{"rewrite", Question{Path: "/api/x?y=z"}, func(p *route.Policy) { p.Rewrite, p.UpstreamHost = &rewrite, "in.example.com" },
			"1. the path becomes /app/x?y=z\n2. the endpoint sees the host in.example.com\n" + usual + "0 that of one endpoint\n"},
		{"rewrite away", Question{Path: "/api/x"}, func(p *route.Policy) { p.Rewrite = &away },
			"1. rewrite-target https://old.example.com/$1: 302 to https://old.example.com/x\n" + usual + "302 rewrite-target https://old.example.com/$1: 302 to https://old.example.com/x\n"},
		{"limits and times", Question{Headers: [][2]string{{"Content-Length", "10000000"}}}, func(p *route.Policy) {
			p.Limit, p.BodyLimit, p.ReadTimeout, p.Retry.On = &route.Limit{RPS: 10, Connections: 3}, 8<<20, time.Hour, []int{502, 503}
		}, "1. limit of one address: 10 requests a second (50 at once), 3 at the same time; above it 503\n- bodies of requests may have 8 MiB\n" +
			"- time to connect 5s, between two reads 1h0m0s, between two writes 1m0s\n- answers with 502, 503 are tried again\n413 413: the body is larger than 8 MiB\n"},
		{"auth", Question{}, func(p *route.Policy) {
			p.Auth = &route.ExternalAuth{URL: "http://auth.example.com/", SignIn: "https://login.example.com/"}
		}, "1. the authentication server http://auth.example.com/ is asked (GET): 2xx lets the request pass\n2. who is not known there (401) is redirected to https://login.example.com/\n" + usual + "0 that of one endpoint\n"},
	} {
		p := policy()
		x.p(p)
		u := everything(p)
		h := u.Hosts[""]
		h.Rules[0].Path = route.Path{Kind: route.Regex, Value: "/(?:api/)?(.*)"}
		re, err := route.CompileRegex(h.Rules[0].Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		h.Rules[0].Path.Regex = re
		r := newRig(t, Config{}, nil, newEndpoint(t, hello("x")))
		r.e.SetRoutes(u)
		x.q.Host = "shop.example.com"
		got := r.e.Explain(x.q)
		if s := told(&got); s != x.want {
			t.Errorf("%s: got\n%s\nwant\n%s", x.name, s, x.want)
		}
	}
}

// TestExplainLeft: endpoints that get nothing are told with the reason.
func TestExplainLeft(t *testing.T) {
	ep := newEndpoint(t, hello("x"))
	r := newRig(t, Config{}, policy(), ep)
	before := r.cat.Snapshot()
	port := func(name string) []catalog.EndpointPort {
		return []catalog.EndpointPort{{Name: name, Protocol: catalog.TCP, Port: 8080}}
	}
	r.cat.Update(func(tx *catalog.Txn) {
		ap := ep.addr()
		tx.PutEndpoints(web, []catalog.Endpoint{
			{Addr: ap.Addr(), Ports: []catalog.EndpointPort{{Name: "http", Protocol: catalog.TCP, Port: ap.Port()}}, Ready: true, Serving: true, Weight: 100},
			{Addr: netip.MustParseAddr("10.0.0.1"), Ports: port("http"), Weight: 100, Target: catalog.Ref{Kind: "Pod", Name: "web-1"}, Health: catalog.Health{Reason: "no answer", By: "probe http"}},
			{Addr: netip.MustParseAddr("10.0.0.2"), Ports: port("http"), Serving: true, Terminating: true, Weight: 100},
			{Addr: netip.MustParseAddr("10.0.0.3"), Ports: port("http"), Terminating: true, Weight: 100},
			{Addr: netip.MustParseAddr("10.0.0.4"), Ports: port("other"), Ready: true, Serving: true, Weight: 100},
			{Addr: netip.MustParseAddr("10.0.0.5"), Ports: port("http"), Ready: true, Serving: true},
		})
	})
	after := r.cat.Snapshot()
	if err := r.e.Apply(t.Context(), catalog.Batch{Snapshot: after, Changes: []catalog.Change{{Key: web, Old: before.Get(web), New: after.Get(web)}}}); err != nil {
		t.Fatal(err)
	}
	x := r.e.Explain(Question{Host: "a"})
	want := usual + `out 10.0.0.1:8080 Pod web-1: it is not ready: no answer (probe http)
out 10.0.0.2:8080 : it is being ended, and others are ready
out 10.0.0.3:8080 : it is being ended
out 10.0.0.4:0 : it has no port 80
out 10.0.0.5:8080 : its weight is 0
0 that of one endpoint
`
	if got := told(&x); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if x := r.e.Explain(Question{Host: "a", Path: "/healthz"}); x.Status != 0 {
		t.Errorf("a rule takes /healthz: %+v", x)
	}
	r.e.SetRoutes(route.Update{Replace: true})
	for path, status := range map[string]int{"/": 404, "/healthz": 200, "/%": 400} {
		if x := r.e.Explain(Question{Host: "a", Path: path}); x.Status != status {
			t.Errorf("%s: %d %s", path, x.Status, x.Answer)
		}
	}
}
