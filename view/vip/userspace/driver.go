package userspace

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/vip"
)

// Driver is the proxy. It is a catalog.View.
type Driver struct {
	cfg      Config
	began    time.Time // what flows count from: a difference ignores that somebody sets the clock
	net      network
	metrics  *metrics
	sessions *sessions
	suspects suspects
	flows    *flows
	conns    conns
	copier   copier

	mu      vip.Mutex // guards what follows, and the listeners' own fields
	table   *vip.Table
	byFront map[vip.Front][]*listener
	failing map[*listener]struct{}
	stopped bool
	said    int // complaints in this round

	spotMu sync.RWMutex // held for a moment only: clients wait for it
	spots  map[spot]*listener
}

// spot is an address that a socket can have.
type spot struct {
	addr  netip.AddrPort
	proto catalog.Protocol
}

// New makes a proxy that serves nothing yet. Run must be called, if only with
// a context that has ended, to give back what it holds.
func New(cfg Config) (*Driver, error) {
	cfg = cfg.withDefaults()
	d := &Driver{
		mu:       vip.Mutex{Events: cfg.Events},
		cfg:      cfg,
		began:    cfg.Now(),
		net:      cfg.net,
		metrics:  newMetrics(cfg.Registerer),
		sessions: newSessions(cfg.MaxAffinity),
		table:    vip.NewTable(vip.Place{Node: cfg.Node, Zone: cfg.NodeZone}),
		byFront:  map[vip.Front][]*listener{},
		failing:  map[*listener]struct{}{},
		spots:    map[spot]*listener{},
	}
	d.flows = newFlows(d)
	d.conns.ctx, d.conns.cancel = context.WithCancel(context.Background())
	if d.net == nil {
		var err error
		if d.net, err = newNetwork(cfg.Log); err != nil {
			return nil, fmt.Errorf("userspace: start: %w", err)
		}
	}
	return d, nil
}

// Run serves until ctx ends, then stops taking clients, gives the connections
// there are Drain to end by themselves, and ends the rest.
func (d *Driver) Run(ctx context.Context) error {
	netCtx, stopNet := context.WithCancel(context.Background())
	defer stopNet()
	served := make(chan error, 1)
	go func() { served <- d.net.run(netCtx) }()

	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var err error
	for running := true; running; {
		select {
		case <-tick.C:
			d.tick(d.cfg.Now())
		case <-ctx.Done():
			running = false
		case err = <-served:
			running = false
		}
	}
	d.stop()
	if err == nil {
		stopNet()
		err = <-served
	}
	d.net.close()
	d.conns.drain(d.cfg.Drain)
	if err != nil {
		return fmt.Errorf("userspace: serve: %w", err)
	}
	return nil
}

// stop takes no more clients.
func (d *Driver) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stopped = true
	for _, all := range d.byFront {
		for _, l := range all {
			d.closeListener(l)
		}
	}
	clear(d.byFront)
	d.flows.close()
}

// Apply makes the sockets follow a batch of changes.
func (d *Driver) Apply(_ context.Context, b catalog.Batch) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stopped {
		return errors.New("userspace: apply a change: the proxy has stopped")
	}
	d.said = 0
	diff := d.table.Apply(b.Changes)
	for _, f := range diff.Removed {
		for _, l := range d.byFront[f] {
			d.closeListener(l)
		}
		delete(d.byFront, f)
	}
	for _, f := range diff.Put {
		d.put(f)
	}
	d.mu.TellConflicts(d.cfg.Log, "userspace", d.table, diff.Conflicts)
	d.summarize()
	d.metrics.vip.Programmed(b.Oldest, d.cfg.Now(), d.table.Len())
	return nil
}

