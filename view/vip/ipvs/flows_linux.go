package ipvs

import (
	"errors"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/vip"
)

// cutFlows deletes the entries of conntrack for UDP flows that lead where no new
// one would; IPVS itself forgets them with the endpoint.
func (d *Driver) cutFlows() {
	if len(d.flows) == 0 {
		return
	}
	defer clear(d.flows)
	h, err := netlink.NewHandle(unix.NETLINK_NETFILTER)
	if err == nil {
		defer h.Close()
		for i, af := range []int{unix.AF_INET, unix.AF_INET6} {
			some := false
			for f := range d.flows {
				some = some || index(f.Addr.Addr().Is6()) == i
			}
			if !some {
				continue
			}
			// A table that changes while it is read may have been read in part.
			for range 5 {
				n, e := h.ConntrackDeleteFilters(netlink.ConntrackTable, netlink.InetFamily(af), flowFilter{d})
				d.metrics.flows.Add(float64(n))
				if !errors.Is(e, netlink.ErrDumpInterrupted) {
					err = errors.Join(err, e)
					break
				}
			}
		}
	}
	if err != nil {
		d.cfg.Log.Warn("ipvs: UDP flows to endpoints that left may go on", "error", err)
	}
}

type flowFilter struct{ d *Driver }

// MatchConntrackFlow says whether a flow goes.
func (f flowFilter) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	if flow.Forward.Protocol != unix.IPPROTO_UDP {
		return false
	}
	to, ok := netip.AddrFromSlice(flow.Forward.DstIP)
	if !ok {
		return false
	}
	from, _ := netip.AddrFromSlice(flow.Reverse.SrcIP)
	return f.d.stale(netip.AddrPortFrom(to.Unmap(), flow.Forward.DstPort), netip.AddrPortFrom(from.Unmap(), flow.Reverse.SrcPort))
}

// stale says whether a flow is of a frontend that changed, and leads to no
// backend of it.
func (d *Driver) stale(to, backend netip.AddrPort) bool {
	at := vip.Front{Addr: to, Proto: catalog.UDP}
	if _, touched := d.flows[at]; !touched {
		return false
	}
	w := d.want[at]
	if w == nil {
		return true
	}
	leads := func(b vip.Backend) bool { return b.Addr == backend }
	return !slices.ContainsFunc(w.backends, leads) && !slices.ContainsFunc(w.others, leads)
}
