package ipvs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"time"

	nft "github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/vip"
	"github.com/fingerpost/fingerpost/view/vip/healthcheck"
)

// Driver is the proxy. It is a catalog.View.
type Driver struct {
	cfg     Config
	metrics *metrics
	checks  *healthcheck.Server

	mu       vip.Mutex // guards what follows
	servers  *Table
	filter   *filter
	table    *vip.Table
	services map[catalog.Key]*service
	want     map[vip.Front]*virtual
	flows    map[vip.Front]struct{}  // whose flows must be looked at
	gone     map[vip.Front]time.Time // removed, and refused until then
	local    map[netip.Addr]bool     // addresses of this machine, but those on the device

	since    time.Time
	complete bool // everything was programmed once
	started  bool
	adopted  bool  // there may be what nobody wants
	broken   error // the kernel may not have what it should
	retryAt  time.Time
	checkAt  time.Time
}

// service is what one service has in the kernel.
type service struct {
	elements []element
	fronts   []vip.Front // with real addresses
}

// virtual is a virtual server as it should be.
type virtual struct {
	owner    catalog.Key
	backends []vip.Backend
	others   []vip.Backend // where the shortcut leads
	affinity time.Duration
	bind     bool
}

// lost says whether a backend has left.
func (v *virtual) lost(now *virtual) bool {
	return v != nil && slices.ContainsFunc(v.backends, func(b vip.Backend) bool { return now == nil || !now.leads(b.Addr) })
}

// leads says whether new connections may be led there.
func (v *virtual) leads(to netip.AddrPort) bool {
	at := func(b vip.Backend) bool { return b.Addr == to }
	return slices.ContainsFunc(v.backends, at) || slices.ContainsFunc(v.others, at)
}

// holdFor is how long an empty catalog that is not synced is not believed.
const holdFor = 10 * time.Second

// New makes a proxy that serves nothing yet. What an earlier process left stays
// in force; the first Apply takes it over.
func New(cfg Config) (*Driver, error) {
	cfg = cfg.withDefaults()
	if err := Probe(cfg); err != nil {
		return nil, err
	}
	d := &Driver{
		mu:  vip.Mutex{Events: cfg.Events},
		cfg: cfg, metrics: newMetrics(cfg.Registerer), filter: newFilter(&cfg),
		table:    vip.NewTable(vip.Place{Node: cfg.Node, Zone: cfg.NodeZone}),
		services: map[catalog.Key]*service{}, want: map[vip.Front]*virtual{}, flows: map[vip.Front]struct{}{},
		gone: map[vip.Front]time.Time{}, since: cfg.Now(),
	}
	d.checks = healthcheck.New(healthcheck.Config{
		Node: cfg.Node, Addresses: cfg.NodeAddresses, Log: cfg.Log,
		Failed: func(key catalog.Key, err error) { cfg.Events(key, ReasonCannotCheck, err.Error()) },
	})
	return d, nil
}

// Probe says whether this kernel can do it: it has IPVS with the scheduler, and
// takes the rules of nftables, which are taken back before they take effect.
func Probe(cfg Config) error {
	cfg = cfg.withDefaults()
	if !slices.Contains(Schedulers(), cfg.Scheduler) {
		return fmt.Errorf("ipvs: probe: scheduler %q is not known; use one of %v", cfg.Scheduler, Schedulers())
	}
	if _, err := open(); err != nil {
		return fmt.Errorf("ipvs: probe: %w", err)
	}
	for _, f := range newFilter(&cfg).families {
		table := *f.table
		table.Name += "-probe"
		f.table = &table
		for _, s := range f.sets {
			s.Table = f.table
		}
		for _, c := range f.chains {
			c.Table = f.table
		}
		if err := transaction(func(c *nft.Conn) error {
			f.replace(c)
			c.DelTable(f.table)
			return nil
		}); err != nil {
			return fmt.Errorf("ipvs: probe: the kernel refuses the rules of nftables that go with it: %w", err)
		}
	}
	return nil
}

