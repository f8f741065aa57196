package iptables

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/vip"
	"github.com/fingerpost/fingerpost/view/vip/healthcheck"
)

// Driver is the proxy. It is a catalog.View.
type Driver struct {
	cfg     Config
	metrics *metrics
	checks  *healthcheck.Server
	wake    chan struct{} // UDP flows wait to be looked at

	mu       vip.Mutex  // guards what follows
	families [2]*family // IPv4, IPv6; nil: not served
	table    *vip.Table
	fronts   map[vip.Front]*vip.Frontend // that somebody has
	ports    map[catalog.Key][]*port
	extras   map[catalog.Key]extra
	said     map[complaint]struct{}

	flows    map[vip.Front]struct{} // UDP, whose flows must be looked at
	flowCost time.Duration          // of the last look
	since    time.Time
	complete bool // everything was programmed once
}

// complaint is something a service was told once.
type complaint struct {
	service catalog.Key
	what    string
}

// holdFor is how long an empty catalog that is not synced is not believed: what
// an earlier process left stays in force.
const holdFor = 10 * time.Second

// New makes a proxy that serves nothing yet. What an earlier process left stays
// in force; the first Apply takes it over.
func New(cfg Config) (*Driver, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	d := &Driver{
		mu:      vip.Mutex{Events: cfg.Events},
		cfg:     cfg,
		metrics: newMetrics(cfg.Registerer),
		wake:    make(chan struct{}, 1),
		table:   vip.NewTable(vip.Place{Node: cfg.Node, Zone: cfg.NodeZone}),
		fronts:  map[vip.Front]*vip.Frontend{},
		ports:   map[catalog.Key][]*port{},
		extras:  map[catalog.Key]extra{},
		said:    map[complaint]struct{}{},
		flows:   map[vip.Front]struct{}{},
		since:   cfg.Now(),
	}
	var errs []error
	for i := range d.families {
		f, err := newFamily(&d.cfg, i == 1)
		if err != nil {
			cfg.Log.Warn("iptables: a family is not served", "ipv6", i == 1, "error", err)
			errs = append(errs, err)
			continue
		}
		cfg.Log.Info("iptables: serving with", "family", f.name(), "flavour", f.flavour, "program", f.restoreArg, "affinity", f.recent, "randomFully", f.random)
		d.families[i] = f
	}
	if len(errs) == len(d.families) {
		return nil, fmt.Errorf("iptables: start: %w", errors.Join(errs...))
	}
	d.checks = healthcheck.New(healthcheck.Config{
		Node: cfg.Node, Addresses: cfg.NodeAddresses, Log: cfg.Log,
		Failed: func(key catalog.Key, err error) { cfg.Events(key, ReasonCannotCheck, err.Error()) },
	})
	return d, nil
}

// Probe says whether this machine can do it, by transactions with everything
// that the driver needs, in a chain that nothing leads to and which it removes.
func Probe(cfg Config) error {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return err
	}
	if _, err := newFamily(&cfg, false); err != nil {
		return fmt.Errorf("iptables: probe: %w", err)
	}
	return nil
}

// Flavour is the flavour in use for a family, "" if that is not served.
func (d *Driver) Flavour(v6 bool) string {
	if f := d.families[index(v6)]; f != nil {
		return f.flavour
	}
	return ""
}

func index(v6 bool) int {
	if v6 {
		return 1
	}
	return 0
}

// Apply makes the kernel follow a batch of changes.
func (d *Driver) Apply(ctx context.Context, b catalog.Batch) error {
	return errors.Join(d.apply(b), d.checks.Apply(ctx, b))
}

func (d *Driver) apply(b catalog.Batch) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	changes := d.take(b)
	began := d.cfg.Now()
	if len(changes) == 0 && d.table.Len() == 0 && !b.Snapshot.Freshness().Synced && began.Sub(d.since) < holdFor {
		return nil
	}
	err := d.program(changes, began)
	d.cleanFlows()
	if err != nil {
		return err
	}
	if !d.complete && b.Snapshot.Freshness().Synced {
		d.complete = true
		d.cutEarly()
	}
	d.metrics.vip.Programmed(b.Oldest, d.cfg.Now(), d.table.Len())
	return nil
}

// take notes what a batch says and gives the services whose rules differ.
func (d *Driver) take(b catalog.Batch) []change {
	diff := d.table.Apply(b.Changes)
	d.mu.TellConflicts(d.cfg.Log, "iptables", d.table, diff.Conflicts)
	touched := map[catalog.Key]struct{}{}
	for _, c := range b.Changes {
		x := extraOf(c.New)
		if d.extras[c.Key] != x {
			touched[c.Key] = struct{}{}
		}
		putOrDelete(d.extras, c.Key, x, x == extra{})
		if c.New == nil {
			for k := range d.said {
				if k.service == c.Key {
					delete(d.said, k)
				}
			}
		}
	}
	d.noteFlows(&diff, func(f vip.Front) *vip.Frontend { return d.fronts[f] })
	for _, f := range diff.Removed {
		touched[d.fronts[f].Service] = struct{}{}
		delete(d.fronts, f)
	}
	for _, f := range diff.Put {
		if before := d.fronts[f.Front]; before != nil {
			touched[before.Service] = struct{}{}
		}
		touched[f.Service] = struct{}{}
		d.fronts[f.Front] = f
	}
	var out []change
	for k := range touched {
		now := portsOf(slices.Collect(d.table.Service(k)), d.extras[k])
		old := d.ports[k]
		if slices.EqualFunc(old, now, (*port).equal) {
			continue
		}
		d.complain(now)
		putOrDelete(d.ports, k, now, len(now) == 0)
		out = append(out, change{k, old, now})
	}
	slices.SortFunc(out, func(a, b change) int { return a.service.Compare(b.service) })
	return out
}