// put makes the listeners of one frontend be there and follow it.
func (d *Driver) put(f *vip.Frontend) {
	places := d.places(f)
	var keep []*listener
	for _, l := range d.byFront[f.Front] {
		if slices.Contains(places, l.at.addr) {
			keep = append(keep, l)
		} else {
			d.closeListener(l)
		}
	}
	d.trustNewcomers(f, keep)
	var before *route
	if len(keep) > 0 {
		before = keep[0].route.Load()
	}
	if before != nil && before.front.Service != f.Service {
		before = nil // another's clients
	}
	r := newRoute(f, before)
	for _, at := range places {
		i := slices.IndexFunc(keep, func(l *listener) bool { return l.at.addr == at })
		if i < 0 {
			i = len(keep)
			keep = append(keep, &listener{d: d, at: spot{at, f.Proto}})
		}
		keep[i].follow(r)
	}
	if len(keep) == 0 {
		delete(d.byFront, f.Front)
	} else {
		d.byFront[f.Front] = keep
	}
}

// trustNewcomers forgets the failures of backends that were not there before:
// whoever put them in has looked at them since.
func (d *Driver) trustNewcomers(f *vip.Frontend, before []*listener) {
	if len(before) == 0 || d.suspects.count.Load() == 0 {
		return
	}
	was := before[0].route.Load()
	for _, b := range f.Backends {
		if was == nil || !slices.Contains(was.front.Backends, b) {
			d.suspects.clear(f.Proto, b.Addr)
		}
	}
}

// places gives the addresses to listen on for a frontend.
func (d *Driver) places(f *vip.Frontend) []netip.AddrPort {
	if d.cfg.NodePortsOnly && f.Scope != vip.Node {
		return nil
	}
	switch f.Scope {
	case vip.Cluster:
		return []netip.AddrPort{f.Addr}
	case vip.Node:
		var out []netip.AddrPort
		for _, a := range d.cfg.NodeAddresses {
			if a.Is4() == f.Addr.Addr().Is4() {
				out = append(out, netip.AddrPortFrom(a, f.Addr.Port()))
			}
		}
		return out
	default:
		if d.cfg.Owned(f.Addr.Addr()) {
			return []netip.AddrPort{f.Addr}
		}
		return nil
	}
}

// elapsed is the time since the driver was made.
func (d *Driver) elapsed(now time.Time) int64 { return int64(now.Sub(d.began)) }

// tick does what time brings: retries, time-outs.
func (d *Driver) tick(now time.Time) {
	d.flows.expire(now)
	d.sessions.expire(now)
	d.suspects.expire(now)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.said = 0
	for l := range d.failing {
		if !now.Before(l.retryAt) {
			l.adjust()
		}
	}
	d.summarize()
}

// listensOn says whether an address is one of our sockets.
func (d *Driver) listensOn(s spot) bool {
	d.spotMu.RLock()
	defer d.spotMu.RUnlock()
	return d.spots[s] != nil
}

// outside says whether a client of a socket comes from another machine.
func (d *Driver) outside(client, at netip.Addr) bool {
	return !client.IsLoopback() && client != at && !slices.Contains(d.cfg.NodeAddresses, client)
}

// admits says whether source ranges let a client in. A client on this machine
// counts with the node's addresses, whichever the kernel chose for it.
func (d *Driver) admits(f *vip.Frontend, client netip.Addr, outside bool) bool {
	return f.Allowed(client) || !outside && slices.ContainsFunc(d.cfg.NodeAddresses, f.Allowed)
}

// Hits implements [vip.HitCounter].
func (d *Driver) Hits() (out []vip.Hit, ok bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, all := range d.byFront {
		r := all[0].route.Load() // listeners of one frontend share it
		f := r.front
		seen := map[*atomic.Uint64]struct{}{}
		for i, n := range r.hits {
			if _, twice := seen[n]; twice || n.Load() == 0 {
				continue
			}
			seen[n] = struct{}{}
			b := f.Backends
			if i >= len(b) {
				b, i = f.Local, i-len(b)
			}
			out = append(out, vip.Hit{Service: f.Service, Port: f.Port, Proto: f.Proto, Backend: b[i].Addr, Count: n.Load()})
		}
	}
	return out, true, nil
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
		if f.Scope != vip.Cluster || f.Proto != proto || !named {
			continue
		}
		for _, b := range f.Backends {
			if !d.listensOn(spot{b.Addr, proto}) {
				out = append(out, b.Addr.String())
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
