package network

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// podLink is the name of a pod's link inside its namespace.
const podLink = "eth0"

// addrGenNone is IN6_ADDR_GEN_MODE_NONE: no link-local address.
const addrGenNone = 1

// lockPod lets one change of a pod happen at a time. The locks stay: a pod
// costs a hundred bytes more.
func (n *Network) lockPod(uid string) func() {
	l, _ := n.pods.LoadOrStore(uid, new(sync.Mutex))
	m := l.(*sync.Mutex)
	m.Lock()
	return m.Unlock
}

// Attach gives a pod its namespace, link, addresses and routes, or finds or
// repairs what it has.
func (n *Network) Attach(ctx context.Context, podUID string) (Attachment, error) {
	if err := checkUID(podUID); err != nil {
		return Attachment{}, err
	}
	defer n.lockPod(podUID)()
	if err := ctx.Err(); err != nil {
		return Attachment{}, fmt.Errorf("network: attach pod %s: %w", podUID, err)
	}
	n.mu.Lock()
	bridge, mtu := n.bridge, n.mtu
	_, had := n.leases.byUID[podUID]
	var l *lease
	var err error
	if bridge == 0 {
		err = fmt.Errorf("network: attach pod %s: the node's network is not set up", podUID)
	} else {
		l, err = n.leases.get(podUID)
	}
	n.mu.Unlock()
	if err != nil {
		return Attachment{}, err
	}
	if err = n.wire(l, bridge, mtu); err != nil && n.bridgeGone(bridge) {
		// Somebody removed it. The next Setup puts the other pods on the new
		// one; this pod need not wait for that.
		if bridge, berr := n.newBridge(); berr == nil {
			err = n.wire(l, bridge, mtu)
		} else {
			err = errors.Join(err, berr)
		}
	}
	if err != nil {
		err = fmt.Errorf("network: attach pod %s: %w", podUID, err)
		if !had { // nobody knows of this pod yet: leave nothing
			err = errors.Join(err, n.unwire(podUID))
			n.mu.Lock()
			err = errors.Join(err, n.leases.drop(podUID))
			n.mu.Unlock()
		}
		return Attachment{}, err
	}
	return n.attachment(l), nil
}

func (n *Network) attachment(l *lease) Attachment {
	a := Attachment{PodUID: l.UID, NetNS: n.nsPath(l.UID), Addrs: slices.Clone(l.Addrs)}
	for _, p := range n.cfg.PodCIDRs {
		a.Gateways = append(a.Gateways, gatewayOf(p))
	}
	return a
}

// wire makes the pod's namespace and link, or what of it is missing.
func (n *Network) wire(l *lease, bridge, mtu int) error {
	return n.inNamespace(n.nsPath(l.UID), true, func(h *netlink.Handle, created bool) error {
		if created {
			if err := n.podSysctls(); err != nil {
				return err
			}
		}
		if err := setUp(h, "lo"); err != nil {
			return err
		}
		name := vethName(l.UID)
		outer, err := n.nl.LinkByName(name)
		if err != nil && !errors.As(err, &netlink.LinkNotFoundError{}) {
			return fmt.Errorf("look for %s: %w", name, err)
		}
		var inner netlink.Link
		if !created {
			inner, err = h.LinkByName(podLink)
			if err != nil && !errors.As(err, &netlink.LinkNotFoundError{}) {
				return fmt.Errorf("look for %s: %w", podLink, err)
			}
		}
		// Halves of pairs, left by a crash, or ends of two different ones.
		paired := inner != nil && outer != nil && inner.Attrs().ParentIndex == outer.Attrs().Index && outer.Attrs().ParentIndex == inner.Attrs().Index
		if !paired {
			if outer != nil {
				err = n.nl.LinkDel(outer)
			}
			if inner != nil {
				err = errors.Join(err, ignoreGone(h.LinkDel(inner)))
			}
			if err = ignoreGone(err); err != nil {
				return fmt.Errorf("remove what is left of %s: %w", name, err)
			}
			if outer, inner, err = n.newPair(h, l, name, mtu); err != nil {
				return err
			}
		}
		return n.configure(h, l, outer, inner, bridge)
	})
}

