package ipvs

import (
	"net/netip"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/vip"
	"github.com/fingerpost/fingerpost/view/vip/conntrack"
)

// cutFlows deletes the entries of conntrack for flows that lead where no new one
// would; IPVS itself forgets them with the endpoint. Of TCP these are connections
// that are over: the kernel drops the first packet of a client that uses its port
// again while the entry leads to a server that left. early: also connections
// that were begun before there were rules.
func (d *Driver) cutFlows(early bool) {
	var to []netip.Addr
	for f := range d.flows {
		to = append(to, f.Addr.Addr())
	}
	if early {
		for f := range d.want {
			to = append(to, f.Addr.Addr())
		}
	}
	if len(to) == 0 {
		return
	}
	defer clear(d.flows)
	n, err := conntrack.Cut(to, func(f *conntrack.Flow) bool {
		if early && f.Untranslated() && d.want[vip.Front{Addr: f.To, Proto: f.Proto}] != nil {
			return true
		}
		return d.stale(f)
	})
	d.metrics.flows.Add(float64(n))
	if err != nil {
		d.cfg.Log.Warn("ipvs: flows to endpoints that left may go on", "error", err)
	}
}

// stale says whether a flow is of a frontend that changed, and leads to no
// backend of it.
func (d *Driver) stale(f *conntrack.Flow) bool {
	if f.Proto == catalog.TCP && f.State != conntrack.Over {
		return false
	}
	at := vip.Front{Addr: f.To, Proto: f.Proto}
	if _, touched := d.flows[at]; !touched {
		return false
	}
	w := d.want[at]
	return w == nil || !w.leads(f.Backend)
}