// Cleanup removes everything that the driver left in the kernel, and what
// kube-proxy in its mode ipvs has on the device of the same name.
func Cleanup(cfg Config) error {
	cfg = cfg.withDefaults()
	p := newFilter(&cfg)
	err := cleanUp(p.left())
	failed := 0
	var refused error
	for _, f := range p.families {
		if e := transaction(func(c *nft.Conn) error {
			c.AddTable(f.table) // so that there is one to delete
			c.DelTable(f.table)
			return nil
		}); e != nil {
			refused = e
			failed++
		}
	}
	if failed == len(p.families) { // one may be missing from the kernel
		err = errors.Join(err, refused)
	}
	if err != nil {
		return fmt.Errorf("ipvs: clean up: %w", err)
	}
	return nil
}

// Apply makes the kernel follow a batch of changes.
func (d *Driver) Apply(ctx context.Context, b catalog.Batch) error {
	return errors.Join(d.apply(b), d.checks.Apply(ctx, b))
}

func (d *Driver) apply(b catalog.Batch) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	diff := d.table.Apply(b.Changes)
	d.mu.TellConflicts(d.cfg.Log, "ipvs", d.table, diff.Conflicts)
	synced, now := b.Snapshot.Freshness().Synced, d.cfg.Now()
	if !d.started {
		if d.table.Len() == 0 && !synced && now.Sub(d.since) < holdFor {
			return nil
		}
		if err := d.start(); err != nil {
			return fmt.Errorf("ipvs: start: %w", err)
		}
	}
	touched := map[catalog.Key]struct{}{}
	for _, c := range b.Changes {
		touched[c.Key] = struct{}{}
	}
	for _, f := range diff.Put {
		touched[f.Service] = struct{}{}
	}
	for _, c := range diff.Conflicts {
		touched[c.Loser] = struct{}{}
	}
	err := d.follow(touched)
	if err == nil && d.adopted && synced {
		d.adopted = false
		err = d.forget()
	}
	if err != nil {
		d.cfg.Log.Warn("ipvs: a change was refused; writing everything", "error", err)
		err = d.repair()
	}
	d.cutFlows(err == nil && synced && !d.complete)
	d.complete = d.complete || err == nil && synced
	if err != nil {
		return fmt.Errorf("ipvs: program a change: %w", err)
	}
	d.metrics.vip.Programmed(b.Oldest, d.cfg.Now(), d.table.Len())
	return nil
}

// start takes over what an earlier process left.
func (d *Driver) start() error {
	if err := d.openTable(d.filter.left()); err != nil {
		return err
	}
	d.local = localAddresses()
	d.started, d.adopted = true, true
	d.checkAt = d.cfg.Now().Add(d.cfg.Resync)
	return nil
}

func (d *Driver) openTable(ours map[vip.Front]bool) error {
	t, err := Open(Options{Scheduler: d.cfg.Scheduler, Drain: d.cfg.Drain, Now: d.cfg.Now, Ours: ours})
	if err != nil {
		return err
	}
	if err := t.Adopt(); err != nil {
		return err
	}
	d.servers = t
	return nil
}

// follow makes the kernel do what some services want now. New servers come
// before the rules that lead to them, and old ones go after.
func (d *Driver) follow(touched map[catalog.Key]struct{}) error {
	fronts := map[vip.Front]struct{}{}
	before := map[vip.Front]*virtual{}
	for k := range touched {
		if s := d.services[k]; s != nil {
			for _, f := range s.fronts {
				fronts[f] = struct{}{}
				if w := d.want[f]; w != nil && w.owner == k {
					before[f] = w
					delete(d.want, f)
				}
			}
		}
	}
	for k := range touched {
		now, was := d.wantedOf(k), d.services[k]
		if was == nil {
			was = &service{}
		}
		for _, f := range now.fronts {
			d.admit(f)
		}
		d.filter.change(was.elements, now.elements)
		for _, f := range now.fronts {
			fronts[f] = struct{}{}
		}
		if d.services[k] = now; len(now.fronts) == 0 {
			delete(d.services, k)
		}
	}
	for f := range fronts {
		if f.Proto == catalog.UDP || before[f].lost(d.want[f]) {
			d.flows[f] = struct{}{}
		}
		if w := d.want[f]; w != nil {
			if err := d.servers.Put(f, w.backends, w.affinity, w.bind); err != nil {
				return err
			}
		} else {
			d.refuse(f)
		}
	}
	if err := d.servers.Settle(); err != nil {
		return err
	}
	if err := d.filter.commit(false); err != nil {
		return fmt.Errorf("rules of nftables: %w", err)
	}
	for f := range fronts {
		if d.want[f] == nil {
			if err := d.servers.Remove(f); err != nil {
				return err
			}
		}
	}
	return nil
}

