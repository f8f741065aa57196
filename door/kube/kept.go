package kube

import (
	"slices"
	"time"

	"github.com/fingerpost/fingerpost/catalog"
)

// keptPatience is how long a catalog that was filled before the door started
// stands while services and slices have been read but something else has not.
const keptPatience = 5 * time.Second

// kept is what a catalog held before the door started: the state of an earlier
// run. It stands until the server has been read, and is then brought up to
// date by its differences; what the first lists say one after the other goes
// to a catalog beside it, so that nobody sees an endpoint change and change
// back, or vanish until its slice has been read.
type kept struct {
	before  *catalog.Snapshot
	beside  *catalog.Catalog
	patient *time.Timer
	counted bool // the timer runs
	shown   bool // changes go to the catalog itself; something is still unread
}

// newKept is nil for an empty catalog.
func newKept(c *catalog.Catalog, now func() time.Time) *kept {
	s := c.Snapshot()
	if n, _ := s.Len(); n == 0 {
		return nil
	}
	k := &kept{before: s, beside: catalog.New(now), patient: time.NewTimer(time.Hour)}
	k.patient.Stop()
	return k
}

// expired is ready when the old state has stood for long enough.
func (k *kept) expired() <-chan time.Time {
	if k == nil {
		return nil
	}
	return k.patient.C
}

// update changes the catalog, or the one beside it while the old state stands.
func (d *Door) update(st *state, f func(*catalog.Txn)) {
	k := st.kept
	switch {
	case k == nil:
		d.cfg.Catalog.Update(f)
	case k.shown:
		d.cfg.Catalog.Update(func(t *catalog.Txn) {
			f(t)
			if st.fresh.Synced {
				st.prune(t)
			}
		})
	default:
		k.beside.Update(f)
		switch {
		case st.fresh.Synced:
			d.show(st)
		case !k.counted && !st.awaits[services] && !st.awaits[slicesKind]:
			k.counted = true
			k.patient.Reset(keptPatience)
		}
	}
	if k != nil && st.fresh.Synced {
		k.patient.Stop()
		st.kept = nil
	}
}

// show brings the catalog to what the server said, by differences.
func (d *Door) show(st *state) {
	st.kept.shown = true
	st.kept.beside.Update(func(from *catalog.Txn) {
		d.cfg.Catalog.Update(func(t *catalog.Txn) {
			for k, svc := range st.services {
				e := from.Entry(k)
				if e == nil {
					continue
				}
				if e.Service != nil {
					t.PutService(e.Service)
				}
				t.PutEndpoints(k, e.Endpoints)
				svc.share(t.Entry(k))
			}
			for n := range st.spaces {
				t.PutNamespace(n)
			}
			st.prune(t)
			t.SetFreshness(st.fresh)
		})
	})
}

// share makes the door's own list of endpoints that of the catalog where the
// catalog kept an older, equal one, so that it is in memory once.
func (svc *service) share(e *catalog.Entry) {
	if e == nil || len(svc.slices) != 1 {
		return
	}
	if s := svc.slices[0]; slices.EqualFunc(s.eps, e.Endpoints, func(a, b catalog.Endpoint) bool { return a.Equal(&b) }) {
		s.eps = e.Endpoints
	}
}

// prune removes what only the old state knew. Of what has not been read yet
// everything may still be there.
func (st *state) prune(t *catalog.Txn) {
	for e := range st.kept.before.All() {
		k := e.Service.Key
		svc := st.services[k]
		if !st.awaits[services] && (svc == nil || !svc.known) {
			t.DeleteService(k)
		}
		if !st.awaits[slicesKind] && (svc == nil || len(svc.slices) == 0) {
			t.PutEndpoints(k, nil)
		}
	}
	if st.awaits[namespaces] {
		return
	}
	for n := range st.kept.before.Namespaces() {
		if _, ok := st.spaces[n]; !ok {
			t.DeleteNamespace(n)
		}
	}
}

// entry is a service as it was last shown.
func (st *state) entry(t *catalog.Txn, k catalog.Key) *catalog.Entry {
	if st.kept != nil && !st.kept.shown {
		return st.kept.before.Get(k)
	}
	return t.Entry(k)
}

// remember dates a state that nobody dated as the old state did.
func (st *state) remember(k catalog.Key, ep *catalog.Endpoint) {
	if st.kept == nil || !ep.Health.Since.IsZero() {
		return
	}
	if e := st.kept.before.Get(k); e != nil {
		for i := range e.Endpoints {
			if old := &e.Endpoints[i]; sameEndpoint(old, ep) && old.Health.State == ep.Health.State && old.Health.By == ep.Health.By {
				ep.Health.Since = old.Health.Since
				return
			}
		}
	}
}
