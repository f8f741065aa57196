package nftables

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	nft "github.com/google/nftables"

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

	mu       vip.Mutex // guards what follows
	k        kernel
	families [2]*family // IPv4, IPv6; nil: the kernel has none
	shape    shape
	table    *vip.Table
	fronts   map[vip.Front]*front
	counts   map[place]int // frontends that want an element of a counted set
	plans    [2]map[plan]bool
	said     map[catalog.Key]struct{} // services whose family was reported
	was      []element                // memory that change uses again
	will     []element

	adopted map[place]content // what was there at the start and nobody wanted yet
	since   time.Time         // of the start
	started bool
	// complete: everything was programmed once.
	complete bool
	broken   error     // the kernel may not have what it should
	retryAt  time.Time // when broken
	gen      uint32    // after our last transaction, or what we looked at
	strange  bool      // somebody else changed the ruleset since the last comparison
	checked  time.Time // the last comparison of everything
	cost     time.Duration

	udp       map[vip.Front]struct{} // whose flows must be looked at
	udpCost   time.Duration          // of the last look, which ended at
	udpLooked time.Time
}

// New makes a proxy that serves nothing yet. What an earlier process left stays
// in force; the first Apply takes it over.
func New(cfg Config) (*Driver, error) {
	cfg = cfg.withDefaults()
	d := &Driver{
		mu:      vip.Mutex{Events: cfg.Events},
		cfg:     cfg,
		metrics: newMetrics(cfg.Registerer),
		wake:    make(chan struct{}, 1),
		k:       kernel{netns: cfg.netns},
		shape:   shape{node: cfg.Node, addrs: cfg.NodeAddresses},
		table:   vip.NewTable(vip.Place{Node: cfg.Node, Zone: cfg.NodeZone}),
		fronts:  map[vip.Front]*front{},
		counts:  map[place]int{},
		said:    map[catalog.Key]struct{}{},
		udp:     map[vip.Front]struct{}{},
		since:   cfg.Now(),
	}
	var refused error
	for i := range d.families {
		f := newFamily(&cfg, i == 1)
		if err := d.k.try(f); err != nil {
			cfg.Log.Warn("nftables: the kernel does not serve a family", "ipv6", f.v6, "error", err)
			refused = err
			continue
		}
		d.families[i] = f
	}
	if d.families[0] == nil && d.families[1] == nil {
		return nil, fmt.Errorf("nftables: start: the kernel refuses the rules (use another proxy mode): %w", refused)
	}
	d.checks = healthcheck.New(healthcheck.Config{
		Node: cfg.Node, Addresses: cfg.NodeAddresses, Log: cfg.Log,
		Failed: func(key catalog.Key, err error) { cfg.Events(key, ReasonCannotCheck, err.Error()) },
	})
	return d, nil
}

// Probe says whether this kernel can do it, by a transaction with everything
// that the driver uses, taken back before it takes effect.
func Probe(cfg Config) error {
	cfg = cfg.withDefaults()
	k := kernel{netns: cfg.netns}
	defer k.close()
	if err := k.try(newFamily(&cfg, false)); err != nil {
		return fmt.Errorf("nftables: probe: %w", err)
	}
	return nil
}

// try commits a table like that of f and its deletion as one transaction.
func (k *kernel) try(f *family) error {
	cfg := (&Config{Table: f.table.Name + "-probe", MasqueradeMark: f.mark}).withDefaults()
	g := newFamily(&cfg, f.v6)
	return k.commit(func(c *nft.Conn) error {
		if err := g.addStructure(c); err != nil {
			return err
		}
		var all []plan
		for _, m := range []masq{masqNever, masqForeign, masqAlways} {
			all = append(all, plan{what: "lb", masq: m, slots: 2}, plan{what: "lb", node: true, masq: m, slots: 2, hold: time.Hour})
		}
		if err := g.addPlans(c, all); err != nil {
			return err
		}
		c.DelTable(g.table)
		return nil
	})
}

// Cleanup removes everything that the driver left in the kernel.
func Cleanup(cfg Config) error {
	cfg = cfg.withDefaults()
	k := kernel{netns: cfg.netns}
	defer k.close()
	var errs []error
	for _, v6 := range []bool{false, true} {
		f := newFamily(&cfg, v6)
		if err := k.commit(func(c *nft.Conn) error {
			c.AddTable(f.table) // so that there is one to delete
			c.DelTable(f.table)
			return nil
		}); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) == 2 { // one family may be missing from the kernel
		return fmt.Errorf("nftables: clean up table %s: %w", cfg.Table, errors.Join(errs...))
	}
	return nil
}

// Apply makes the kernel follow a batch of changes.
func (d *Driver) Apply(ctx context.Context, b catalog.Batch) error {
	err := d.apply(b)
	if e := d.checks.Apply(ctx, b); err == nil {
		err = e
	}
	return err
}

