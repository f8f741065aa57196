package kernel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// AddReach makes this machine try to send to the addresses of prefix if it has
// no way to them, not even a default route: without one the kernel refuses
// before rules could translate the destination. The route leads to lo, where
// what was not translated is not answered. It says whether it made one.
func AddReach(prefix netip.Prefix) (bool, error) {
	prefix, err := checkRange(prefix)
	if err != nil {
		return false, fmt.Errorf("kernel: add a route to %s: %w", prefix, err)
	}
	m := newMessage(unix.RTM_GETROUTE, 0)
	m.rtmsg(family(prefix.Addr()), byte(prefix.Addr().BitLen()), 0, 0, 0, 0)
	m.attr(unix.RTA_DST, prefix.Addr().Next().AsSlice())
	if answers, err := m.roundTrip(); err == nil && len(answers) > 0 {
		return false, nil
	}
	err = reachRoute(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, prefix)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return false, fmt.Errorf("kernel: add a route to %s: %w%s", prefix, err, adviceFor(err))
	}
	return err == nil, nil
}

// RemoveReach undoes AddReach; a route that is not there is no error.
func RemoveReach(prefix netip.Prefix) error {
	err := reachRoute(unix.RTM_DELROUTE, 0, prefix.Masked())
	if err != nil && !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("kernel: remove the route to %s: %w", prefix, err)
	}
	return nil
}

func reachRoute(kind, flags uint16, prefix netip.Prefix) error {
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		return fmt.Errorf("no loopback device: %w", err)
	}
	scope := byte(unix.RT_SCOPE_LINK)
	if prefix.Addr().Is6() {
		scope = unix.RT_SCOPE_UNIVERSE
	}
	m := newMessage(kind, flags|unix.NLM_F_ACK)
	m.rtmsg(family(prefix.Addr()), byte(prefix.Bits()), unix.RT_TABLE_MAIN, routeProtocol, scope, unix.RTN_UNICAST)
	m.attr(unix.RTA_DST, prefix.Addr().AsSlice())
	m.attrUint32(unix.RTA_OIF, uint32(lo.Index))
	_, err = m.roundTrip()
	return err
}