// podSysctls sets up a new namespace, on a thread inside it, before it has a
// link: links take the defaults when they are made.
func (n *Network) podSysctls() error {
	type setting struct{ name, value string }
	list := []setting{
		// Pods of one node talk through the node on purpose.
		{"net/ipv4/conf/all/accept_redirects", "0"},
		{"net/ipv4/conf/default/accept_redirects", "0"},
		// Ports and pings need no rights in a network of one's own.
		{"net/ipv4/ip_unprivileged_port_start", "0"},
		{"net/ipv4/ping_group_range", "0\t2147483647"},
	}
	if _, err := os.Stat("/proc/sys/net/ipv6"); err == nil {
		for _, c := range []string{"all", "default"} {
			list = append(list, setting{"net/ipv6/conf/" + c + "/accept_dad", "0"},
				setting{"net/ipv6/conf/" + c + "/accept_ra", "0"},
				setting{"net/ipv6/conf/" + c + "/accept_redirects", "0"})
			if n.has6() {
				list = append(list, setting{"net/ipv6/conf/" + c + "/disable_ipv6", "0"})
			}
		}
	}
	for _, s := range list {
		if err := sysctl(s.name, s.value); err != nil {
			return err
		}
	}
	return nil
}

// newPair makes both ends of a pod's link, each where it belongs at once.
func (n *Network) newPair(h *netlink.Handle, l *lease, name string, mtu int) (outer, inner netlink.Link, err error) {
	ns, err := os.Open(n.nsPath(l.UID))
	if err != nil {
		return nil, nil, err
	}
	defer ns.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.Alias, attrs.MTU = name, l.UID, mtu
	pair := netlink.NewVeth(attrs)
	pair.PeerName, pair.PeerMTU = podLink, uint32(mtu)
	pair.PeerHardwareAddr = hardwareAddr(l.Addrs[0])
	pair.PeerNamespace = netlink.NsFd(ns.Fd())
	if err := n.nl.LinkAdd(pair); err != nil {
		return nil, nil, fmt.Errorf("make the link %s: %w", name, err)
	}
	if outer, err = n.nl.LinkByName(name); err != nil {
		return nil, nil, fmt.Errorf("find the link %s: %w", name, err)
	}
	if inner, err = h.LinkByName(podLink); err != nil {
		return nil, nil, fmt.Errorf("find the pod's %s: %w", podLink, err)
	}
	return outer, inner, nil
}

func (n *Network) configure(h *netlink.Handle, l *lease, outer, inner netlink.Link, bridge int) error {
	at := outer.Attrs()
	if at.Alias != l.UID {
		if err := n.nl.LinkSetAlias(outer, l.UID); err != nil {
			return fmt.Errorf("mark the link %s: %w", at.Name, err)
		}
	}
	if at.MasterIndex != bridge {
		// A port needs no IPv6 address; the group of each would cost memory
		// and packets.
		if err := n.nl.LinkSetIP6AddrGenMode(outer, addrGenNone); err != nil && !errors.Is(err, unix.EAFNOSUPPORT) && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("set up the link %s: %w", at.Name, err)
		}
		if err := n.nl.LinkSetMasterByIndex(outer, bridge); err != nil {
			return fmt.Errorf("put the link %s on the bridge %s: %w", at.Name, n.cfg.Bridge, err)
		}
		// With br_netfilter a translated packet is bridged, not routed: a pod
		// that calls itself by its virtual IP gets it back on the same port.
		if err := n.nl.LinkSetHairpin(outer, true); err != nil {
			return fmt.Errorf("set up the link %s: %w", at.Name, err)
		}
	}
	if err := n.nl.LinkSetUp(outer); err != nil {
		return fmt.Errorf("set %s up: %w", at.Name, err)
	}
	if err := h.LinkSetUp(inner); err != nil {
		return fmt.Errorf("set the pod's %s up: %w", podLink, err)
	}
	index := inner.Attrs().Index
	for i, a := range l.Addrs {
		if err := h.AddrReplace(inner, address(netip.PrefixFrom(a, a.BitLen()))); err != nil {
			return fmt.Errorf("give the pod the address %s: %w", a, err)
		}
		gw := gatewayOf(n.cfg.PodCIDRs[i])
		family, any := netlink.FAMILY_V4, netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if a.Is6() {
			family, any = netlink.FAMILY_V6, netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		scope := netlink.Scope(unix.RT_SCOPE_LINK)
		if a.Is6() {
			scope = unix.RT_SCOPE_UNIVERSE // IPv6 knows no other
		}
		routes := []netlink.Route{
			{LinkIndex: index, Family: family, Dst: ipNet(netip.PrefixFrom(gw, gw.BitLen())), Scope: scope},
			{LinkIndex: index, Family: family, Dst: ipNet(any), Gw: gw.AsSlice()},
		}
		for _, r := range routes {
			if err := h.RouteReplace(&r); err != nil {
				return fmt.Errorf("give the pod the route %s: %w", r, err)
			}
		}
	}
	return nil
}

