package kube

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fingerpost/fingerpost/catalog"
)

// handOver makes a catalog with the content of another, as a process does that
// starts with the snapshot of the last.
func handOver(s *catalog.Snapshot) *catalog.Catalog {
	c := catalog.New(nil)
	c.Update(func(t *catalog.Txn) {
		for e := range s.All() {
			copied := *e.Service
			t.PutService(&copied)
			t.PutEndpoints(copied.Key, slices.Clone(e.Endpoints))
		}
		for n := range s.Namespaces() {
			t.PutNamespace(n)
		}
		t.SetFreshness(catalog.Freshness{StaleSince: time.Now()})
	})
	return c
}

// second runs another door with a catalog of its own.
func second(t *testing.T, f *fakeAPI, c *catalog.Catalog) (*Door, func()) {
	t.Helper()
	d, err := New(Config{Rest: f.config(), Catalog: c, Log: slog.New(slog.NewTextHandler(testWriter{t}, nil))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- d.Run(ctx) }()
	return d, func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestKeptCatalogIsBroughtUpToDateByDifferences(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeAPI, start func(Config) (*catalog.Catalog, *Door)) {
		other, gone := svc("other"), svc("gone")
		out := inst("i1", false) // its slice lists it as ready: only the Instance has it out
		f.put(space("default"), space("left"), svc("web"), slc("web-1", "web", ep("10.0.0.1", true, "Instance", "i1"), ep("10.0.0.2", true)), out,
			other, slc("other-1", "other", ep("10.0.0.3", true)), gone, slc("gone-1", "gone", ep("10.0.0.4", true)))
		first, d1 := start(Config{})
		synctest.Wait()
		time.Sleep(time.Minute)
		f.put(slc("other-1", "other", ep("10.0.0.3", false))) // dated by when it was seen
		synctest.Wait()
		if !isClosed(d1.Synced()) || first.Snapshot().Get(catalog.Key{Namespace: "default", Name: "other"}).Endpoints[0].Health.Since.IsZero() {
			t.Fatal("the first run")
		}
		c := handOver(first.Snapshot())
		sub := c.Subscribe()
		defer sub.Close()
		sub.TryNext()

		// The server is away, and changes meanwhile.
		f.set(func(f *fakeAPI) { f.down = true })
		d, stop := second(t, f, c)
		defer stop()
		time.Sleep(time.Minute)
		synctest.Wait()
		if b := sub.TryNext(); len(b.Changes)+len(b.Namespaces) > 0 || b.Snapshot.Freshness().Synced || !b.Snapshot.Freshness().Stale() {
			t.Fatalf("with the server away: %+v, %+v", b, b.Snapshot.Freshness())
		}
		f.set(func(f *fakeAPI) { f.down = false })
		f.delete(gone)
		f.delete(slc("gone-1", "gone"))
		f.delete(space("left"))
		f.put(slc("web-1", "web", ep("10.0.0.1", true, "Instance", "i1"), ep("10.0.0.5", true)))
		time.Sleep(time.Minute)
		synctest.Wait()
		if !isClosed(d.Synced()) {
			t.Fatal("not synced")
		}
		b := sub.TryNext()
		seen := map[string]bool{}
		for _, ch := range b.Changes {
			seen[ch.Key.Name] = ch.New != nil
		}
		if len(seen) != 2 || !seen["web"] || seen["gone"] || len(b.Namespaces) != 1 || b.Namespaces[0].Name != "left" {
			t.Errorf("changes: %v %v, want web changed, gone gone, and the namespace left", seen, b.Namespaces)
		}
		if fresh := b.Snapshot.Freshness(); !fresh.Synced || fresh.Stale() {
			t.Errorf("%+v", fresh)
		}
		compare(t, f, b.Snapshot)

		// From here on it is a catalog like any other.
		f.delete(other)
		f.put(svc("new"))
		synctest.Wait()
		compare(t, f, c.Snapshot())
		if got, want := c.Snapshot().Get(web).Endpoints, first.Snapshot().Get(web).Endpoints; !slices.EqualFunc(got, want, func(a, b catalog.Endpoint) bool { return a.Addr == b.Addr && a.Ready == b.Ready }) {
			t.Errorf("%+v\n-- not\n%+v", got, want)
		}
	})
}

// TestKeptCatalogShowsNothingInBetween: no reader sees the out endpoint in, or
// a service without endpoints, while the first lists come.
func TestKeptCatalogShowsNothingInBetween(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeAPI, start func(Config) (*catalog.Catalog, *Door)) {
		f.put(space("default"), svc("web"), slc("web-1", "web", ep("10.0.0.1", true, "Instance", "i1")), inst("i1", false))
		first, _ := start(Config{})
		synctest.Wait()
		c := handOver(first.Snapshot())
		before := c.Snapshot().Revision()
		_, stop := second(t, f, c)
		defer stop()
		synctest.Wait()
		// One revision: that it is synced.
		if after := c.Snapshot(); after.Revision() != before+1 || !after.Freshness().Synced {
			t.Errorf("%d revisions, %+v", after.Revision()-before, after.Freshness())
		}
	})
}

// TestKeptCatalogDoesNotStandForEver: something that cannot be read must not
// keep services and endpoints as they were in the last run.
func TestKeptCatalogDoesNotStandForEver(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeAPI, start func(Config) (*catalog.Catalog, *Door)) {
		f.put(space("default"), svc("web"), slc("web-1", "web", ep("10.0.0.1", true)), svc("gone"))
		first, _ := start(Config{})
		synctest.Wait()
		c := handOver(first.Snapshot())
		f.set(func(f *fakeAPI) { f.hidden["namespaces"] = http.StatusInternalServerError })
		f.delete(svc("gone"))
		f.put(slc("web-1", "web", ep("10.0.0.2", true)))
		d, stop := second(t, f, c)
		defer stop()
		time.Sleep(keptPatience - time.Second)
		synctest.Wait()
		if got := c.Snapshot().Get(web).Endpoints[0].Addr; got != netip.MustParseAddr("10.0.0.1") {
			t.Errorf("at first: %v", got)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		s := c.Snapshot()
		if got := s.Get(web).Endpoints[0].Addr; got != netip.MustParseAddr("10.0.0.2") || s.Get(catalog.Key{Namespace: "default", Name: "gone"}) != nil || s.Freshness().Synced || !s.HasNamespace("default") {
			t.Errorf("then: %v, %+v", got, s.Freshness())
		}
		f.set(func(f *fakeAPI) { delete(f.hidden, "namespaces") })
		f.delete(space("default"))
		time.Sleep(time.Minute)
		synctest.Wait()
		if s := c.Snapshot(); !isClosed(d.Synced()) || s.HasNamespace("default") {
			t.Errorf("at last: %+v", s.Freshness())
		}
	})
}

// BenchmarkKept measures what a start from the state of an earlier run keeps
// alive, beside BenchmarkMemory: the same, or nothing is shared.
func BenchmarkKept(b *testing.B) {
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		c := catalog.New(nil)
		fill(c, newState(false, time.Now), 10000, 10, true)
		c = handOver(c.Snapshot())
		d := &Door{cfg: Config{Catalog: c}}
		st := newState(false, time.Now)
		st.kept = newKept(c, time.Now)
		fill(st.kept.beside, st, 10000, 10, true)
		st.fresh.Synced = true
		began := time.Now()
		d.update(st, func(*catalog.Txn) {})
		b.ReportMetric(float64(time.Since(began).Milliseconds()), "ms/show")
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/(1<<20), "MiB")
		runtime.KeepAlive(c)
		runtime.KeepAlive(st)
	}
}
