package catalog

import (
	"iter"
	"time"
)

// Entry is a service with its endpoints at one revision.
type Entry struct {
	Service   *Service
	Endpoints []Endpoint
	Revision  uint64    // the catalog revision in which this entry last changed
	Changed   time.Time // when that was
}

// visible says whether readers see the entry: it has a service.
func (e *Entry) visible() bool { return e != nil && e.Service != nil }

// equal says whether two entries hold the same, whenever they were made.
func (e *Entry) equal(o *Entry) bool {
	if e == nil || o == nil {
		return e == o
	}
	return e.Service.Equal(o.Service) && endpointsEqual(e.Endpoints, o.Endpoints)
}

// Freshness says how far the catalog can be believed.
type Freshness struct {
	// Synced: the door has seen everything there was once. Before that an
	// unknown name may exist, so DNS answers SERVFAIL instead of NXDOMAIN.
	Synced bool
	// StaleSince: when the door lost its source; zero while it has it.
	StaleSince time.Time
}

// Equal says whether two say the same.
func (f Freshness) Equal(o Freshness) bool {
	return f.Synced == o.Synced && f.StaleSince.Equal(o.StaleSince)
}

// Stale says whether the source is gone.
func (f Freshness) Stale() bool { return !f.StaleSince.IsZero() }

// Snapshot is the catalog at one revision. It is immutable.
type Snapshot struct {
	revision   uint64
	entries    trie[Key, *Entry] // Service nil: endpoints that wait for their service
	namespaces trie[string, struct{}]
	services   int
	endpoints  int
	fresh      Freshness
}

// Revision grows by one with each change.
func (s *Snapshot) Revision() uint64 { return s.revision }

// Freshness says whether the snapshot is complete and current.
func (s *Snapshot) Freshness() Freshness { return s.fresh }

// Len counts the services and the endpoints of known services (ready or not).
func (s *Snapshot) Len() (services, endpoints int) { return s.services, s.endpoints }

// Get gives the entry of a service, nil if there is none.
func (s *Snapshot) Get(k Key) *Entry {
	if e, _ := s.entries.get(k); e.visible() {
		return e
	}
	return nil
}

// All yields every service's entry, in no order.
func (s *Snapshot) All() iter.Seq[*Entry] {
	return func(yield func(*Entry) bool) {
		for _, e := range s.entries.all() {
			if e.visible() && !yield(e) {
				return
			}
		}
	}
}

// HasNamespace says whether a namespace exists, with or without services.
func (s *Snapshot) HasNamespace(name string) bool {
	_, ok := s.namespaces.get(name)
	return ok
}

// Namespaces yields every namespace's name, in no order.
func (s *Snapshot) Namespaces() iter.Seq[string] {
	return func(yield func(string) bool) {
		for n := range s.namespaces.all() {
			if !yield(n) {
				return
			}
		}
	}
}
