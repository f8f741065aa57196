package iptables

import (
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/vip"
	"github.com/fingerpost/fingerpost/view/vip/conntrack"
)

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
	if d.flowCost <= d.cfg.slowLook {
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
	j := d.judge()
	for f := range d.flows {
		j.fronts[f] = d.table.Get(f)
	}
	n, err := conntrack.Cut(j.addrs(), j.stale)
	if err != nil {
		d.cfg.Log.Warn("iptables: UDP flows to endpoints that left may go on", "error", err)
	}
	d.metrics.cut(n)
	clear(d.flows)
	d.flowCost = time.Since(began)
}

// cutEarly cuts what was sent to a service before there were rules for it: its
// first packet went elsewhere untranslated, and conntrack would keep sending
// the client's repetitions after it (kubernetes/kubernetes#48719).
func (d *Driver) cutEarly() {
	j := d.judge()
	for at, f := range d.fronts {
		if at.Proto == catalog.TCP {
			j.fronts[at] = f
		}
	}
	n, err := conntrack.Cut(j.addrs(), func(f *conntrack.Flow) bool {
		_, known := j.front(f.To, f.Proto)
		return known && f.Untranslated()
	})
	if err != nil {
		d.cfg.Log.Warn("iptables: connections begun before the rules may hang until their client gives up", "error", err)
	}
	d.metrics.cut(n)
}

// judge says which flows have to go.
type judge struct {
	fronts map[vip.Front]*vip.Frontend // nil: there is none any more
	nodes  []netip.Addr                // where node ports answer; empty: on local
	local  []netip.Addr                // all addresses of this machine
	pods   []netip.Prefix
}

func (d *Driver) judge() *judge {
	j := &judge{fronts: map[vip.Front]*vip.Frontend{}, nodes: d.cfg.NodeAddresses, pods: d.cfg.PodCIDRs}
	all, err := net.InterfaceAddrs()
	if err != nil {
		d.cfg.Log.Warn("iptables: the machine's addresses cannot be read", "error", err)
	}
	for _, a := range all {
		if p, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(p.IP); ok {
				j.local = append(j.local, ip.Unmap())
			}
		}
	}
	return j
}

// addrs are the addresses that are asked about.
func (j *judge) addrs() (out []netip.Addr) {
	for f := range j.fronts {
		out = append(out, f.Addr.Addr())
	}
	return out
}

// stale says whether a flow leads where no new one would.
func (j *judge) stale(flow *conntrack.Flow) bool {
	if flow.Proto != catalog.UDP {
		return false
	}
	f, ok := j.front(flow.To, catalog.UDP)
	if !ok || f == nil {
		return ok
	}
	return !has(f.For(j.outside(flow.Client)), flow.Backend)
}

// front finds the frontend that is asked about and has an address; it may be
// gone.
func (j *judge) front(to netip.AddrPort, proto catalog.Protocol) (*vip.Frontend, bool) {
	if f, ok := j.fronts[vip.Front{Addr: to, Proto: proto}]; ok {
		return f, true
	}
	any := netip.IPv4Unspecified()
	if to.Addr().Is6() {
		any = netip.IPv6Unspecified()
	}
	f, ok := j.fronts[vip.Front{Addr: netip.AddrPortFrom(any, to.Port()), Proto: proto}]
	return f, ok && j.answersAt(to.Addr())
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
