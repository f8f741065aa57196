package dns

import (
	"context"
	"strings"
	"testing"
)

// An explanation names the registration, and follows aliases within the zone
// as far as answers do.
func TestExplainSource(t *testing.T) {
	w := newWorld(t, Config{})
	w.must(t,
		"service shop/web clusterip=10.96.0.1 ports=http:80",
		"endpoint shop/web 10.0.0.1 ports=http:8080",
		"service shop/one external=two.shop.svc.cluster.local",
		"service shop/two external=web.shop.svc.cluster.local",
		"service shop/self external=self.shop.svc.cluster.local",
		"service shop/round external=about.shop.svc.cluster.local",
		"service shop/about external=round.shop.svc.cluster.local",
		"service shop/nowhere external=nobody.shop.svc.cluster.local",
	)
	ask := func(name string) Explanation {
		t.Helper()
		e, err := w.server.Explain(context.Background(), name+".shop.svc.cluster.local", "A")
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	e := ask("web")
	if e.From == nil || len(e.From.ClusterIPs) != 1 || strings.Join(e.From.Ports, " ") != "http:80/TCP" || e.Target != nil {
		t.Errorf("%+v", e.From)
	}
	if len(e.Endpoints) != 1 || strings.Join(e.Endpoints[0].Ports, " ") != "http:8080/TCP" {
		t.Errorf("%+v", e.Endpoints)
	}
	if e = ask("one"); e.Target == nil || e.Target.Target == nil || e.Target.Target.Service != "shop/web" {
		t.Errorf("%+v", e.Target)
	}
	if e = ask("nowhere"); e.Target == nil || e.Target.Rcode != "NXDOMAIN" || e.Target.From != nil {
		t.Errorf("%+v", e.Target)
	}
	depth := 0
	for x := ask("round"); x.Target != nil; x = *x.Target {
		depth++
	}
	if depth != maxChain {
		t.Errorf("aliases that go round are followed %d times", depth)
	}
	if e = ask("self"); e.Target != nil {
		t.Errorf("an alias of itself: %+v", e.Target)
	}
}