func setUp(h *netlink.Handle, name string) error {
	link, err := h.LinkByName(name)
	if err == nil {
		err = h.LinkSetUp(link)
	}
	if err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	return nil
}

// Detach takes everything of a pod away. A pod that is not there is no error.
func (n *Network) Detach(_ context.Context, podUID string) error {
	if err := checkUID(podUID); err != nil {
		return err
	}
	defer n.lockPod(podUID)()
	n.mu.Lock()
	l := n.leases.byUID[podUID]
	n.mu.Unlock()
	n.relays.set(podUID, nil)
	if l != nil && len(l.HostPorts) > 0 {
		// The rules first: nobody may be led to an address that is given back.
		if err := n.changePorts(podUID, nil); err != nil {
			return err
		}
	}
	if err := n.unwire(podUID); err != nil {
		return fmt.Errorf("network: detach pod %s: %w", podUID, err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.leases.drop(podUID)
}

// unwire removes a pod's link and namespace.
func (n *Network) unwire(uid string) error {
	link, err := n.nl.LinkByName(vethName(uid))
	if err == nil {
		err = n.nl.LinkDel(link)
	}
	if err = ignoreGone(err); err != nil {
		err = fmt.Errorf("remove the link %s: %w", vethName(uid), err)
	}
	return errors.Join(err, removeNamespace(n.nsPath(uid)))
}

func ignoreGone(err error) error {
	if errors.As(err, &netlink.LinkNotFoundError{}) || errors.Is(err, unix.ENODEV) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// List gives every pod of which there is anything: an address, a namespace or
// a link. The agent detaches those it does not know.
func (n *Network) List() ([]Attachment, error) {
	n.mu.Lock()
	all := n.leases.sorted()
	n.mu.Unlock()
	seen := map[string]bool{}
	var out []Attachment
	for _, l := range all {
		seen[l.UID] = true
		out = append(out, n.attachment(l))
	}
	others, err := n.strangers(seen)
	if err != nil {
		return nil, err
	}
	for _, uid := range others {
		out = append(out, Attachment{PodUID: uid, NetNS: n.nsPath(uid)})
	}
	return out, nil
}

// strangers names the pods of which there is a namespace or a link, besides
// those that are known.
func (n *Network) strangers(known map[string]bool) ([]string, error) {
	var out []string
	entries, err := os.ReadDir(n.cfg.NetNSDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("network: namespaces: %w", err)
	}
	for _, e := range entries {
		if uid := e.Name(); !known[uid] && checkUID(uid) == nil {
			out = append(out, uid)
		}
	}
	links, err := n.nl.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("network: list the links: %w", err)
	}
	for _, link := range links {
		at := link.Attrs()
		if strings.HasPrefix(at.Name, vethPrefix) && at.Name == vethName(at.Alias) && !known[at.Alias] {
			out = append(out, at.Alias)
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// adoptPods asks the pods whose records are lost for their addresses.
func (n *Network) adoptPods() {
	n.mu.Lock()
	known := map[string]bool{}
	for uid := range n.leases.byUID {
		known[uid] = true
	}
	n.mu.Unlock()
	uids, err := n.strangers(known)
	if err != nil {
		n.cfg.Log.Warn("could not look for pods without a record", "err", err)
		return
	}
	for _, uid := range uids {
		addrs := make([]netip.Addr, len(n.cfg.PodCIDRs))
		err := n.inNamespace(n.nsPath(uid), false, func(h *netlink.Handle, _ bool) error {
			link, err := h.LinkByName(podLink)
			if err != nil {
				return err
			}
			list, err := h.AddrList(link, netlink.FAMILY_ALL)
			for _, a := range list {
				p := prefixOf(a.IPNet)
				for i, r := range n.cfg.PodCIDRs {
					if r.Contains(p.Addr()) {
						addrs[i] = p.Addr()
					}
				}
			}
			return err
		})
		if err == nil {
			n.mu.Lock()
			err = n.leases.adopt(uid, addrs)
			n.mu.Unlock()
		}
		if err == nil {
			n.cfg.Log.Warn("the record of a pod's address was lost; it was read from the pod", "pod", uid, "addrs", addrs)
		} // else: List shows it, and whoever knows no such pod detaches it
	}
}
