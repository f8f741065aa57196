package gateway

import (
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/fingerpost/fingerpost/view/gateway/cluster"
	"github.com/fingerpost/fingerpost/view/gateway/filter"
	"github.com/fingerpost/fingerpost/view/gateway/observe"
	"github.com/fingerpost/fingerpost/view/gateway/route"
)

// lazy is a rule that is made ready when a request needs it: most rules of a
// large table never see one, and each needs chains, clusters and counters.
type lazy struct {
	e    *Engine
	host *route.Host
	rule *route.Rule
	made atomic.Pointer[target]
}

// compile is for the table: see [lazy].
func (e *Engine) compile(h *route.Host, r *route.Rule) any { return &lazy{e: e, host: h, rule: r} }

// target makes the rule ready, if nobody did.
func (l *lazy) target() *target {
	if t := l.made.Load(); t != nil {
		return t
	}
	l.made.CompareAndSwap(nil, l.e.prepare(l.host, l.rule))
	return l.made.Load()
}

// of is target for a request that found the rule in a state that may be an old
// one by now: then nobody may need the clusters any more.
func (l *lazy) of(s *state) *target {
	if t := l.made.Load(); t != nil {
		return t
	}
	t := l.target()
	if e := l.e; e.state.Load() != s {
		e.mu.Lock()
		e.stale = true
		e.mu.Unlock()
	}
	return t
}

// target is a rule, ready for requests.
type target struct {
	rule     *route.Rule
	chain    *filter.Chain
	problem  string // why it cannot serve; "": it can
	slow     bool   // its filters may wait, or think for long
	primary  place
	canaries []place
	// errors answers for statuses of CustomErrors and for a missing endpoint.
	errors   *cluster.Cluster
	counters *observe.Route
}

// place is backends with the policy for them.
type place struct {
	clusters []share
	total    uint32
	policy   *route.Policy

	connect, read, send time.Duration
	body                int64 // limit, -1: none
	tries               int
	counters            *observe.Route // of a canary
}

// share is a backend's part of the requests.
type share struct {
	cluster *cluster.Cluster
	upTo    uint32 // of total
}

// prepare makes the target of a rule.
func (e *Engine) prepare(h *route.Host, r *route.Rule) *target {
	t := &target{rule: r, problem: r.Problem, slow: r.Policy.Auth != nil || r.Policy.Basic != nil, counters: e.counters(h, r.Origin, r.Backends, false)}
	chain, err := e.filters.Compile(h, r)
	if err != nil {
		t.problem = err.Error() // the log has it from check
		return t
	}
	t.chain = chain
	if t.primary, err = e.place(r.Backends, r.Policy); err != nil && t.problem == "" {
		t.problem = err.Error()
	}
	for i := range r.Canaries {
		c := &r.Canaries[i]
		p := c.Policy
		if p == nil {
			p = r.Policy
		}
		at, err := e.place(c.Backends, p)
		if err != nil && t.problem == "" {
			t.problem = err.Error()
		}
		at.counters = e.counters(h, c.Origin, c.Backends, true)
		t.canaries = append(t.canaries, at)
	}
	if r.Policy.Errors != nil {
		if k, err := cluster.KeyOf(r.Policy.Errors, &route.Policy{}); err == nil {
			t.errors = e.clusters.Get(k)
		}
	}
	return t
}

func (e *Engine) place(backends []route.Backend, p *route.Policy) (place, error) {
	or := func(a, b time.Duration) time.Duration {
		if a > 0 {
			return a
		}
		return b
	}
	at := place{
		policy:  p,
		connect: or(p.ConnectTimeout, e.cfg.Timeouts.Connect),
		read:    or(p.ReadTimeout, e.cfg.Timeouts.Read),
		send:    or(p.SendTimeout, e.cfg.Timeouts.Send),
		body:    p.BodyLimit,
		tries:   p.Retry.Tries,
	}
	if at.body == 0 {
		at.body = e.cfg.Limits.Body
	}
	if at.tries <= 0 {
		at.tries = 3
	}
	for i := range backends {
		b := &backends[i]
		weight := b.Weight
		if weight == 0 && len(backends) == 1 {
			weight = 1
		}
		k, err := cluster.KeyOf(b, p)
		if err != nil {
			return at, err
		}
		c := e.clusters.Get(k)
		if weight == 0 {
			continue
		}
		at.total += weight
		at.clusters = append(at.clusters, share{c, at.total})
	}
	return at, nil
}

// choose gives the cluster of one request, by weight; nil: there is none.
func (p *place) choose() *cluster.Cluster {
	switch len(p.clusters) {
	case 0:
		return nil
	case 1:
		return p.clusters[0].cluster
	}
	n := rand.Uint32N(p.total)
	for i := range p.clusters {
		if n < p.clusters[i].upTo {
			return p.clusters[i].cluster
		}
	}
	return p.clusters[len(p.clusters)-1].cluster
}

// retries says that a response with this status is not given to the client if
// there is another endpoint to ask.
func (p *place) retries(status int) bool {
	return len(p.policy.Retry.On) > 0 && slices.Contains(p.policy.Retry.On, status)
}