// wantedOf gives what a service should have, and notes its virtual servers.
func (d *Driver) wantedOf(k catalog.Key) *service {
	out := &service{}
	all := slices.Collect(d.table.Service(k))
	for _, f := range all {
		for _, at := range d.places(f) {
			bind := f.Scope != vip.Node && !at.Addr().IsLoopback() && !d.local[at.Addr()]
			out.elements = append(out.elements, rulesFor(f, at, bind, shortcut(f, all), d.nodes())...)
			front := vip.Front{Addr: at, Proto: f.Proto}
			if w := d.want[front]; w != nil && f.Scope == vip.Node {
				continue // an external address that is the node's
			}
			d.want[front] = &virtual{k, f.For(true), f.Backends, f.Affinity, bind}
			out.fronts = append(out.fronts, front)
		}
	}
	return out
}

// shortcut gives the ClusterIP that leads to all endpoints of a frontend with
// policy Local, nil if there is none.
func shortcut(f *vip.Frontend, all []*vip.Frontend) *vip.Frontend {
	if !f.LocalOnly || len(f.Backends) == 0 {
		return nil
	}
	i := slices.IndexFunc(all, func(o *vip.Frontend) bool {
		return o.Scope == vip.Cluster && o.Port == f.Port && o.Proto == f.Proto && o.Addr.Addr().Is6() == f.Addr.Addr().Is6() &&
			slices.Equal(o.Backends, f.Backends)
	})
	if i < 0 {
		return nil
	}
	return all[i]
}

// places gives where a frontend answers.
func (d *Driver) places(f *vip.Frontend) []netip.AddrPort {
	if f.Scope != vip.Node {
		return []netip.AddrPort{f.Addr}
	}
	var out []netip.AddrPort
	for _, a := range d.nodes() {
		if a.Is6() == f.Addr.Addr().Is6() && !a.IsLoopback() {
			out = append(out, netip.AddrPortFrom(a, f.Addr.Port()))
		}
	}
	return out
}

// nodes are the addresses where node ports answer.
func (d *Driver) nodes() []netip.Addr {
	if len(d.cfg.NodeAddresses) > 0 {
		return d.cfg.NodeAddresses
	}
	return slices.Collect(maps.Keys(d.local))
}

// localAddresses gives those of this machine that are not on the device.
func localAddresses() map[netip.Addr]bool {
	out := map[netip.Addr]bool{}
	own := -1
	if l, err := netlink.LinkByName(Device); err == nil {
		own = l.Attrs().Index
	}
	all, _ := netlink.AddrList(nil, unix.AF_UNSPEC)
	for _, a := range all {
		ip, ok := netip.AddrFromSlice(a.IP)
		if ip = ip.Unmap(); ok && a.LinkIndex != own && !ip.IsLoopback() && !ip.IsLinkLocalUnicast() {
			out[ip] = true
		}
	}
	return out
}

// repair writes everything, from what the kernel has.
func (d *Driver) repair() error {
	d.metrics.repairs.Inc()
	d.broken = d.everything()
	d.retryAt = d.cfg.Now().Add(time.Second)
	return d.broken
}

func (d *Driver) everything() error {
	ours := map[vip.Front]bool{}
	if d.servers != nil {
		for f := range d.servers.servers {
			ours[f] = true
		}
	}
	if err := d.openTable(ours); err != nil {
		return err
	}
	for f, w := range d.want {
		if err := d.servers.Put(f, w.backends, w.affinity, w.bind); err != nil {
			return err
		}
	}
	if err := d.servers.Settle(); err != nil {
		return err
	}
	if err := d.filter.commit(true); err != nil {
		return fmt.Errorf("rules of nftables: %w", err)
	}
	if d.adopted {
		return nil // not everything may be known yet
	}
	return d.forget()
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
		if f.Scope != vip.Cluster || f.Proto != proto || !named {
			continue
		}
		for _, b := range f.Backends {
			out[b.Addr.String()] = struct{}{}
		}
	}
	return slices.Sorted(maps.Keys(out))
}
