package ebpf

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/vip"
)

// Driver is the proxy. It is a catalog.View.
type Driver struct {
	cfg     Config
	maps    *store
	links   []link.Link // as long as they are kept, the programs are attached
	metrics *metrics
	gone    chan struct{} // woken when UDP endpoints have left

	mu      vip.Mutex // guards what follows
	table   *vip.Table
	fronts  map[svcKey]*front
	addrs   map[address]addrValue
	claims  map[netip.Addr]int // frontends of each ClusterIP
	nodes   []netip.Addr       // where node ports answer
	lastID  uint32
	changes uint64                      // batches so far
	adopted bool                        // something of an earlier process may be left
	broken  bool                        // the kernel may not have what fronts says
	leaving map[netip.AddrPort]struct{} // UDP endpoints that have left
	full    map[catalog.Key]struct{}    // services that were told that there is no room
	closed  bool
}

// front is what the kernel has of one frontend.
type front struct {
	id     uint32
	value  svcValue
	slots  []slotValue
	picks  map[uint64]slotValue
	owner  catalog.Key // of the last change
	failed error       // in the flush under way
	wanted bool        // it is in the table: not only left by an earlier process

	cluster bool // it counts in claims
}

// New loads the programs and attaches them. With PinPath it takes over what an
// earlier process left, and everything goes on as that one had it until the
// first Apply.
func New(cfg Config) (*Driver, error) {
	cfg = cfg.withDefaults()
	cgroup, err := findCgroup(&cfg)
	if err != nil {
		return nil, err
	}
	dir, err := pinDir(&cfg)
	if err != nil {
		return nil, err
	}
	// Before Linux 5.11 maps count as locked memory. If this fails and was
	// needed, making a map says so.
	_ = rlimit.RemoveMemlock()
	o, err := findOptions(&cfg)
	if err != nil {
		return nil, err
	}
	d := &Driver{
		mu:  vip.Mutex{Events: cfg.Events},
		cfg: cfg, metrics: newMetrics(cfg.Registerer), gone: make(chan struct{}, 1),
		table:   vip.NewTable(vip.Place{Node: cfg.Node, Zone: cfg.NodeZone}),
		claims:  map[netip.Addr]int{},
		leaving: map[netip.AddrPort]struct{}{},
		full:    map[catalog.Key]struct{}{},
	}
	if d.maps, err = openMaps(&cfg, dir); err != nil {
		return nil, explain(err)
	}
	img, err := d.maps.read()
	if err != nil {
		d.maps.close()
		return nil, err
	}
	d.take(img)
	d.adopted = len(d.fronts) > 0
	if err := d.refreshNodes(); err != nil {
		d.maps.close()
		return nil, err
	}
	// Maps first: whoever finds a pinned program finds its maps.
	if err := d.maps.pin(dir); err != nil {
		d.maps.close()
		return nil, err
	}
	if d.links, err = attachAll(hooks(d.maps, o), cgroup, dir); err != nil {
		d.maps.close()
		return nil, explain(err)
	}
	cfg.Log.Info("ebpf: sockets are translated when they connect", "cgroup", cgroup, "pins", dir, "adopted", len(d.fronts))
	return d, nil
}

// Run keeps the kernel as it should be until ctx ends: it closes sockets whose
// endpoint went away, tries again what the kernel refused, follows the node's
// addresses, and compares everything every Resync. When it ends, so does the
// translation, unless PinPath keeps it.
func (d *Driver) Run(ctx context.Context) error {
	defer d.close()
	tick, audit := time.NewTicker(2*time.Second), time.NewTicker(d.cfg.Resync)
	defer tick.Stop()
	defer audit.Stop()
	var sweep sweeper
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.gone:
			sweep.first(d)
		case <-sweep.later:
			sweep.next(d)
		case <-tick.C:
			d.tick()
		case <-audit.C:
			d.audit()
		}
	}
}

func (d *Driver) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return
	}
	d.closed = true
	for _, l := range d.links {
		_ = l.Close()
	}
	d.maps.close()
}

