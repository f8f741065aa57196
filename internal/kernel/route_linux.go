package kernel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// AddLocalRange makes every address of prefix an address of this machine, with
// one route of type local on lo (as `ip route add local 10.96.0.0/16 dev lo`
// does). IPv4 sockets can then be bound to any of them; IPv6 sockets too, with
// the option IPV6_FREEBIND. It needs root or CAP_NET_ADMIN.
func AddLocalRange(prefix netip.Prefix) error {
	prefix, err := checkRange(prefix)
	if err != nil {
		return fmt.Errorf("kernel: add local range: %w", err)
	}
	routes, err := listRoutes(prefix.Addr())
	if err != nil {
		return fmt.Errorf("kernel: add local range %s: read the routes: %w", prefix, err)
	}
	covered, err := conflict(routes, prefix)
	if err != nil {
		return fmt.Errorf("kernel: add local range %s: %w", prefix, err)
	}
	if covered {
		return nil
	}
	err = changeRoute(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, prefix)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("kernel: add local range %s: %w%s", prefix, err, adviceFor(err))
	}
	return nil
}

// RemoveLocalRange undoes AddLocalRange. A range that is not there, or that
// somebody else made, is left as it is.
func RemoveLocalRange(prefix netip.Prefix) error {
	prefix, err := checkRange(prefix)
	if err != nil {
		return fmt.Errorf("kernel: remove local range: %w", err)
	}
	// The kernel compares the protocol number too, so it finds only ours.
	err = changeRoute(unix.RTM_DELROUTE, 0, prefix)
	if err != nil && !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("kernel: remove local range %s: %w%s", prefix, err, adviceFor(err))
	}
	return nil
}

func adviceFor(err error) string {
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return "; run as root, or choose a --service-cidr inside 127.0.0.0/8, which needs no rights"
	case errors.Is(err, unix.ENETDOWN), errors.Is(err, unix.ENETUNREACH):
		return "; the loopback device is down: run `ip link set lo up`"
	case errors.Is(err, unix.EAFNOSUPPORT), errors.Is(err, unix.EOPNOTSUPP):
		return "; this kernel has that address family switched off"
	}
	return ""
}

func changeRoute(kind, flags uint16, prefix netip.Prefix) error {
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		return fmt.Errorf("no loopback device: %w", err)
	}
	if kind == unix.RTM_NEWROUTE && lo.Flags&net.FlagUp == 0 {
		return unix.ENETDOWN // the kernel would take the route, and drop every packet
	}
	scope := byte(unix.RT_SCOPE_HOST)
	if prefix.Addr().Is6() {
		scope = unix.RT_SCOPE_UNIVERSE // IPv6 knows no other
	}
	m := newMessage(kind, flags|unix.NLM_F_ACK)
	m.rtmsg(family(prefix.Addr()), byte(prefix.Bits()), unix.RT_TABLE_LOCAL, routeProtocol, scope, unix.RTN_LOCAL)
	m.attr(unix.RTA_DST, prefix.Addr().AsSlice())
	m.attrUint32(unix.RTA_OIF, uint32(lo.Index))
	_, err = m.roundTrip()
	return err
}

// listRoutes reads all routes of the family of like, in all tables.
func listRoutes(like netip.Addr) ([]route, error) {
	m := newMessage(unix.RTM_GETROUTE, unix.NLM_F_DUMP)
	m.rtmsg(family(like), 0, 0, 0, 0, 0)
	answers, err := m.roundTrip()
	if err != nil {
		return nil, err
	}
	names := map[uint32]string{}
	if all, err := net.Interfaces(); err == nil {
		for _, i := range all {
			names[uint32(i.Index)] = i.Name
		}
	}
	var routes []route
	for _, a := range answers {
		if a.kind != unix.RTM_NEWROUTE {
			continue
		}
		if r, cloned, ok := parseRoute(a.body, names); ok && !cloned {
			routes = append(routes, r)
		}
	}
	return routes, nil
}

// parseRoute reads a struct rtmsg with its attributes.
func parseRoute(b []byte, names map[uint32]string) (r route, cloned, ok bool) {
	if len(b) < unix.SizeofRtMsg {
		return r, false, false
	}
	fam, bits, typ := b[0], int(b[1]), b[7]
	addr := netip.IPv4Unspecified()
	if fam == unix.AF_INET6 {
		addr = netip.IPv6Unspecified()
	}
	r.table = uint32(b[4])
	r.ours = b[5] == routeProtocol && typ == unix.RTN_LOCAL
	r.typ = routeType(typ)
	for kind, v := range attributes(b[unix.SizeofRtMsg:]) {
		switch kind {
		case unix.RTA_DST:
			if a, ok := netip.AddrFromSlice(v); ok {
				addr = a
			}
		case unix.RTA_GATEWAY:
			r.via, _ = netip.AddrFromSlice(v)
		case unix.RTA_OIF:
			r.dev = names[number(v)]
		case unix.RTA_TABLE:
			r.table = number(v)
		}
	}
	r.dst = netip.PrefixFrom(addr, bits)
	return r, flagsOf(b)&unix.RTM_F_CLONED != 0, r.dst.IsValid()
}

func routeType(t byte) string {
	switch t {
	case unix.RTN_UNICAST:
		return "unicast"
	case unix.RTN_LOCAL:
		return "local"
	case unix.RTN_BROADCAST:
		return "broadcast"
	case unix.RTN_ANYCAST:
		return "anycast"
	case unix.RTN_MULTICAST:
		return "multicast"
	case unix.RTN_BLACKHOLE:
		return "blackhole"
	case unix.RTN_UNREACHABLE:
		return "unreachable"
	case unix.RTN_PROHIBIT:
		return "prohibit"
	}
	return fmt.Sprintf("type-%d", t)
}

// IsLocalAddress says whether packets to addr stay on this machine: its own
// addresses, loopback, and ranges made local.
func IsLocalAddress(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	if !addr.IsValid() || addr.IsUnspecified() || addr.IsMulticast() {
		return false
	}
	m := newMessage(unix.RTM_GETROUTE, 0)
	m.rtmsg(family(addr), byte(addr.BitLen()), 0, 0, 0, 0)
	m.attr(unix.RTA_DST, addr.AsSlice())
	answers, err := m.roundTrip()
	if err != nil || len(answers) == 0 {
		return false // no route to it at all
	}
	b := answers[0].body
	return len(b) >= unix.SizeofRtMsg && b[7] == unix.RTN_LOCAL
}

func family(a netip.Addr) byte {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
