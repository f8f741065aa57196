package kube

import (
	"sync"
	"time"

	"github.com/fingerpost/fingerpost/catalog"
)

// kind is what a source reads.
type kind string

const (
	services   kind = "services"
	slicesKind kind = "endpointslices"
	namespaces kind = "namespaces"
	instances  kind = "instances"
	pods       kind = "pods"
	freshness  kind = "freshness" // the liveness monitor's word, not an object
)

// verb is what happened.
type verb string

const (
	put     verb = "put"
	del     verb = "delete"
	replace verb = "replace" // a complete list
	forget  verb = "forget"  // the source cannot be read here: do as if it never was
)

// event is one change on its way from a source to the state. Objects in it
// are lean already.
type event struct {
	kind kind
	verb verb
	key  catalog.Key // del
	obj  any         // put
	list []any       // replace
	at   time.Time   // when it was received; for freshness: stale since
}

// queue collects events while the state is busy: a single one is applied at
// once, a burst in few revisions.
type queue struct {
	wake   chan struct{}
	mu     sync.Mutex
	events []event
}

func (q *queue) push(e event) {
	q.mu.Lock()
	q.events = append(q.events, e)
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *queue) take(limit int) []event {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := min(len(q.events), limit)
	out := q.events[:n:n]
	if q.events = q.events[n:]; len(q.events) == 0 {
		q.events = nil
	}
	return out
}