func putOrDelete[K comparable, V any](m map[K]V, k K, v V, gone bool) {
	if gone {
		delete(m, k)
	} else {
		m[k] = v
	}
}

// program makes both families follow.
func (d *Driver) program(changes []change, now time.Time) error {
	var errs []error
	for i, f := range d.families {
		if f == nil {
			continue
		}
		var mine []change
		for _, c := range changes {
			of := func(all []*port) (out []*port) {
				for _, p := range all {
					if index(p.v6) == i {
						out = append(out, p)
					}
				}
				return out
			}
			m := change{c.service, of(c.old), of(c.now)}
			if len(m.old)+len(m.now) > 0 {
				mine = append(mine, m)
			}
		}
		if len(mine) == 0 && f.begun && !f.wrong {
			continue
		}
		errs = append(errs, d.timed(f, func() error { return f.follow(mine, now) }))
	}
	return errors.Join(errs...)
}

func (d *Driver) timed(f *family, do func() error) error {
	began := time.Now()
	err := do()
	took := time.Since(began)
	d.metrics.restored(took, err)
	if took > 5*time.Second && f.flavour == NFT {
		if first := (complaint{what: "slow"}); !d.known(first) {
			d.cfg.Log.Warn("iptables: the nft flavour is slow with this many services; use --proxy-mode=nftables, or the legacy flavour", "took", took, "services", len(f.ports))
		}
	}
	return err
}

// known says whether something has been said, and notes that it has.
func (d *Driver) known(c complaint) bool {
	_, ok := d.said[c]
	d.said[c] = struct{}{}
	return ok
}

// complain tells a service what this kernel cannot do for it.
func (d *Driver) complain(ports []*port) {
	for _, p := range ports {
		f, what := d.families[index(p.v6)], ""
		switch {
		case f == nil:
			what = "this node's kernel or its iptables cannot serve " + p.fronts[0].Front.String() + "; use addresses of the other family"
		case !f.protocols[p.proto]:
			what = "this node's kernel cannot serve " + string(p.proto)
		case p.fronts[0].Affinity > 0 && !f.recent:
			what = "this node's kernel has no xt_recent: there is no session affinity"
		default:
			continue
		}
		if !d.known(complaint{p.service, what}) {
			d.cfg.Log.Warn("iptables: "+what, "service", p.service)
			d.mu.Tell(p.service, ReasonUnsupported, what)
		}
	}
}

// Run answers on health check node ports, watches for what others do to the
// rules and tries again what failed, until ctx ends. The rules stay.
func (d *Driver) Run(ctx context.Context) error {
	checked := make(chan error, 1)
	go func() { checked <- d.checks.Run(ctx) }()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-d.wake:
			d.mu.Lock()
			d.lookAtFlows()
			d.mu.Unlock()
		case <-tick.C:
			d.tick()
		case <-ctx.Done():
			return <-checked
		}
	}
}

// tick does what time brings.
func (d *Driver) tick() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lookAtFlows()
	for _, f := range d.families {
		if f == nil {
			continue
		}
		now := d.cfg.Now()
		if f.wrong {
			if !now.Before(f.retryAt) {
				d.repair(f, "a change was refused")
			}
			continue
		}
		if !f.due(now) {
			continue
		}
		what, err := f.check(now, d.cfg.Now)
		switch {
		case err != nil:
			d.cfg.Log.Warn("iptables: the rules cannot be read", "family", f.name(), "error", err)
			f.checkAt = now.Add(d.cfg.Resync)
		case what != "":
			d.metrics.drifted()
			d.repair(f, what)
		}
	}
}

// repair writes everything of a family.
func (d *Driver) repair(f *family, why string) {
	now := d.cfg.Now()
	err := d.timed(f, func() error { return f.everything(now) })
	if err != nil {
		d.cfg.Log.Error("iptables: the rules cannot be written; trying again", "family", f.name(), "why", why, "in", f.pause, "error", err)
		return
	}
	d.cfg.Log.Warn("iptables: all rules were written anew", "family", f.name(), "why", why)
}

// FallsBackToTerminating says that endpoints which are terminating but still
// serve are used when there is no ready one.
func (d *Driver) FallsBackToTerminating() bool { return true }

// Reach gives the endpoints, as "address:port" and sorted, that new traffic to
// the ClusterIPs of a service's port (a name or a number) goes to.
func (d *Driver) Reach(svc catalog.Key, port string, proto catalog.Protocol) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := map[string]struct{}{}
	for f := range d.table.Service(svc) {
		named := port != "" && f.Port == port || strconv.Itoa(int(f.Addr.Port())) == port
		if f.Scope != vip.Cluster || f.Proto != proto || !named || d.families[index(f.Addr.Addr().Is6())] == nil {
			continue
		}
		for _, b := range f.Backends {
			out[b.Addr.String()] = struct{}{}
		}
	}
	return slices.Sorted(maps.Keys(out))
}
