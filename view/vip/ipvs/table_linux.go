package ipvs

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/vip"
)

// Device is what the addresses of virtual servers are on, so that the kernel
// takes their packets for its own.
const Device = "kube-ipvs0"

// Options say how to balance. The zero value of a field means what its comment
// says.
type Options struct {
	Scheduler string        // rr, wrr, lc, wlc, sh, dh, sed, nq, mh; "": wrr
	Drain     time.Duration // how long a server that left may keep connections; 0: 15 min
	Now       func() time.Time
	// Ours are virtual servers that Adopt takes besides those of addresses on
	// the device.
	Ours map[vip.Front]bool
}

// Table is what the kernel's IPVS has of ours. It is for one goroutine.
type Table struct {
	opt     Options
	k       *client
	device  netlink.Link
	servers map[vip.Front]*entry
	users   map[netip.Addr]int // virtual servers of an address on the device
	old     map[vip.Front]bool // adopted, and not put again yet
	leaving map[leaver]time.Time
	fresh   []netip.Addr // put on the device, and perhaps not in force yet
}

type entry struct {
	server
	reals map[netip.AddrPort]uint32 // weights
	bound bool                      // its address is on the device for it
}

// leaver is a real server that waits for its last connection to end.
type leaver struct {
	front vip.Front
	addr  netip.AddrPort
}

// Open finds the kernel's IPVS, sets what it needs, and makes the device.
func Open(opt Options) (*Table, error) {
	opt.Scheduler = cmp.Or(opt.Scheduler, "wrr")
	if !slices.Contains(Schedulers(), opt.Scheduler) {
		return nil, fmt.Errorf("ipvs: open: scheduler %q is not known; use one of %s", opt.Scheduler, strings.Join(Schedulers(), ", "))
	}
	opt.Drain = cmp.Or(opt.Drain, 15*time.Minute)
	if opt.Now == nil {
		opt.Now = time.Now
	}
	k, err := open()
	if err != nil {
		return nil, fmt.Errorf("ipvs: open: %w", err)
	}
	t := &Table{
		opt: opt, k: k, servers: map[vip.Front]*entry{}, users: map[netip.Addr]int{},
		old: map[vip.Front]bool{}, leaving: map[leaver]time.Time{},
	}
	for name, value := range map[string]string{
		"conntrack": "1", // so that masquerading sees the flows
		// A client that uses its port again gets a new choice only if the old
		// connection is over; else new ones would be delayed by a second
		// (kubernetes #81775), or go to servers that left (#93297).
		"conn_reuse_mode": "0",
		// An entry whose server is gone goes at the next packet.
		"expire_nodest_conn":        "1",
		"expire_quiescent_template": "1", // affinity to a server with weight 0 ends
	} {
		if err := os.WriteFile("/proc/sys/net/ipv4/vs/"+name, []byte(value), 0); err != nil {
			return nil, fmt.Errorf("ipvs: open: set net.ipv4.vs.%s: %w", name, err)
		}
	}
	if t.device, err = openDevice(); err != nil {
		return nil, fmt.Errorf("ipvs: open: make the device %s (load the module dummy): %w", Device, err)
	}
	return t, nil
}

func openDevice() (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = Device
	if err := netlink.LinkAdd(&netlink.Dummy{LinkAttrs: attrs}); err != nil && !errors.Is(err, syscall.EEXIST) {
		return nil, err
	}
	// The device stays down: an address on it is local all the same, and
	// nothing is announced or routed by it. Neighbours are not answered for it.
	for _, f := range []string{"arp_ignore", "arp_announce"} {
		_ = os.WriteFile("/proc/sys/net/ipv4/conf/"+Device+"/"+f, []byte("1"), 0)
	}
	return netlink.LinkByName(Device)
}

func protocol(p catalog.Protocol) uint8 {
	switch p {
	case catalog.UDP:
		return unix.IPPROTO_UDP
	case catalog.SCTP:
		return unix.IPPROTO_SCTP
	}
	return unix.IPPROTO_TCP
}

func frontOf(s server) vip.Front {
	f := vip.Front{Addr: s.addr, Proto: catalog.TCP}
	switch s.proto {
	case unix.IPPROTO_UDP:
		f.Proto = catalog.UDP
	case unix.IPPROTO_SCTP:
		f.Proto = catalog.SCTP
	}
	return f
}

