package dns

import (
	"context"
	"strings"
	"testing"
)

func TestExplain(t *testing.T) {
	w := newWorld(t, Config{})
	w.must(t,
		"service shop/db headless ports=sql:5432",
		"endpoint shop/db 10.0.0.1 ports=sql:5432",
		"endpoint shop/db 10.0.0.2 ports=sql:5432 out",
		"service shop/web clusterip=10.96.0.1 ports=http:80",
		"service shop/ext external=www.example.com",
	)
	for _, c := range []struct{ name, typ, want string }{
		{"db.shop.svc.cluster.local", "", "db.shop.svc.cluster.local. A: NOERROR\n  headless service shop/db: the addresses of its endpoints that are in\n  db.shop.svc.cluster.local. 5 IN A 10.0.0.1\n  endpoint 10.0.0.1 in\n  endpoint 10.0.0.2 out: it is not ready (Failing, says probe http: status 503)\n"},
		{"web.shop.svc.cluster.local.", "aaaa", "web.shop.svc.cluster.local. AAAA: NOERROR\n  service shop/web: its cluster IPs, whatever its endpoints do\n"},
		{"10.96.0.1", "", "1.0.96.10.in-addr.arpa. PTR: NOERROR\n  the cluster IP of service shop/web\n  1.0.96.10.in-addr.arpa. 5 IN PTR web.shop.svc.cluster.local.\n"},
		{"nope.shop.svc.cluster.local", "A", "nope.shop.svc.cluster.local. A: NXDOMAIN\n  there is no such service in that namespace\n"},
		{"ext.shop.svc.cluster.local", "A", "ext.shop.svc.cluster.local. A: NOERROR\n  service shop/ext stands for www.example.com; no upstream is configured to resolve that\n  ext.shop.svc.cluster.local. 5 IN CNAME www.example.com.\n"},
		{"example.com", "MX", "example.com. MX: REFUSED\n  not in zone cluster.local. and no address of the cluster; no upstream is configured\n"},
	} {
		e, err := w.server.Explain(context.Background(), c.name, c.typ)
		if err != nil || e.String() != c.want {
			t.Errorf("%s %s: %v\n%s-- want\n%s", c.name, c.typ, err, e, c.want)
		}
	}
	w.must(t, "not-synced")
	if e, _ := w.server.Explain(context.Background(), "nope.shop.svc.cluster.local", "A"); !strings.Contains(e.Rule, "not complete yet") {
		t.Error(e)
	}
	for _, bad := range [][2]string{{"web", "WHAT"}, {strings.Repeat("a", 70) + ".x", "A"}} {
		if _, err := w.server.Explain(context.Background(), bad[0], bad[1]); err == nil {
			t.Errorf("%v: no error", bad)
		}
	}
}