// Apply makes the kernel follow a batch of changes.
func (d *Driver) Apply(_ context.Context, b catalog.Batch) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return errors.New("ebpf: apply a change: the proxy has stopped")
	}
	d.changes++
	diff := d.table.Apply(b.Changes)
	var w writes
	for _, f := range diff.Removed {
		// A frontend's scope is not in its Front; a node port has the
		// unspecified address, and nothing else has.
		scope := vip.Cluster
		if f.Addr.Addr().IsUnspecified() {
			scope = vip.Node
		}
		if k, ok := keyOf(f, scope); ok {
			d.remove(&w, k)
		}
	}
	for _, f := range diff.Put {
		d.put(&w, f)
	}
	if d.adopted && b.Snapshot != nil && b.Snapshot.Freshness().Synced {
		d.forget(&w)
	}
	d.mu.TellConflicts(d.cfg.Log, "ebpf", d.table, diff.Conflicts)
	err := d.flush(&w)
	d.metrics.vip.Programmed(b.Oldest, d.cfg.Now(), d.table.Len())
	if err != nil {
		return fmt.Errorf("ebpf: apply a change: %w", err)
	}
	return nil
}

// put makes a frontend be as it should.
func (d *Driver) put(w *writes, f *vip.Frontend) {
	k, ok := keyOf(f.Front, f.Scope)
	if !ok {
		return
	}
	if len(f.Sources) > 0 { // another driver's: see doc.go
		d.remove(w, k)
		return
	}
	now := d.fronts[k]
	if now == nil {
		d.lastID++
		now = &front{id: d.lastID, picks: map[uint64]slotValue{}}
		d.fronts[k] = now
	}
	if cluster := f.Scope == vip.Cluster; cluster != now.cluster {
		now.cluster = cluster
		d.claim(w, f.Addr.Addr(), cluster)
	}
	now.owner, now.wanted, now.failed = f.Service, true, nil

	backends := f.For(false)
	slots := arrange(now.slots, backends)
	for i, v := range slots {
		if i >= len(now.slots) || now.slots[i] != v {
			w.slot.put(slotKey{now.id, uint32(i)}, v, now)
		}
	}
	for i := len(slots); i < len(now.slots); i++ {
		w.slot.del(slotKey{now.id, uint32(i)})
	}
	count := uint32(len(slots))
	if slices.ContainsFunc(backends, func(b vip.Backend) bool { return b.Addr.Addr().IsLoopback() }) {
		count |= nodeOnly
	}
	value := svcValue{ID: now.id, Count: count, Owner: ownerOf(f.Service), Timeout: uint64(f.Affinity)}
	d.putPicks(w, now, slots, f.Affinity > 0 || k.Proto == protoUDP)
	if value != now.value {
		w.svc.put(k, value, now)
	}
	if k.Proto == protoUDP {
		d.leave(now.slots, slots)
	}
	dropHits(w, now.id, now.slots, slots)
	now.value, now.slots = value, slots
}

// putPicks makes the endpoints be found by their identity.
func (d *Driver) putPicks(w *writes, now *front, slots []slotValue, need bool) {
	if !need && len(now.picks) == 0 {
		return
	}
	picks := make(map[uint64]slotValue, len(slots))
	if need {
		for _, v := range slots {
			picks[v.Ident] = v
		}
	}
	for ident, v := range picks {
		if was, ok := now.picks[ident]; !ok || was != v {
			w.pick.put(pickKey{ID: now.id, Ident: ident}, v, now)
		}
	}
	for ident := range now.picks {
		if _, stays := picks[ident]; !stays {
			w.pick.del(pickKey{ID: now.id, Ident: ident})
		}
	}
	now.picks = picks
}

func (d *Driver) remove(w *writes, k svcKey) {
	was := d.fronts[k]
	if was == nil {
		return
	}
	delete(d.fronts, k)
	w.svc.del(k)
	for i := range was.slots {
		w.slot.del(slotKey{was.id, uint32(i)})
	}
	for ident := range was.picks {
		w.pick.del(pickKey{ID: was.id, Ident: ident})
	}
	dropHits(w, was.id, was.slots, nil)
	if k.Proto == protoUDP {
		d.leave(was.slots, nil)
	}
	if was.cluster {
		d.claim(w, k.frontOf().Addr.Addr(), false)
	}
}

