package catalog

import (
	"sync"
	"sync/atomic"
	"time"
)

// Catalog holds the current snapshot. Readers never wait; writers wait for
// each other only.
type Catalog struct {
	now     func() time.Time
	current atomic.Pointer[Snapshot]

	mu   sync.Mutex // one writer; guards subs
	subs map[*Subscription]struct{}
}

// New makes an empty catalog that is not synced. The clock is passed in so
// that tests own time; nil means time.Now.
func New(now func() time.Time) *Catalog {
	if now == nil {
		now = time.Now
	}
	c := &Catalog{now: now, subs: map[*Subscription]struct{}{}}
	c.current.Store(&Snapshot{})
	return c
}

// Snapshot gives the current state. It takes no lock.
func (c *Catalog) Snapshot() *Snapshot { return c.current.Load() }

// Txn collects the changes of one Update. It is valid inside the function
// given to Update only.
type Txn struct {
	snap    Snapshot
	now     time.Time
	changed map[Key]*Entry   // the entry before this Txn, nil if there was none
	again   map[Key]struct{} // keys put more than once: they may be back where they were
	spaces  map[string]bool  // namespace -> existed before this Txn
}

// Update runs f and publishes what it changed as one new revision. If nothing
// changed in effect there is no new revision and nobody is told; if f panics,
// nothing is published. f must not call Update.
func (c *Catalog) Update(f func(*Txn)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.current.Load()
	t := Txn{snap: *old, now: c.now(), changed: map[Key]*Entry{}, spaces: map[string]bool{}}
	t.snap.revision++
	f(&t)
	t.settle()
	if len(t.changed) == 0 && len(t.spaces) == 0 && t.snap.fresh.Equal(old.fresh) {
		return
	}
	// A copy, so that the snapshot does not keep the Txn and the entries
	// before it alive, and a Txn that leaked out of f cannot change it.
	snap := new(Snapshot)
	*snap = t.snap
	c.current.Store(snap)
	d := t.delta(old, snap)
	for s := range c.subs {
		s.push(&d)
	}
}

// settle puts the entry from before the Txn back where the Txn changed one to
// and fro.
func (t *Txn) settle() {
	for k := range t.again {
		old, next := t.changed[k], t.entry(k)
		if !old.equal(next) {
			continue
		}
		delete(t.changed, k)
		if old != nil {
			t.snap.entries = t.snap.entries.put(k, old)
		}
	}
}

// delta is what one Update tells every subscriber.
type delta struct {
	snap    *Snapshot
	at      time.Time
	keys    []keyDelta
	spaces  []string
	visible bool // readers of the snapshot can tell it from the one before
}

type keyDelta struct {
	key  Key
	gone bool // not in the snapshot any more
}

func (t *Txn) delta(old, snap *Snapshot) delta {
	d := delta{snap: snap, at: t.now, keys: make([]keyDelta, 0, len(t.changed))}
	for k, before := range t.changed {
		// Endpoints that wait for their service are nobody's business yet.
		if gone := snap.Get(k) == nil; !gone || before.visible() {
			d.keys = append(d.keys, keyDelta{k, gone})
		}
	}
	for n := range t.spaces {
		d.spaces = append(d.spaces, n)
	}
	d.visible = len(d.keys) > 0 || len(d.spaces) > 0 || !snap.fresh.Equal(old.fresh)
	return d
}

// PutService adds or replaces a service. The catalog owns s from here on.
func (t *Txn) PutService(s *Service) {
	old := t.entry(s.Key)
	if old != nil && old.Service.Equal(s) {
		return
	}
	next := &Entry{Service: s}
	if old != nil {
		next.Endpoints = old.Endpoints
	}
	t.put(s.Key, old, next)
}

// DeleteService removes a service. Its endpoints stay, invisible, until they
// are removed too or the service comes back.
func (t *Txn) DeleteService(k Key) {
	old := t.entry(k)
	if old == nil || old.Service == nil {
		return
	}
	t.put(k, old, &Entry{Endpoints: old.Endpoints})
}

// PutEndpoints replaces all endpoints of a service. The catalog owns eps from
// here on. No endpoints: nil. The order counts: the same endpoints in another
// order are a change, so a door keeps a stable one.
func (t *Txn) PutEndpoints(k Key, eps []Endpoint) {
	old := t.entry(k)
	if old == nil && len(eps) == 0 || old != nil && endpointsEqual(old.Endpoints, eps) {
		return
	}
	next := &Entry{Endpoints: eps}
	if old != nil {
		next.Service = old.Service
	}
	t.put(k, old, next)
}

// PutNamespace makes a namespace known.
func (t *Txn) PutNamespace(name string) {
	if !t.snap.HasNamespace(name) {
		t.noteNamespace(name, false)
		t.snap.namespaces = t.snap.namespaces.put(name, struct{}{})
	}
}

// DeleteNamespace forgets a namespace; services in it are not touched.
func (t *Txn) DeleteNamespace(name string) {
	if t.snap.HasNamespace(name) {
		t.noteNamespace(name, true)
		t.snap.namespaces = t.snap.namespaces.del(name)
	}
}

// SetFreshness says whether the source has been read completely and whether
// it is there now.
func (t *Txn) SetFreshness(f Freshness) {
	t.snap.fresh = f
}

// Entry gives the entry as it stands inside the transaction, nil if none. An
// entry without Service holds endpoints that wait for it.
func (t *Txn) Entry(k Key) *Entry { return t.entry(k) }

func (t *Txn) entry(k Key) *Entry {
	e, _ := t.snap.entries.get(k)
	return e
}

func (t *Txn) noteNamespace(name string, existed bool) {
	if before, ok := t.spaces[name]; ok && before != existed {
		delete(t.spaces, name) // back to where it was
		return
	}
	t.spaces[name] = existed
}

func (t *Txn) put(k Key, old, next *Entry) {
	if _, seen := t.changed[k]; !seen {
		t.changed[k] = old
	} else {
		if t.again == nil {
			t.again = map[Key]struct{}{}
		}
		t.again[k] = struct{}{}
	}
	t.count(old, -1)
	t.count(next, +1)
	if next.Service == nil && len(next.Endpoints) == 0 {
		t.snap.entries = t.snap.entries.del(k)
		return
	}
	next.Revision, next.Changed = t.snap.revision, t.now
	t.snap.entries = t.snap.entries.put(k, next)
}

func (t *Txn) count(e *Entry, by int) {
	if e != nil && e.Service != nil {
		t.snap.services += by
		t.snap.endpoints += by * len(e.Endpoints)
	}
}
