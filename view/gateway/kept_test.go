package gateway

import (
	"testing"
	"time"

	"github.com/fingerpost/fingerpost/catalog"
)

// TestKeptCatalog: endpoints of an earlier run will do while the source is away;
// a catalog that knows nothing will not.
func TestKeptCatalog(t *testing.T) {
	ep := newEndpoint(t, hello("kept"))
	r := &rig{t: t, cat: catalog.New(nil)}
	e, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	r.e = e
	e.SetRoutes(everything(policy()))
	apply := func(f catalog.Freshness, eps ...*endpoint) {
		before := r.cat.Snapshot()
		r.cat.Update(func(tx *catalog.Txn) {
			if len(eps) > 0 {
				tx.PutService(&catalog.Service{Key: web, Type: catalog.ClusterIP, Ports: []catalog.Port{{Name: "http", Protocol: catalog.TCP, Port: 80, Target: "80"}}})
				ap := eps[0].addr()
				tx.PutEndpoints(web, []catalog.Endpoint{{Addr: ap.Addr(), Ports: []catalog.EndpointPort{{Name: "http", Protocol: catalog.TCP, Port: ap.Port()}}, Ready: true, Serving: true, Weight: 100}})
			}
			tx.SetFreshness(f)
		})
		after := r.cat.Snapshot()
		if err := e.Apply(t.Context(), catalog.Batch{Snapshot: after, Changes: []catalog.Change{{Key: web, Old: before.Get(web), New: after.Get(web)}}}); err != nil {
			t.Fatal(err)
		}
	}
	apply(catalog.Freshness{StaleSince: time.Now()})
	if ok, why := e.Ready(); ok || why == "" {
		t.Error("ready without knowing any service")
	}
	apply(catalog.Freshness{StaleSince: time.Now()}, ep)
	if ok, why := e.Ready(); !ok {
		t.Errorf("not ready with a kept catalog: %s", why)
	}
	if x := e.Explain(Question{Host: "a"}); len(x.Backends) != 1 || len(x.Backends[0].Endpoints) != 1 {
		t.Errorf("%+v", x)
	}
}