// Adopt reads what is there of an earlier process.
func (t *Table) Adopt() error {
	held, err := t.held()
	if err != nil {
		return fmt.Errorf("ipvs: read the addresses of %s: %w", Device, err)
	}
	all, err := t.k.servers()
	if err != nil {
		return fmt.Errorf("ipvs: read the virtual servers: %w", err)
	}
	for _, s := range all {
		if !held[s.addr.Addr()] && !t.opt.Ours[frontOf(s)] {
			continue // somebody else's
		}
		reals, err := t.k.reals(s)
		if err != nil {
			return fmt.Errorf("ipvs: read the servers of %s: %w", s.addr, err)
		}
		e := &entry{server: s, reals: map[netip.AddrPort]uint32{}, bound: held[s.addr.Addr()]}
		f := frontOf(s)
		for _, r := range reals {
			e.reals[r.addr] = r.weight
			if r.weight == 0 {
				t.leaving[leaver{f, r.addr}] = t.opt.Now().Add(t.opt.Drain)
			}
		}
		t.servers[f], t.old[f] = e, true
		if e.bound {
			t.users[s.addr.Addr()]++
		}
	}
	return nil
}

func (t *Table) held() (map[netip.Addr]bool, error) {
	all, err := netlink.AddrList(t.device, netlink.FAMILY_ALL)
	out := map[netip.Addr]bool{}
	for _, a := range all {
		if ip, ok := netip.AddrFromSlice(a.IP); ok {
			out[ip.Unmap()] = true
		}
	}
	return out, err
}

// Forget removes what was adopted and not put again.
func (t *Table) Forget() error {
	var errs []error
	for f := range maps.Clone(t.old) {
		errs = append(errs, t.Remove(f))
	}
	return errors.Join(errs...)
}

// Put makes a virtual server with these backends, or changes it. bind says
// whether its address goes on the device; those of the node itself do not.
// Packets may come when Settle has returned.
func (t *Table) Put(f vip.Front, backends []vip.Backend, affinity time.Duration, bind bool) error {
	delete(t.old, f)
	want := server{f.Addr, protocol(f.Proto), policy{t.opt.Scheduler, affinity}}
	e := t.servers[f]
	if e == nil {
		if bind {
			if err := t.hold(f.Addr.Addr()); err != nil {
				return fmt.Errorf("ipvs: put %s: address: %w", f, err)
			}
		}
		reals := map[netip.AddrPort]uint32{}
		err := t.k.addServer(want)
		if errors.Is(err, syscall.EEXIST) {
			var all []destination
			if all, err = t.k.reals(want); err == nil {
				err = t.k.setServer(want)
			}
			for _, r := range all {
				reals[r.addr] = r.weight
			}
		}
		if err != nil {
			if bind {
				_ = t.release(f.Addr.Addr())
			}
			return fmt.Errorf("ipvs: put %s: %w", f, err)
		}
		e = &entry{server: want, reals: reals, bound: bind}
		t.servers[f] = e
	} else if e.policy != want.policy {
		if err := t.k.setServer(want); err != nil {
			return fmt.Errorf("ipvs: change %s: %w", f, err)
		}
		e.server = want
	}
	if bind && !e.bound { // adopted, but somebody took the address away
		if err := t.hold(f.Addr.Addr()); err != nil {
			return fmt.Errorf("ipvs: put %s: address: %w", f, err)
		}
		e.bound = true
	}
	keep := map[netip.AddrPort]bool{}
	for _, b := range backends {
		keep[b.Addr] = true
		weight := max(1, uint32(b.Weight))
		if before, there := e.reals[b.Addr]; there && before == weight {
			continue
		}
		if err := t.k.addReal(want, destination{addr: b.Addr, weight: weight}); err != nil {
			return fmt.Errorf("ipvs: put %s behind %s: %w", b.Addr, f, err)
		}
		e.reals[b.Addr] = weight
		delete(t.leaving, leaver{f, b.Addr})
	}
	for addr, weight := range e.reals {
		if keep[addr] || weight == 0 {
			continue
		}
		if f.Proto == catalog.UDP { // has no connection to end
			if err := t.drop(f, e, addr); err != nil {
				return err
			}
			continue
		}
		if err := t.k.setReal(want, destination{addr: addr}); err != nil {
			return fmt.Errorf("ipvs: take %s out of %s: %w", addr, f, err)
		}
		e.reals[addr] = 0
		t.leaving[leaver{f, addr}] = t.opt.Now().Add(t.opt.Drain)
	}
	return nil
}

func (t *Table) drop(f vip.Front, e *entry, addr netip.AddrPort) error {
	if err := t.k.delReal(e.server, destination{addr: addr}); err != nil {
		return fmt.Errorf("ipvs: remove %s from %s: %w", addr, f, err)
	}
	delete(e.reals, addr)
	delete(t.leaving, leaver{f, addr})
	return nil
}

