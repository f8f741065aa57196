package cluster

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/fingerpost/fingerpost/balance"
	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/gateway/route"
)

// Cluster is the endpoints of one backend.
type Cluster struct {
	set    *Set
	key    Key
	health *balance.Health
	budget *balance.Budget
	tls    *TLS
	list   atomic.Pointer[list]

	opened, refused, ejections, retries, denied atomic.Uint64

	// barred is since when nobody could be reached, 0: somebody can; queued are the
	// requests that wait for it.
	barred atomic.Int64
	queued atomic.Int32

	mu     sync.Mutex // one change at a time
	closed bool
	name   external
}

// list is what a pick chooses from. It is immutable.
type list struct {
	endpoints []*Endpoint
	group     *balance.Group
	byID      map[string]*Endpoint
	problem   Problem
	from      []candidate
}

// Query is what a pick depends on.
type Query struct {
	// Hash is for clusters with RingHash and Maglev; balance.Hash makes one.
	Hash uint64
	// Sticky is the Endpoint.ID that the client had before; "": none. If it is
	// not there any more another one is given, and its ID is to be told to the
	// client. Persistent keeps it although it is ejected.
	Sticky     string
	Persistent bool
	// Tried are never given again. The last 16 are looked at.
	Tried []*Endpoint
}

func newCluster(s *Set, k Key) *Cluster {
	c := &Cluster{
		set: s, key: k,
		health: balance.NewHealth(s.cfg.Ejection, k.Balance.Algorithm),
		budget: balance.NewBudget(s.cfg.RetryPercent, s.cfg.RetryPerSecond),
	}
	if k.secure() {
		c.tls = &TLS{Endpoint: k.TLS, Protocols: []string{"h2", "http/1.1"}}
		if k.Protocol == route.H2 {
			c.tls.Protocols = c.tls.Protocols[:1]
		}
		if s.cfg.HTTP2 == nil {
			c.tls.Protocols = []string{"http/1.1"}
		}
	}
	c.list.Store(&list{problem: "the cluster is new"})
	return c
}

// Key is what the cluster was made for.
func (c *Cluster) Key() Key { return c.key }

// Problem says why a pick gives nothing; "": it gives something.
func (c *Cluster) Problem() Problem { return c.list.Load().problem }

// Endpoints are those that picks choose from. The slice is not to be changed.
func (c *Cluster) Endpoints() []*Endpoint { return c.list.Load().endpoints }

// maxTried is how many tried endpoints a pick looks at.
const maxTried = 16

// Pick chooses an endpoint for a request. Endpoint.Done must follow.
func (c *Cluster) Pick(q *Query) (*Endpoint, Problem) {
	l := c.list.Load()
	if l.problem != "" {
		return nil, l.problem
	}
	b := balance.Query{Hash: q.Hash, Clock: c.set.clock}
	var tried [maxTried]*balance.Load
	if n := min(len(q.Tried), maxTried); n > 0 {
		for i, e := range q.Tried[len(q.Tried)-n:] {
			tried[i] = &e.load
		}
		b.Tried = tried[:n]
	} else {
		c.budget.Request()
	}
	if q.Sticky != "" {
		if e := c.sticky(l, q); e != nil {
			c.health.Begin(&e.load)
			return e, ""
		}
	}
	i := l.group.Pick(&b)
	if i < 0 {
		return nil, "every endpoint was tried"
	}
	e := l.endpoints[i]
	c.health.Begin(&e.load)
	return e, ""
}

func (c *Cluster) sticky(l *list, q *Query) *Endpoint {
	e := l.byID[q.Sticky]
	if e == nil || !q.Persistent && e.load.Ejected(c.set.now()) != 0 {
		return nil
	}
	for _, t := range q.Tried {
		if t == e {
			return nil
		}
	}
	return e
}

// Retry says whether a request may be sent once more, by the cluster's budget,
// and counts it.
func (c *Cluster) Retry() bool {
	ok := c.budget.Retry(c.set.now())
	if ok {
		c.retries.Add(1)
	} else {
		c.denied.Add(1)
	}
	return ok
}

// follow takes the state of the cluster's service.
func (c *Cluster) follow(e *catalog.Entry, synced bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	found, problem := candidates(e, c.key, c.set.cfg.Node, c.set.cfg.Zone, catalog.TCP)
	if e == nil && !synced {
		problem = "the services are not known yet"
	}
	c.swap(found, problem)
}

// swap puts a new list in place. What is the same endpoint stays the same.
func (c *Cluster) swap(found []candidate, problem Problem) {
	if c.closed {
		return
	}
	old := c.list.Load()
	if old.problem == problem && slices.Equal(old.from, found) {
		return // only what clusters do not look at has changed
	}
	before := make(map[identity]*Endpoint, len(old.endpoints))
	for _, e := range old.endpoints {
		before[e.identity] = e
	}
	next := &list{problem: problem, from: found, byID: make(map[string]*Endpoint, len(found))}
	members := make([]balance.Member, 0, len(found))
	now := c.set.now()
	for _, f := range found {
		e := before[f.identity]
		if e == nil {
			e = newEndpoint(c, f.identity)
			c.barred.Store(0) // it may need a moment, too
			// In a list that is new altogether nobody starts slower than others.
			if len(old.endpoints) > 0 {
				e.since = now
			}
		} else {
			delete(before, f.identity)
		}
		next.endpoints = append(next.endpoints, e)
		next.byID[e.id] = e
		members = append(members, balance.Member{Weight: f.weight, Load: &e.load, Hash: e.hash, Near: f.near, Since: e.since})
	}
	slow := c.key.Balance.SlowStart
	if slow == 0 {
		slow = c.set.cfg.SlowStart
	}
	next.group = balance.NewGroup(members, c.health, balance.Options{
		Algorithm: c.key.Balance.Algorithm,
		Bounded:   c.key.Balance.Bounded,
		Subset:    c.key.Balance.Subset,
		SlowStart: slow,
		// Else every change would send the next request to the first one.
		Start: rand.Uint64(),
	})
	c.list.Store(next)
	for _, e := range before {
		e.remove(true)
	}
}

// close ends following the catalog and keeping connections. Requests that were
// routed here a moment ago still find the endpoints as they were.
func (c *Cluster) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for _, e := range c.list.Load().endpoints {
		e.remove(false)
	}
}

// identity is what makes an endpoint the same one.
type identity struct {
	addr   netip.AddrPort
	target catalog.Ref
}

func (i identity) hash() uint64 {
	return balance.Hash(i.addr.String() + " " + i.target.Kind + " " + i.target.Name)
}

func (i identity) id() string { return strconv.FormatUint(i.hash(), 36) }
