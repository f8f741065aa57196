package iptables

import (
	"net/netip"
	"slices"
	"time"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/vip"
)

// slowLook is how long a look at all UDP flows may take to be done before Apply
// returns; where it takes longer, Run does it for many changes at once.
const slowLook = time.Second

// noteFlows remembers the UDP frontends whose flows may lead where they should
// not after a difference.
func (d *Driver) noteFlows(diff *vip.Diff, before func(vip.Front) *vip.Frontend) {
	for _, f := range diff.Removed {
		if f.Proto == catalog.UDP {
			d.flows[f] = struct{}{}
		}
	}
	for _, f := range diff.Put {
		if f.Proto == catalog.UDP && lost(before(f.Front), f) {
			d.flows[f.Front] = struct{}{}
		}
	}
}

// lost says whether a backend left; or there was none, and packets went out
// untranslated; or the rules of who goes where have changed.
func lost(was, is *vip.Frontend) bool {
	if was == nil || was.LocalOnly != is.LocalOnly || len(was.Backends) == 0 || len(was.Local) == 0 && len(is.Local) > 0 {
		return true
	}
	for _, lists := range [][2][]vip.Backend{{was.Backends, is.Backends}, {was.Local, is.Local}} {
		for _, b := range lists[0] {
			if !has(lists[1], b.Addr) {
				return true
			}
		}
	}
	return false
}

func has(all []vip.Backend, a netip.AddrPort) bool {
	return slices.ContainsFunc(all, func(b vip.Backend) bool { return b.Addr == a })
}

// cleanFlows cuts UDP flows that lead where they should not any more.
func (d *Driver) cleanFlows() {
	if len(d.flows) == 0 {
		return
	}
	if d.flowCost <= slowLook {
		d.lookAtFlows()
		return
	}
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// lookAtFlows goes through the flows that the kernel knows, once for all
// frontends that changed.
func (d *Driver) lookAtFlows() {
	if len(d.flows) == 0 {
		return
	}
	began := time.Now()
	j := judge{fronts: map[vip.Front]*vip.Frontend{}, nodes: d.cfg.NodeAddresses, pods: d.cfg.PodCIDRs}
	for f := range d.flows {
		j.fronts[f] = d.table.Get(f)
	}
	n, err := cutFlows(&j)
	if err != nil {
		d.cfg.Log.Warn("iptables: UDP flows to endpoints that left may go on", "error", err)
	}
	d.metrics.cut(n)
	clear(d.flows)
	d.flowCost = time.Since(began)
}

// judge says which UDP flows have to go.
type judge struct {
	fronts map[vip.Front]*vip.Frontend // nil: there is none any more
	nodes  []netip.Addr                // where node ports answer; empty: on local
	local  []netip.Addr                // all addresses of this machine
	pods   []netip.Prefix
}

// stale says whether a flow from a client to an address, answered by a backend,
// leads where no new one would.
func (j *judge) stale(client netip.Addr, to, backend netip.AddrPort) bool {
	f, ok := j.fronts[vip.Front{Addr: to, Proto: catalog.UDP}]
	if !ok {
		any := netip.IPv4Unspecified()
		if to.Addr().Is6() {
			any = netip.IPv6Unspecified()
		}
		f, ok = j.fronts[vip.Front{Addr: netip.AddrPortFrom(any, to.Port()), Proto: catalog.UDP}]
		if !ok || !j.answersAt(to.Addr()) {
			return false
		}
	}
	if f == nil {
		return true
	}
	return !has(f.For(j.outside(client)), backend)
}

// outside says whether policy Local is for a client: neither this machine nor,
// if it is known who that is, a pod.
func (j *judge) outside(client netip.Addr) bool {
	return !slices.Contains(j.local, client) && !slices.ContainsFunc(j.pods, func(p netip.Prefix) bool { return p.Contains(client) })
}

func (j *judge) answersAt(a netip.Addr) bool {
	if len(j.nodes) == 0 {
		return slices.Contains(j.local, a)
	}
	return slices.Contains(j.nodes, a)
}