// Remove takes a virtual server away, and with it its address if no other has
// it.
func (t *Table) Remove(f vip.Front) error {
	e := t.servers[f]
	if e == nil {
		return nil
	}
	if f.Proto == catalog.UDP { // the kernel forgets the flows only with each
		for addr := range e.reals {
			if err := t.drop(f, e, addr); err != nil {
				return err
			}
		}
	}
	if err := t.k.delServer(e.server); err != nil {
		return fmt.Errorf("ipvs: remove %s: %w", f, err)
	}
	delete(t.servers, f)
	delete(t.old, f)
	for a := range e.reals {
		delete(t.leaving, leaver{f, a})
	}
	if e.bound {
		if err := t.release(f.Addr.Addr()); err != nil {
			return fmt.Errorf("ipvs: remove %s: address: %w", f, err)
		}
	}
	return nil
}

func single(a netip.Addr) *netlink.Addr {
	return &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}, Flags: unix.IFA_F_NODAD}
}

func (t *Table) hold(a netip.Addr) error {
	if t.users[a] == 0 {
		if err := netlink.AddrReplace(t.device, single(a)); err != nil {
			return err
		}
		t.fresh = append(t.fresh, a)
	}
	t.users[a]++
	return nil
}

// Settle waits until the addresses are in force that Put has added. The kernel
// answers for one of IPv6 before it routes to it: what comes meanwhile is sent
// on to the default route, and remembered as a flow that leads there.
func (t *Table) Settle() error {
	fresh := t.fresh
	t.fresh = nil
	end := time.Now().Add(settleIn)
	for _, a := range fresh {
		for t.users[a] > 0 && !isLocal(a) {
			if time.Now().After(end) {
				return fmt.Errorf("ipvs: %s is on %s, but not in force after %s; does a rule of routing hide the table local?", a, Device, settleIn)
			}
			time.Sleep(100 * time.Microsecond)
		}
	}
	return nil
}

// settleIn is what a machine may need that does something else as well.
const settleIn = 20 * time.Second

// isLocal says whether the kernel takes what goes to an address for its own.
func isLocal(a netip.Addr) bool {
	routes, err := netlink.RouteGet(a.AsSlice())
	return err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL
}

func (t *Table) release(a netip.Addr) error {
	if t.users[a]--; t.users[a] > 0 {
		return nil
	}
	delete(t.users, a)
	if err := netlink.AddrDel(t.device, single(a)); err != nil && !errors.Is(err, syscall.EADDRNOTAVAIL) {
		return err
	}
	return nil
}

// differs says whether the kernel has other servers than it should, or not all
// of the addresses.
func (t *Table) differs() (bool, error) {
	held, err := t.held()
	if err != nil {
		return false, err
	}
	for a := range t.users {
		if !held[a] {
			return true, nil
		}
	}
	all, err := t.k.servers()
	if err != nil {
		return false, err
	}
	found := 0
	for _, s := range all {
		e := t.servers[frontOf(s)]
		if e == nil {
			continue
		}
		found++
		reals, err := t.k.reals(s)
		if err != nil {
			return false, err
		}
		if s.policy != e.policy || len(reals) != len(e.reals) ||
			slices.ContainsFunc(reals, func(r destination) bool { w, ok := e.reals[r.addr]; return !ok || w != r.weight }) {
			return true, nil
		}
	}
	return found != len(t.servers), nil
}

// Drain removes servers that left and have no connection any more, and those
// whose time is over. Call it every few seconds.
func (t *Table) Drain() error {
	byFront := map[vip.Front][]leaver{}
	for l := range t.leaving {
		byFront[l.front] = append(byFront[l.front], l)
	}
	now := t.opt.Now()
	for f, all := range byFront {
		e := t.servers[f]
		if e == nil {
			continue
		}
		reals, err := t.k.reals(e.server)
		if err != nil {
			return fmt.Errorf("ipvs: read the servers of %s: %w", f, err)
		}
		for _, l := range all {
			busy := slices.ContainsFunc(reals, func(r destination) bool { return r.addr == l.addr && r.active+r.others > 0 })
			if busy && now.Before(t.leaving[l]) {
				continue
			}
			if err := t.drop(f, e, l.addr); err != nil {
				return err
			}
		}
	}
	return nil
}

// cleanUp removes the virtual servers of addresses on the device and those that
// are ours, and the device.
func cleanUp(ours map[vip.Front]bool) error {
	device, err := netlink.LinkByName(Device)
	if err != nil {
		if errors.As(err, new(netlink.LinkNotFoundError)) {
			return nil
		}
		return err
	}
	t, err := Open(Options{Ours: ours})
	if err == nil {
		if err = t.Adopt(); err == nil {
			err = t.Forget()
		}
	}
	return errors.Join(err, netlink.LinkDel(device))
}
