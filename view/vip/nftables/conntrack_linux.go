package nftables

import (
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/vip"
)

// slowLook is how long a look at all UDP flows may take to be done before Apply
// returns; where it takes longer it is done beside, for many changes at once.
const slowLook = 100 * time.Millisecond

// cleanFlows cuts UDP flows that lead where they should not any more.
func (d *Driver) cleanFlows() {
	if len(d.udp) == 0 {
		return
	}
	if d.udpCost <= slowLook {
		d.lookAtFlows()
		return
	}
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// lookAtFlows goes through the flows that conntrack knows, once for all
// frontends that changed.
func (d *Driver) lookAtFlows() {
	if len(d.udp) == 0 {
		return
	}
	began := time.Now()
	h, err := d.conntrack()
	if err != nil {
		d.cfg.Log.Warn("nftables: UDP flows to endpoints that left may go on: conntrack cannot be asked", "error", err)
		clear(d.udp)
		return
	}
	defer h.Close()
	var families [2]bool
	for f := range d.udp {
		families[index(f.Addr.Addr().Is6())] = true
	}
	for i, wanted := range families {
		if !wanted {
			continue
		}
		n, err := h.ConntrackDeleteFilters(netlink.ConntrackTable, netlink.InetFamily([2]int{unix.AF_INET, unix.AF_INET6}[i]), stale{d})
		if err != nil {
			d.cfg.Log.Warn("nftables: UDP flows to endpoints that left may go on", "error", err)
		}
		d.metrics.cut(int(n))
	}
	clear(d.udp)
	d.udpCost = time.Since(began)
	d.cfg.Log.Debug("nftables: looked at the UDP flows", "took", d.udpCost)
}

func (d *Driver) conntrack() (*netlink.Handle, error) {
	if d.cfg.netns != 0 {
		return netlink.NewHandleAt(netns.NsHandle(d.cfg.netns), unix.NETLINK_NETFILTER)
	}
	return netlink.NewHandle(unix.NETLINK_NETFILTER)
}

// stale finds flows of the frontends that changed which lead to no backend of
// theirs.
type stale struct{ d *Driver }

func (s stale) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	if flow.Forward.Protocol != unix.IPPROTO_UDP {
		return false
	}
	to, ok := addrPort(flow.Forward.DstIP, flow.Forward.DstPort)
	if !ok {
		return false
	}
	at := s.d.nodeFront(to, catalog.UDP)
	if _, touched := s.d.udp[at]; !touched {
		return false
	}
	if at.Addr != to && !s.d.answersAt(to.Addr()) {
		return false
	}
	front := s.d.fronts[at]
	if front == nil {
		return true
	}
	backend, _ := addrPort(flow.Reverse.SrcIP, flow.Reverse.SrcPort)
	leads := func(b vip.Backend) bool { return b.Addr == backend }
	return !slices.ContainsFunc(front.Backends, leads) && !slices.ContainsFunc(front.Local, leads)
}

// answersAt says whether node ports answer at an address; for all that is known
// any address may be one of this machine.
func (d *Driver) answersAt(a netip.Addr) bool {
	return len(d.cfg.NodeAddresses) == 0 || slices.Contains(d.cfg.NodeAddresses, a)
}

func addrPort(ip net.IP, port uint16) (netip.AddrPort, bool) {
	a, ok := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(a.Unmap(), port), ok
}
