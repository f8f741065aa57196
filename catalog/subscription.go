package catalog

import (
	"context"
	"sync"
	"time"
)

// Change is what happened to one service since the subscriber last heard of
// it. Old nil: it is new to the subscriber. New nil: it is gone.
type Change struct {
	Key Key
	Old *Entry
	New *Entry
}

// NamespaceChange says that a namespace appeared (Exists) or went.
type NamespaceChange struct {
	Name   string
	Exists bool
}

// Batch is everything that changed between two calls of Next. It may be empty
// but for the snapshot when only the freshness changed, or when changes undid
// each other.
type Batch struct {
	Snapshot   *Snapshot
	Changes    []Change // one per service, in no order
	Namespaces []NamespaceChange
	Oldest     time.Time // when the oldest change in the batch was made; zero in the first batch
}

// Subscription is one reader's place in the stream of changes. It is for one
// goroutine.
type Subscription struct {
	c    *Catalog
	wake chan struct{} // capacity 1: something is pending

	mu      sync.Mutex
	pending pending
	given   *Snapshot // what the last Next returned; nil before the first
}

type pending struct {
	snap   *Snapshot
	keys   map[Key]struct{}    // services that may differ from given
	spaces map[string]struct{} // namespaces that differ from given
	oldest time.Time
}

// Subscribe starts a stream. The first Next gives everything there is, as
// changes from nothing.
func (c *Catalog) Subscribe() *Subscription {
	s := &Subscription{c: c, wake: make(chan struct{}, 1)}
	c.mu.Lock()
	defer c.mu.Unlock()
	s.pending.snap = c.current.Load()
	s.wake <- struct{}{}
	c.subs[s] = struct{}{}
	return s
}

// Close ends the stream: nothing is collected for it any more. It may be
// called more than once, and from any goroutine.
func (s *Subscription) Close() {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	delete(s.c.subs, s)
}

// push is called by the writer, under the catalog's lock.
func (s *Subscription) push(d *delta) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending.snap = d.snap
	if !d.visible {
		return
	}
	if s.given != nil { // before the first Next everything is pending anyway
		s.pending.add(d, s.given)
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// add keeps the sets as small as the difference between what the subscriber
// was given and what is: services that come and go unseen leave no trace.
func (p *pending) add(d *delta, given *Snapshot) {
	if p.oldest.IsZero() {
		p.oldest = d.at
	}
	for _, k := range d.keys {
		if k.gone && given.Get(k.key) == nil {
			delete(p.keys, k.key)
			continue
		}
		if p.keys == nil {
			p.keys = make(map[Key]struct{}, len(d.keys))
		}
		p.keys[k.key] = struct{}{}
	}
	for _, n := range d.spaces {
		if given.HasNamespace(n) == d.snap.HasNamespace(n) {
			delete(p.spaces, n)
			continue
		}
		if p.spaces == nil {
			p.spaces = map[string]struct{}{}
		}
		p.spaces[n] = struct{}{}
	}
}

// Wake is ready when Next will not block: for readers that wait for several
// things at once. Receiving from it takes the signal, so call TryNext
// afterwards, not Next.
func (s *Subscription) Wake() <-chan struct{} { return s.wake }

// Next waits for changes and returns all that came since the last call. The
// error is ctx's.
func (s *Subscription) Next(ctx context.Context) (Batch, error) {
	select {
	case <-ctx.Done():
		return Batch{}, ctx.Err()
	case <-s.wake:
		return s.TryNext(), nil
	}
}

// TryNext returns what is pending without waiting; the batch is empty, with
// the current snapshot, when nothing is.
func (s *Subscription) TryNext() Batch {
	s.mu.Lock()
	p, before := s.pending, s.given
	s.pending = pending{snap: p.snap}
	s.given = p.snap
	select {
	case <-s.wake: // else the next Next would return at once, with nothing
	default:
	}
	s.mu.Unlock()

	b := Batch{Snapshot: p.snap, Oldest: p.oldest}
	if before == nil {
		for e := range p.snap.All() {
			b.Changes = append(b.Changes, Change{Key: e.Service.Key, New: e})
		}
		for n := range p.snap.Namespaces() {
			b.Namespaces = append(b.Namespaces, NamespaceChange{Name: n, Exists: true})
		}
		return b
	}
	for k := range p.keys {
		if c := (Change{k, before.Get(k), p.snap.Get(k)}); c.Old != c.New {
			b.Changes = append(b.Changes, c)
		}
	}
	for n := range p.spaces {
		if is := p.snap.HasNamespace(n); is != before.HasNamespace(n) {
			b.Namespaces = append(b.Namespaces, NamespaceChange{Name: n, Exists: is})
		}
	}
	return b
}
