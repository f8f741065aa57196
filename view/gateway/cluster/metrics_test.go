package cluster

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/fingerpost/fingerpost/view/gateway/route"
)

func TestMetrics(t *testing.T) {
	w := newWorld(t, Config{HTTP2: newMany})
	r := prometheus.NewPedanticRegistry()
	if err := w.set.Register(r); err != nil {
		t.Fatal(err)
	}
	w.service()
	w.endpoints(1, 2, 3)
	c := w.set.Get(Key{Service: webKey, Port: "http"})
	w.set.Get(Key{Service: webKey, Port: "http", Protocol: route.H2C}) // the same names
	for _, e := range c.Endpoints()[:2] {
		l := w.connect(e)
		l.Release()
	}
	e := c.Endpoints()[2] // it has no idle connection
	w.fail(w.pick(c, Query{Sticky: e.ID()}))
	c.Retry()
	w.pick(c, Query{Tried: []*Endpoint{e}})
	want := `
# HELP fingerpost_cluster_active_requests Requests that endpoints have now.
# TYPE fingerpost_cluster_active_requests gauge
fingerpost_cluster_active_requests{port="http",service="default/web"} 1
# HELP fingerpost_cluster_connections Open connections to endpoints, and those of them that wait for a request.
# TYPE fingerpost_cluster_connections gauge
fingerpost_cluster_connections{port="http",service="default/web",state="idle"} 2
fingerpost_cluster_connections{port="http",service="default/web",state="open"} 2
# HELP fingerpost_cluster_ejections_total Endpoints taken out for a while because they failed.
# TYPE fingerpost_cluster_ejections_total counter
fingerpost_cluster_ejections_total{port="http",service="default/web"} 1
# HELP fingerpost_cluster_endpoints Endpoints that requests may go to (state ready), or that get none for a while because they failed (ejected).
# TYPE fingerpost_cluster_endpoints gauge
fingerpost_cluster_endpoints{port="http",service="default/web",state="ejected"} 1
fingerpost_cluster_endpoints{port="http",service="default/web",state="ready"} 2
# HELP fingerpost_cluster_retries_total Requests that were sent to another endpoint.
# TYPE fingerpost_cluster_retries_total counter
fingerpost_cluster_retries_total{port="http",service="default/web"} 1
`
	if err := testutil.GatherAndCompare(r, strings.NewReader(want),
		"fingerpost_cluster_active_requests", "fingerpost_cluster_connections", "fingerpost_cluster_ejections_total",
		"fingerpost_cluster_endpoints", "fingerpost_cluster_retries_total"); err != nil {
		t.Error(err)
	}
}

// TestWary: after one connection broke, even those that were used a moment ago
// are looked at.
func TestWary(t *testing.T) {
	s := serve(t)
	w := newWorld(t, Config{Dial: dialPlain, CheckAfter: time.Hour})
	w.service()
	w.endpoints()
	c := w.set.Get(Key{External: s.l.Addr().String()})
	e := c.Endpoints()[0]
	var all []*line
	for range 5 {
		l := w.connect(e)
		if _, err := l.ask("hello"); err != nil {
			t.Fatal(err)
		}
		all = append(all, l)
	}
	s.drop()
	for _, l := range all {
		if _, err := l.r.Peek(1); err == nil {
			t.Fatal("not closed")
		}
	}
	for _, l := range all {
		l.Release()
	}
	broken := w.connect(e)
	if broken.Fresh() {
		t.Fatal("this one was not to be noticed")
	}
	broken.Abort(nil)
	if l := w.connect(e); !l.Fresh() {
		t.Error("another dead connection was used")
	} else {
		l.Abort(nil)
	}
}

func BenchmarkApply(b *testing.B) {
	w := newWorld(b, Config{})
	w.service()
	numbers := make([]int, 1000)
	for i := range numbers {
		numbers[i] = i + 1
	}
	w.endpoints(numbers...)
	w.set.Get(Key{Service: webKey, Port: "http"})
	i := 0
	for b.Loop() {
		i++
		w.endpoints(numbers[:1000-i%2]...)
	}
}