// claim counts the frontends of a ClusterIP: as long as it has one, its other
// ports are refused.
func (d *Driver) claim(w *writes, a netip.Addr, more bool) {
	if more {
		d.claims[a]++
	} else if d.claims[a]--; d.claims[a] == 0 {
		delete(d.claims, a)
	}
	d.putAddr(w, a)
}

// putAddr makes the kernel know what an address is.
func (d *Driver) putAddr(w *writes, a netip.Addr) {
	v := addrValue{Wild: wild(a)}
	switch {
	case slices.Contains(d.nodes, a):
		v.Kind = kindNode
	case isLoopback(a) && !d.cfg.NoLoopback:
		v.Kind = kindLoopback
	case d.claims[a] > 0:
		v.Kind = kindCluster
	}
	key := address(a.As16())
	switch was, known := d.addrs[key]; {
	case v.Kind == 0 && known:
		delete(d.addrs, key)
		w.addr.del(key)
	case v.Kind != 0 && was != v:
		d.addrs[key] = v
		w.addr.put(key, v, nil)
	}
}

// flush writes, and names the services that do not fit.
func (d *Driver) flush(w *writes) error {
	if w.empty() {
		return nil
	}
	err := w.flush(d.maps)
	if len(d.leaving) > 0 {
		select {
		case d.gone <- struct{}{}:
		default:
		}
	}
	if err == nil {
		return nil
	}
	d.broken = true
	d.metrics.failures.Inc()
	for _, f := range d.fronts {
		if f.failed == nil {
			continue
		}
		if _, said := d.full[f.owner]; !said {
			d.full[f.owner] = struct{}{}
			d.mu.Tell(f.owner, ReasonFull, explainWrite(f.failed))
		}
	}
	return err
}

// explainWrite says to the owner of a service why it does not work.
func explainWrite(err error) string {
	if errors.Is(err, unix.E2BIG) {
		return "there is no room for the service's endpoints in the kernel's maps; it is tried again. The operator of the node may raise their sizes"
	}
	return fmt.Sprintf("the kernel does not take the service's endpoints (%v); it is tried again", err)
}

// loopbacks are where node ports answer in the node's own namespace.
func loopbacks() []netip.Addr {
	return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
}

func isLoopback(a netip.Addr) bool { return slices.Contains(loopbacks(), a) }

// refreshNodes makes node ports answer on the node's addresses of now.
func (d *Driver) refreshNodes() error {
	nodes := d.cfg.NodeAddresses
	if len(nodes) == 0 {
		all, err := net.InterfaceAddrs()
		if err != nil {
			return fmt.Errorf("ebpf: read the node's addresses: %w", err)
		}
		for _, a := range all {
			if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
				ip, _ := netip.AddrFromSlice(n.IP)
				nodes = append(nodes, ip.Unmap())
			}
		}
		slices.SortFunc(nodes, netip.Addr.Compare)
	}
	before := d.nodes
	d.nodes = nodes
	var w writes
	for _, a := range slices.Concat(before, nodes, loopbacks()) {
		d.putAddr(&w, a)
	}
	return d.flush(&w)
}

// FallsBackToTerminating says that endpoints which are terminating but still
// serve are used when there is no ready one.
func (d *Driver) FallsBackToTerminating() bool { return true }

// Reach gives the endpoints, as "address:port" and sorted, that new traffic to
// the ClusterIPs of a service's port (a name or a number) goes to, from the
// kernel's maps.
func (d *Driver) Reach(svc catalog.Key, port string, proto catalog.Protocol) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []string
	for f := range d.table.Service(svc) {
		named := port != "" && f.Port == port || strconv.Itoa(int(f.Addr.Port())) == port
		if f.Scope != vip.Cluster || f.Proto != proto || !named {
			continue
		}
		k, _ := keyOf(f.Front, f.Scope)
		var v svcValue
		if d.maps.svc.Lookup(&k, &v) != nil {
			continue
		}
		for i := range v.slots() {
			var s slotValue
			if d.maps.slot.Lookup(&slotKey{v.ID, i}, &s) == nil {
				out = append(out, toAddrPort(s.Addr, s.Port).String())
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