func (d *Driver) apply(b catalog.Batch) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.started {
		d.start()
	}
	diff := d.table.Apply(b.Changes)
	d.mu.TellConflicts(d.cfg.Log, "nftables", d.table, diff.Conflicts)
	err := d.program(&diff)
	if d.adopted != nil && err == nil && b.Snapshot.Freshness().Synced {
		err = d.forget()
	}
	d.cleanFlows()
	if !d.complete && err == nil && b.Snapshot.Freshness().Synced {
		d.complete = true
		d.cutEarly()
	}
	if err != nil {
		return fmt.Errorf("nftables: program a change: %w", err)
	}
	d.metrics.vip.Programmed(b.Oldest, d.cfg.Now(), d.table.Len())
	return nil
}

// program commits a difference, in transactions of a bounded size. While one is
// on its way, the next is prepared.
func (d *Driver) program(diff *vip.Diff) error {
	t, n := d.newTxn(), 0
	var flying *txn
	landing := make(chan sent, 1)
	land := func() {
		if flying == nil {
			return
		}
		if err := d.landed(<-landing, flying.done); err != nil {
			d.broken, d.retryAt = err, time.Time{}
		}
	}
	done := func(last bool) {
		land()
		free := flying
		flying, n = nil, 0
		switch {
		case d.broken != nil || t.empty():
			t = t.reuse()
		case last:
			if err := d.commit(t); err != nil {
				d.broken, d.retryAt = err, time.Time{}
			}
		default:
			flying = t
			go func(t *txn) { landing <- d.send(t.fill) }(t)
			if t = free; t == nil {
				t = d.newTxn()
			}
			t.reuse().ahead = flying
		}
	}
	step := func(f vip.Front, now *vip.Frontend) {
		d.change(t, f, now)
		if n++; n == frontsPerTransaction {
			done(false)
		}
	}
	for _, f := range diff.Removed {
		step(f, nil)
	}
	for _, f := range diff.Put {
		step(f.Front, f)
	}
	done(true)
	if d.broken != nil {
		return d.repair()
	}
	return nil
}

// change adds to t what makes a frontend be as it should; nil: not at all.
func (d *Driver) change(t *txn, at vip.Front, now *vip.Frontend) {
	before := d.fronts[at]
	f := d.families[index(at.Addr.Addr().Is6())]
	if f == nil {
		if now != nil {
			d.unsupported(now)
		}
		return
	}
	was, will := d.was[:0], d.will[:0]
	if before != nil {
		was = before.elements(&d.shape, was)
	}
	if now == nil {
		delete(d.fronts, at)
	} else {
		p := program(now, before)
		d.fronts[at] = p
		will = p.elements(&d.shape, will)
		in, out := p.plans()
		t.need(in, f)
		if out != nil {
			t.need(*out, f)
		}
	}
	t.replace(was, will)
	d.was, d.will = was, will
	if at.Proto == catalog.UDP && (before == nil || now == nil || lacks(before.Frontend, now)) {
		d.udp[at] = struct{}{}
	}
}

// lacks says whether a backend has left.
func lacks(before, now *vip.Frontend) bool {
	has := func(b vip.Backend) bool {
		same := func(o vip.Backend) bool { return o.Addr == b.Addr }
		return slices.ContainsFunc(now.Backends, same) || slices.ContainsFunc(now.Local, same)
	}
	return !func() bool {
		for _, list := range [][]vip.Backend{before.Backends, before.Local} {
			for _, b := range list {
				if !has(b) {
					return false
				}
			}
		}
		return true
	}()
}

func index(v6 bool) int {
	if v6 {
		return 1
	}
	return 0
}

func (d *Driver) unsupported(f *vip.Frontend) {
	if _, known := d.said[f.Service]; known {
		return
	}
	d.said[f.Service] = struct{}{}
	d.cfg.Log.Warn("nftables: the kernel does not serve this family", "service", f.Service, "address", f.Front)
	d.mu.Tell(f.Service, ReasonUnsupported, fmt.Sprintf("this node's kernel cannot serve %s; use addresses of the other family", f.Front))
}

// FallsBackToTerminating says that endpoints which are terminating but still
// serve are used when there is no ready one.
func (d *Driver) FallsBackToTerminating() bool { return true }

// Reach gives the endpoints, as "address:port" and sorted, that new traffic to
// the ClusterIPs of a service's port (a name or a number) goes to.
func (d *Driver) Reach(svc catalog.Key, port string, proto catalog.Protocol) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []string
	for f := range d.table.Service(svc) {
		named := port != "" && f.Port == port || strconv.Itoa(int(f.Addr.Port())) == port
		if p := d.fronts[f.Front]; p != nil && f.Scope == vip.Cluster && f.Proto == proto && named {
			for _, s := range p.in {
				out = append(out, s.addr.String())
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// nodeFront gives the frontend of an address: of itself, or of a node port.
func (d *Driver) nodeFront(at netip.AddrPort, proto catalog.Protocol) vip.Front {
	f := vip.Front{Addr: at, Proto: proto}
	if _, touched := d.udp[f]; touched || d.fronts[f] != nil {
		return f
	}
	any := netip.IPv4Unspecified()
	if at.Addr().Is6() {
		any = netip.IPv6Unspecified()
	}
	return vip.Front{Addr: netip.AddrPortFrom(any, at.Port()), Proto: proto}
}
