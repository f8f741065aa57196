package gateway

import (
	"context"
	"maps"
	"time"

	"github.com/fingerpost/fingerpost/view/gateway/cluster"
	"github.com/fingerpost/fingerpost/view/gateway/route"
)

// meet does what cannot wait for the first request to changed hosts: names
// outside take time to resolve. The rest is for check.
func (e *Engine) meet(u *route.Update) {
	for _, h := range u.Hosts {
		if h == nil {
			continue
		}
		for i := range h.Rules {
			if r := &h.Rules[i]; outside(r) {
				backends(r, func(b *route.Backend, p *route.Policy) { e.resolve(b, p) })
			}
		}
	}
	if u.Global != nil && u.Global.Default != nil {
		e.resolve(u.Global.Default, none)
	}
	if len(u.Hosts) > 0 {
		e.unchecked = append(e.unchecked, u.Hosts)
		select {
		case e.changed <- struct{}{}:
		default:
		}
	}
}

// outside says that a backend of the rule may have a name to be resolved.
func outside(r *route.Rule) bool {
	for i := range r.Backends {
		if r.Backends[i].External != "" {
			return true
		}
	}
	return len(r.Canaries) > 0 || r.Policy != nil && r.Policy.Errors != nil
}

func (e *Engine) resolve(b *route.Backend, p *route.Policy) {
	if b.External == "" {
		return
	}
	if k, err := cluster.KeyOf(b, p); err == nil {
		e.clusters.Get(k)
	}
}

// check tells the log about rules that cannot be served, before somebody asks
// for them.
func (e *Engine) check() {
	e.mu.Lock()
	all := e.unchecked
	e.unchecked = nil
	e.mu.Unlock()
	for _, hosts := range all {
		for _, h := range hosts {
			if h == nil {
				continue
			}
			for i := range h.Rules {
				r := &h.Rules[i]
				if err := e.filters.Check(h, r); err != nil {
					e.log.Warn("a route cannot be served", "kind", r.Origin.Kind, "namespace", r.Origin.Namespace, "name", r.Origin.Name, "err", err)
				}
			}
		}
	}
}

// housekeep lets go of clusters that no route needs. They stay for a while:
// exchanges that began with an old route may still ask for another endpoint.
func (e *Engine) housekeep(ctx context.Context) {
	const every = 10 * time.Second
	t := time.NewTicker(every)
	defer t.Stop()
	pending := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.changed:
			e.check()
			continue
		case <-t.C:
		}
		e.mu.Lock()
		stale := e.stale
		e.stale = false
		e.mu.Unlock()
		if pending && !stale || e.expire(every) {
			e.prune()
		}
		pending = stale
	}
}

// expire forgets clusters of our own requests that were not used for a while.
func (e *Engine) expire(every time.Duration) (any bool) {
	e.asideMu.Lock()
	defer e.asideMu.Unlock()
	now := e.cfg.Now()
	maps.DeleteFunc(e.asides, func(_ cluster.Key, used time.Time) bool {
		old := now.Sub(used) > 30*every
		any = any || old
		return old
	})
	return any
}

// prune keeps the clusters that rules of the table name, whether a request has
// come for these or not.
func (e *Engine) prune() {
	e.mu.Lock()
	defer e.mu.Unlock()
	used := map[cluster.Key]bool{}
	for _, c := range e.clusters.All() {
		used[c.Key()] = false
	}
	use := func(k cluster.Key) {
		if _, there := used[k]; there {
			used[k] = true
		}
	}
	table := e.state.Load().table
	for h := range table.All {
		keys(h, use)
	}
	if g := table.Global(); g != nil && g.Default != nil {
		keys(&route.Host{Rules: []route.Rule{{Backends: []route.Backend{*g.Default}}}}, use)
	}
	e.asideMu.Lock()
	for k := range e.asides {
		used[k] = true
	}
	e.asideMu.Unlock()
	e.clusters.Keep(func(k cluster.Key) bool {
		needed, there := used[k]
		return needed || !there // made meanwhile
	})
}

// none is the policy of backends that have none.
var none = &route.Policy{}

// backends calls use for each backend of a rule that gets its requests.
func backends(r *route.Rule, use func(*route.Backend, *route.Policy)) {
	p := r.Policy
	if p == nil {
		p = none
	}
	for i := range r.Backends {
		use(&r.Backends[i], p)
	}
	for i := range r.Canaries {
		c := &r.Canaries[i]
		of := p
		if c.Policy != nil {
			of = c.Policy
		}
		for j := range c.Backends {
			use(&c.Backends[j], of)
		}
	}
	if p.Errors != nil {
		use(p.Errors, none)
	}
}

// keys gives the clusters that a host's rules need.
func keys(h *route.Host, use func(cluster.Key)) {
	add := func(b *route.Backend, p *route.Policy) {
		if k, err := cluster.KeyOf(b, p); err == nil {
			use(k)
		}
	}
	if h.Passthrough != nil {
		add(h.Passthrough, none)
	}
	for i := range h.Rules {
		r := &h.Rules[i]
		backends(r, add)
		if p := r.Policy; p != nil && p.Auth != nil && p.Auth.Backend != nil {
			add(p.Auth.Backend, none)
			add(p.Auth.Backend, &route.Policy{Protocol: route.HTTPS})
		}
	}
}
