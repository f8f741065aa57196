package conntrack

import (
	"errors"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/fingerpost/fingerpost/catalog"
)

// Cut deletes the TCP and UDP flows of the address families of to that pick
// says, and gives how many there were. pick may be asked more than once about
// one flow.
func Cut(to []netip.Addr, pick func(*Flow) bool) (n int, err error) {
	var families []int
	for _, want := range []struct {
		v6     bool
		family int
	}{{false, unix.AF_INET}, {true, unix.AF_INET6}} {
		for _, a := range to {
			if a.Is6() == want.v6 {
				families = append(families, want.family)
				break
			}
		}
	}
	if len(families) == 0 {
		return 0, nil
	}
	h, err := netlink.NewHandle(unix.NETLINK_NETFILTER)
	if err != nil {
		return 0, err
	}
	defer h.Close()
	var errs []error
	for _, af := range families {
		// A table that changes while it is read may have been read in part.
		var err error
		for range 5 {
			var cut uint
			cut, err = h.ConntrackDeleteFilters(netlink.ConntrackTable, netlink.InetFamily(af), filter(pick))
			n += int(cut)
			if !errors.Is(err, netlink.ErrDumpInterrupted) {
				break
			}
		}
		errs = append(errs, err)
	}
	return n, errors.Join(errs...)
}

type filter func(*Flow) bool

// MatchConntrackFlow says whether a flow goes.
func (pick filter) MatchConntrackFlow(c *netlink.ConntrackFlow) bool {
	f := Flow{Client: addr(c.Forward.SrcIP), To: netip.AddrPortFrom(addr(c.Forward.DstIP), c.Forward.DstPort),
		Backend: netip.AddrPortFrom(addr(c.Reverse.SrcIP), c.Reverse.SrcPort)}
	switch c.Forward.Protocol {
	case unix.IPPROTO_UDP:
		f.Proto = catalog.UDP
	case unix.IPPROTO_TCP:
		f.Proto = catalog.TCP
	default:
		return false
	}
	if tcp, ok := c.ProtoInfo.(*netlink.ProtoInfoTCP); ok {
		switch tcp.State {
		case nl.TCP_CONNTRACK_SYN_SENT:
			f.State = Begun
		case nl.TCP_CONNTRACK_TIME_WAIT, nl.TCP_CONNTRACK_CLOSE:
			f.State = Over
		}
	}
	return f.To.Addr().IsValid() && pick(&f)
}

func addr(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}
