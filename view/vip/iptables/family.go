package iptables

import (
	"fmt"
	"hash/maphash"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/fingerpost/fingerpost/catalog"
)

// family is one of IPv4 and IPv6: what its kernel tables should say.
type family struct {
	tool
	place
	cfg *Config

	ports map[catalog.Key][]*port // what the kernel should do
	refs  [sharedCount]map[string]int

	begun   bool // the kernel has been written once
	wrong   bool // the kernel is known to differ
	retryAt time.Time
	pause   time.Duration

	watch   watch
	seed    maphash.Seed   // of the sums, which are compared within this process only
	sums    map[string]sum // of chains that were compared once
	changed map[string]bool
	checkAt time.Time
	soonest time.Time // of the next comparison
}

// sum is what a chain looked like.
type sum struct {
	rules int
	text  uint64
}

const (
	retryFirst = time.Second
	retryMost  = time.Minute
	// largeDelta is how many rules of shared chains are changed one by one. For
	// more, writing everything is faster.
	largeDelta = 256
)

// newFamily finds the programs and asks the kernel. It changes nothing.
func newFamily(cfg *Config, v6 bool) (*family, error) {
	at := place{
		v6: v6, anyNode: len(cfg.NodeAddresses) == 0, mark: cfg.MasqueradeMark,
		pods: ofFamily(cfg.PodCIDRs, v6), services: ofFamily(cfg.ServiceCIDRs, v6),
	}
	for _, a := range cfg.NodeAddresses {
		if a.Is6() == v6 && !a.IsLoopback() && !slices.Contains(at.nodes, a) {
			at.nodes = append(at.nodes, a)
		}
	}
	tools, err := choose(cfg.Flavour, v6)
	if err != nil {
		return nil, err
	}
	for _, t := range tools {
		f := &family{tool: t, place: at, cfg: cfg, ports: map[catalog.Key][]*port{}, sums: map[string]sum{}, changed: map[string]bool{},
			seed: maphash.MakeSeed(), watch: watch{v6: v6, nft: t.flavour == NFT}}
		if err = t.probe(&f.place); err == nil {
			_, f.refs = collect(f.all())
			return f, nil
		}
	}
	return nil, err
}

func (f *family) name() string {
	if f.tool.v6 {
		return "IPv6"
	}
	return "IPv4"
}

// change is a service's ports before and after.
type change struct {
	service  catalog.Key
	old, now []*port
}

// follow makes the kernel do what changed.
func (f *family) follow(changes []change, now time.Time) error {
	var d delta
	for _, c := range changes {
		if len(c.now) == 0 {
			delete(f.ports, c.service)
		} else {
			f.ports[c.service] = c.now
		}
		if !f.begun || f.wrong {
			continue
		}
		eachPair(c, func(old, now *port) {
			d.add(f.rulesOf(old), f.rulesOf(now))
		})
	}
	if !f.begun || f.wrong || d.size() > largeDelta {
		return f.everything(now)
	}
	d.settle(&f.refs)
	if d.empty() {
		return nil
	}
	if err := f.tool.restore(d.text); err != nil {
		// Part of it may be true, or somebody has taken away what we changed.
		f.cfg.Log.Warn("iptables: a change was refused; writing everything", "family", f.name(), "error", err)
		return f.everything(now)
	}
	f.note(&d)
	f.watch.mark()
	return nil
}

// eachPair yields the ports that differ.
func eachPair(c change, f func(old, now *port)) {
	for _, n := range c.now {
		i := slices.IndexFunc(c.old, func(o *port) bool { return o.portKey == n.portKey })
		if i < 0 {
			f(nil, n)
		} else if !c.old[i].equal(n) {
			f(c.old[i], n)
		}
	}
	for _, o := range c.old {
		if !slices.ContainsFunc(c.now, func(n *port) bool { return n.portKey == o.portKey }) {
			f(o, nil)
		}
	}
}

func (f *family) rulesOf(p *port) rules {
	if p == nil || !f.place.protocols[p.proto] {
		return rules{}
	}
	return f.place.render(p)
}

// all yields the rules of every port, always in the same order.
func (f *family) all() iter.Seq[rules] {
	keys := slices.SortedFunc(maps.Keys(f.ports), catalog.Key.Compare)
	return func(yield func(rules) bool) {
		for _, k := range keys {
			for _, p := range f.ports[k] {
				if !yield(f.rulesOf(p)) {
					return
				}
			}
		}
	}
}

// everything writes all chains anew: at the start, after a refusal, and when
// others have changed them.
func (f *family) everything(now time.Time) error {
	was, err := f.tool.save(f.seed)
	lists, refs := collect(f.all())
	if err == nil {
		err = f.tool.restore(f.place.full(f.all(), &lists, was))
	}
	if err != nil {
		f.wrong = true
		f.pause = min(max(2*f.pause, retryFirst), retryMost)
		f.retryAt = now.Add(f.pause)
		return fmt.Errorf("iptables: write the rules of %s: %w", f.name(), err)
	}
	f.begun, f.wrong, f.pause = true, false, 0
	f.refs = refs
	clear(f.sums)
	clear(f.changed)
	f.checkAt = now // to learn what the chains look like
	f.watch.mark()
	return nil
}
