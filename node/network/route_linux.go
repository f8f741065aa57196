package network

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// routeProtocol marks the routes to other nodes as ours.
const routeProtocol = 103

// SetRoutes leads to the pods of exactly these peers. A peer that cannot be
// reached does not keep the others from it; the error names it.
func (n *Network) SetRoutes(peers []Peer) error {
	want := map[netip.Prefix]netip.Addr{}
	owner := map[netip.Prefix]string{}
	var ranges []netip.Prefix
	var errs []error
	for _, p := range peers {
		via := p.Via.Unmap()
		for _, r := range p.PodCIDRs {
			r = r.Masked()
			if !r.IsValid() || !via.IsValid() {
				errs = append(errs, fmt.Errorf("network: routes to node %s: range %s via %s: both must be addresses", p.Node, r, via))
				continue
			}
			if own := n.overlaps(r); own.IsValid() {
				errs = append(errs, fmt.Errorf("network: routes to node %s: its pod range %s overlaps this node's %s; each node needs a range of its own", p.Node, r, own))
				continue
			}
			ranges = append(ranges, r) // not masqueraded, whether there is a way or not
			if r.Addr().Is4() != via.Is4() {
				continue
			}
			if other, ok := owner[r]; ok && want[r] != via {
				errs = append(errs, fmt.Errorf("network: routes to node %s: node %s has the pod range %s too; each node needs a range of its own", p.Node, other, r))
				continue
			}
			want[r], owner[r] = via, p.Node
		}
	}
	slices.SortFunc(ranges, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	ranges = slices.Compact(ranges)

	n.rules.Lock() // one change of the routes at a time, too
	errs = append(errs, n.replaceRoutes(want, owner)...)
	n.rules.Unlock()

	n.mu.Lock()
	changed := !slices.Equal(n.peers, ranges)
	n.peers = ranges
	ready := n.bridge != 0
	n.mu.Unlock()
	if changed && ready { // Setup writes them otherwise
		errs = append(errs, n.applyRules(false))
	}
	return errors.Join(errs...)
}

func (n *Network) overlaps(r netip.Prefix) netip.Prefix {
	for _, own := range n.cfg.PodCIDRs {
		if own.Overlaps(r) {
			return own
		}
	}
	return netip.Prefix{}
}

func (n *Network) replaceRoutes(want map[netip.Prefix]netip.Addr, owner map[netip.Prefix]string) []error {
	have, err := n.ownRoutes()
	if err != nil {
		return []error{err}
	}
	var errs []error
	ours := map[netip.Prefix]bool{}
	for _, r := range have {
		p := prefixOf(r.Dst)
		via, ok := want[p]
		if ok && via == addrOf(r.Gw) {
			delete(want, p)
			continue
		}
		if ok && p.Addr().Is4() {
			ours[p] = true // replaced in one step below; IPv6 would add a second way
			continue
		}
		if err := n.nl.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("network: remove the route to %s: %w", p, err))
		}
	}
	for p, via := range want {
		fam := netlink.FAMILY_V4
		if p.Addr().Is6() {
			fam = netlink.FAMILY_V6
		}
		route, set := &netlink.Route{Family: fam, Dst: ipNet(p), Gw: via.AsSlice(), Protocol: routeProtocol}, n.nl.RouteAdd
		if ours[p] {
			set = n.nl.RouteReplace
		}
		err := set(route)
		switch {
		case errors.Is(err, unix.EEXIST):
			err = fmt.Errorf("network: routes to node %s: this machine has another route to its pod range %s; remove it, or give the node another range", owner[p], p)
		case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.EINVAL):
			err = fmt.Errorf("network: routes to node %s: its address %s is not on a network of this machine (%w); nodes must share one network", owner[p], via, err)
		case err != nil:
			err = fmt.Errorf("network: routes to node %s: %s via %s: %w", owner[p], p, via, err)
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// ownRoutes lists the routes with our protocol number.
func (n *Network) ownRoutes() ([]netlink.Route, error) {
	var all []netlink.Route
	for _, fam := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := n.nl.RouteListFiltered(fam, &netlink.Route{Protocol: routeProtocol}, netlink.RT_FILTER_PROTOCOL)
		if err != nil {
			return nil, fmt.Errorf("network: list the routes: %w", err)
		}
		for _, r := range routes {
			if r.Dst != nil {
				all = append(all, r)
			}
		}
	}
	return all, nil
}

func addrOf(ip []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// Teardown removes everything of this network from the machine, also pods
// that are attached. Setup makes it anew.
func (n *Network) Teardown() error {
	list, err := n.List()
	errs := []error{err}
	for _, a := range list {
		n.relays.set(a.PodUID, nil)
		unlock := n.lockPod(a.PodUID)
		errs = append(errs, n.unwire(a.PodUID))
		n.mu.Lock()
		errs = append(errs, n.leases.drop(a.PodUID))
		n.mu.Unlock()
		unlock()
	}
	routes, err := n.ownRoutes()
	errs = append(errs, err)
	for _, r := range routes {
		if err := n.nl.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("network: remove the route to %s: %w", r.Dst, err))
		}
	}
	errs = append(errs, n.removeRules())
	n.mu.Lock()
	n.bridge, n.peers = 0, nil
	n.mu.Unlock()
	link, err := n.nl.LinkByName(n.cfg.Bridge)
	if err == nil && link.Attrs().Alias == bridgeAlias {
		err = n.nl.LinkDel(link)
	}
	if err = ignoreGone(err); err != nil {
		errs = append(errs, fmt.Errorf("network: remove the bridge %s: %w", n.cfg.Bridge, err))
	}
	os.Remove(n.cfg.NetNSDir) // only if it is empty
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := os.RemoveAll(n.leases.dir); err != nil {
		return fmt.Errorf("network: remove the state: %w", err)
	}
	return os.MkdirAll(n.leases.dir, 0o700)
}
