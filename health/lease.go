package health

import (
	"fmt"
	"hash/maphash"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// LeaseConfig tunes Leases; zero values mean the defaults.
type LeaseConfig struct {
	Share       float64       // part of a group that makes a mass expiry when more is out; 0.15
	MinOut      int           // but never fewer than this many; 3
	MinGroup    int           // and never in a group with fewer members; 10
	HoldFor     time.Duration // the longest a lease is held; 10 minutes
	Granularity time.Duration // how late Next may be; 50 ms
	Shards      int           // rounded up to a power of two; 64
}

func (c LeaseConfig) withDefaults() LeaseConfig {
	if c.Share <= 0 {
		c.Share = 0.15
	}
	if c.MinOut <= 0 {
		c.MinOut = 3
	}
	if c.MinGroup <= 0 {
		c.MinGroup = 10
	}
	if c.HoldFor <= 0 {
		c.HoldFor = 10 * time.Minute
	}
	if c.Granularity <= 0 {
		c.Granularity = 50 * time.Millisecond
	}
	if c.Shards <= 0 {
		c.Shards = 64
	}
	return c
}

// Renewal is the answer to a heartbeat.
type Renewal int

// The answers. Unknown asks for a Put.
const (
	Unknown  Renewal = iota // there is no such lease
	Renewed                 // good for another TTL
	Returned                // the same, and it had expired or was held: Expire will tell it as Revived
)

// Kind says what happened to a lease.
type Kind int

// The kinds of transitions.
const (
	WentOut  Kind = iota // it expired
	WentHeld             // it ran out together with many others and is held
	Revived              // it was out or held and was renewed
)

// State gives the state that goes with the kind.
func (k Kind) State() State {
	return [...]State{WentOut: Expired, WentHeld: Stale, Revived: Passing}[k]
}

func (k Kind) String() string {
	return [...]string{WentOut: "expired", WentHeld: "held", Revived: "revived"}[k]
}

// Transition is one change of one lease.
type Transition struct {
	Key     string
	Group   string
	Service string
	Kind    Kind
	At      time.Time // when: the deadline that passed, the end of the hold, the renewal
	Last    time.Time // the last heartbeat, or the Put
	TTL     time.Duration
}

// Reason tells a person why; empty for Revived.
func (t Transition) Reason() string {
	switch silence := t.At.Sub(t.Last).Round(time.Millisecond); t.Kind {
	case WentOut:
		return fmt.Sprintf("no heartbeat for %s", silence)
	case WentHeld:
		return fmt.Sprintf("no heartbeat for %s, like many others: kept until it is clear why", silence)
	default:
		return ""
	}
}

// Status is what Get tells about a lease.
type Status struct {
	State    State // Passing, Expired or Stale
	Since    time.Time
	Last     time.Time // last heartbeat
	Deadline time.Time
}

// Leases is a table of leases. It is safe for concurrent use.
type Leases struct {
	cfg    LeaseConfig
	base   time.Time // all times inside are nanoseconds after it: one monotonic clock
	seed   maphash.Seed
	shards []shard
	wake   chan struct{}
	next   atomic.Int64 // what Next last said, to know when it must be said anew

	expiring sync.Mutex // one Expire at a time

	mu       sync.Mutex // guards the two maps and refs
	groups   map[string]*group
	services map[string]*service
}

// group and service count their leases; the counts change under the lock of
// the lease's shard, of which there are many.
type group struct {
	name string
	refs int
	size atomic.Int64 // members
	out  atomic.Int64 // members that are out
}

type service struct {
	name  string
	refs  int
	alive atomic.Int64 // leases that have not run out
}

// NewLeases makes an empty table. now is any reading of the clock that the
// other calls use.
func NewLeases(cfg LeaseConfig, now time.Time) *Leases {
	cfg = cfg.withDefaults()
	n := 1
	for n < cfg.Shards {
		n *= 2
	}
	ls := &Leases{
		cfg: cfg, base: now, seed: maphash.MakeSeed(), shards: make([]shard, n), wake: make(chan struct{}, 1),
		groups: map[string]*group{}, services: map[string]*service{},
	}
	ls.next.Store(math.MaxInt64)
	for i := range ls.shards {
		ls.shards[i].leases = map[string]*lease{}
	}
	return ls
}

func (ls *Leases) shard(key string) *shard {
	return &ls.shards[maphash.String(ls.seed, key)&uint64(len(ls.shards)-1)]
}

func (ls *Leases) ns(t time.Time) int64 { return int64(t.Sub(ls.base)) }

func (ls *Leases) time(ns int64) time.Time { return ls.base.Add(time.Duration(ns)) }

// Put adds a lease or replaces one, and counts as a heartbeat. The group is
// what the guard judges together; the service is what it does not empty.
func (ls *Leases) Put(key, groupName, serviceName string, ttl time.Duration, now time.Time) {
	g, sv := ls.names(groupName, serviceName)
	s := ls.shard(key)
	t := ls.ns(now)
	ttl = max(ttl, time.Millisecond)

	s.mu.Lock()
	l := s.leases[key]
	fresh := l == nil
	var oldGroup *group
	var oldService *service
	if fresh {
		l = &lease{key: key, group: g, service: sv, ttl: int64(ttl), last: t, index: -1}
		s.leases[key] = l
		l.account(true, false, true)
	} else {
		oldGroup, oldService = l.group, l.service
		if l.ttl != int64(ttl) {
			l.late = false
		}
		s.renew(l, t)
		l.account(false, false, false)
		l.group, l.service, l.ttl = g, sv, int64(ttl)
		l.account(true, false, true)
	}
	s.queue.move(l, l.silentAt())
	due, revived := l.due, len(s.revived) > 0
	s.mu.Unlock()

	if !fresh {
		ls.release(oldGroup, oldService)
	}
	if revived || due < ls.next.Load() {
		ls.poke()
	}
}

// Renew is a heartbeat.
func (ls *Leases) Renew(key string, now time.Time) Renewal {
	t := ls.ns(now)
	s := ls.shard(key)
	s.mu.Lock()
	l := s.leases[key]
	if l == nil {
		s.mu.Unlock()
		return Unknown
	}
	r := s.renew(l, t)
	s.mu.Unlock()
	if r == Returned {
		ls.poke()
	}
	return r
}

// Remove ends a lease without telling it; it says whether there was one. An
// Expire that runs at the same time may still tell something of it.
func (ls *Leases) Remove(key string) bool {
	s := ls.shard(key)
	s.mu.Lock()
	l := s.leases[key]
	if l != nil {
		delete(s.leases, key)
		l.state = removed
		l.account(false, false, false)
		s.queue.remove(l)
	}
	s.mu.Unlock()
	if l == nil {
		return false
	}
	ls.release(l.group, l.service)
	return true
}

// Get tells how a lease is.
func (ls *Leases) Get(key string) (Status, bool) {
	s := ls.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.leases[key]
	if l == nil {
		return Status{}, false
	}
	st := Status{State: Passing, Since: ls.time(l.since), Last: ls.time(l.last), Deadline: ls.time(l.last + l.ttl)}
	switch l.state {
	case held:
		st.State = Stale
	case expired:
		st.State = Expired
	}
	return st, true
}

// Len counts the leases, expired ones too.
func (ls *Leases) Len() int {
	n := 0
	for i := range ls.shards {
		s := &ls.shards[i]
		s.mu.Lock()
		n += len(s.leases)
		s.mu.Unlock()
	}
	return n
}

// Next says when to call Expire: at most Granularity after something is due.
// It is in the past when something is due now, and zero when nothing will be.
func (ls *Leases) Next() time.Time {
	ls.next.Store(math.MaxInt64) // a Put while this looks around must wake
	next := int64(math.MaxInt64)
	for i := range ls.shards {
		s := &ls.shards[i]
		s.mu.Lock()
		if len(s.revived) > 0 {
			next = math.MinInt64
		} else if len(s.queue) > 0 {
			next = min(next, s.queue[0].due)
		}
		s.mu.Unlock()
	}
	ls.next.Store(next)
	switch next {
	case math.MaxInt64:
		return time.Time{}
	case math.MinInt64:
		return ls.base
	}
	if g := int64(ls.cfg.Granularity); next > 0 {
		next = (next + g - 1) / g * g
	}
	return ls.time(next)
}

// Wake is ready when Next may say an earlier time than it last did.
func (ls *Leases) Wake() <-chan struct{} { return ls.wake }

func (ls *Leases) poke() {
	select {
	case ls.wake <- struct{}{}:
	default:
	}
}

// names finds or makes the counters of a group and a service.
func (ls *Leases) names(groupName, serviceName string) (*group, *service) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	g := ls.groups[groupName]
	if g == nil {
		g = &group{name: groupName}
		ls.groups[groupName] = g
	}
	sv := ls.services[serviceName]
	if sv == nil {
		sv = &service{name: serviceName}
		ls.services[serviceName] = sv
	}
	g.refs++
	sv.refs++
	return g, sv
}

func (ls *Leases) release(g *group, sv *service) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if g.refs--; g.refs == 0 {
		delete(ls.groups, g.name)
	}
	if sv.refs--; sv.refs == 0 {
		delete(ls.services, sv.name)
	}
}

// sortTransitions orders by key, and keeps the order of one key's.
func sortTransitions(ts []Transition) {
	slices.SortStableFunc(ts, func(a, b Transition) int { return strings.Compare(a.Key, b.Key) })
}
