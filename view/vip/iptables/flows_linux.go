package iptables

import (
	"errors"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// cutFlows deletes what the judge says, and gives how many there were.
func cutFlows(j *judge) (n int, err error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return 0, err
	}
	for _, a := range all {
		if p, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(p.IP); ok {
				j.local = append(j.local, ip.Unmap())
			}
		}
	}
	h, err := netlink.NewHandle(unix.NETLINK_NETFILTER)
	if err != nil {
		return 0, err
	}
	defer h.Close()
	var families [2]bool
	for f := range j.fronts {
		families[index(f.Addr.Addr().Is6())] = true
	}
	var errs []error
	for i, af := range []int{unix.AF_INET, unix.AF_INET6} {
		if !families[i] {
			continue
		}
		// A table that changes while it is read may have been read in part.
		var err error
		for range 5 {
			var cut uint
			cut, err = h.ConntrackDeleteFilters(netlink.ConntrackTable, netlink.InetFamily(af), flowFilter{j})
			n += int(cut)
			if !errors.Is(err, netlink.ErrDumpInterrupted) {
				break
			}
		}
		errs = append(errs, err)
	}
	return n, errors.Join(errs...)
}

type flowFilter struct{ *judge }

// MatchConntrackFlow says whether a flow goes.
func (f flowFilter) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	if flow.Forward.Protocol != unix.IPPROTO_UDP {
		return false
	}
	to, ok := netip.AddrFromSlice(flow.Forward.DstIP)
	if !ok {
		return false
	}
	client, _ := netip.AddrFromSlice(flow.Forward.SrcIP)
	from, _ := netip.AddrFromSlice(flow.Reverse.SrcIP)
	return f.stale(client.Unmap(), netip.AddrPortFrom(to.Unmap(), flow.Forward.DstPort), netip.AddrPortFrom(from.Unmap(), flow.Reverse.SrcPort))
}
