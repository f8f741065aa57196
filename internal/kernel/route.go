package kernel

import (
	"fmt"
	"net/netip"
)

// routeProtocol marks our routes. rtnetlink(7) leaves the numbers above 4 to
// user space; this one is in no published list.
const routeProtocol = 102

// route is one row of the kernel's tables, as far as we care.
type route struct {
	dst   netip.Prefix
	typ   string // "unicast", "local", "blackhole" …
	dev   string
	via   netip.Addr
	table uint32
	ours  bool
}

func (r route) String() string {
	s := r.typ + " " + r.dst.String()
	if r.via.IsValid() {
		s += " via " + r.via.String()
	}
	if r.dev != "" {
		s += " dev " + r.dev
	}
	return s
}

// conflict finds a route that would fight with making prefix local, or reports
// that the range is covered: local already, by our route or because it lies in
// the loopback network.
func conflict(routes []route, prefix netip.Prefix) (covered bool, err error) {
	for _, r := range routes {
		if r.dst.Bits() == 0 || !r.dst.Overlaps(prefix) {
			continue
		}
		whole := r.typ == "local" && r.dev == "lo" && r.dst.Bits() <= prefix.Bits()
		switch {
		case whole && (r.ours || r.dst.Addr().IsLoopback()):
			covered = true
		case r.dst.Addr().IsLoopback(), r.ours:
			// Part of the loopback network, or a narrower range of ours left
			// from another configuration: it means the same thing.
		default:
			return false, fmt.Errorf("this machine already has the route %q, which overlaps %s; choose a --service-cidr that nothing here uses, or remove that route", r, prefix)
		}
	}
	return covered, nil
}

func checkRange(prefix netip.Prefix) (netip.Prefix, error) {
	switch {
	case !prefix.IsValid():
		return prefix, fmt.Errorf("not a range of addresses; write it like 10.96.0.0/16")
	case prefix.Addr().Is4In6():
		return prefix, fmt.Errorf("%s is an IPv4 range written as IPv6; write it like 10.96.0.0/16", prefix)
	case prefix.Bits() < 8:
		return prefix, fmt.Errorf("%s is wider than /8 and would swallow addresses of other machines; choose a narrower --service-cidr", prefix)
	case prefix.Addr().IsMulticast(), prefix.Addr().IsUnspecified(), prefix.Addr().IsLinkLocalUnicast():
		return prefix, fmt.Errorf("%s cannot hold service addresses; choose a private range such as 10.96.0.0/16", prefix)
	}
	return prefix.Masked(), nil
}
