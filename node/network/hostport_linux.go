package network

import (
	"errors"
	"net"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// SetHostPorts opens exactly these ports of the node for a pod. When one is
// taken, nothing changes and the error (ErrPortTaken) names the pod that has
// it.
func (n *Network) SetHostPorts(podUID string, ports []HostPort) error {
	if err := checkUID(podUID); err != nil {
		return err
	}
	defer n.lockPod(podUID)()
	n.mu.Lock()
	known := n.leases.byUID[podUID] != nil
	n.mu.Unlock()
	if !known && len(ports) == 0 {
		return nil // no network, so no ports
	}
	return n.changePorts(podUID, ports)
}

// changePorts is SetHostPorts with the pod locked.
func (n *Network) changePorts(uid string, ports []HostPort) error {
	n.mu.Lock()
	before := n.leases.byUID[uid]
	err := n.leases.setHostPorts(uid, ports)
	after := n.leases.byUID[uid]
	n.mu.Unlock()
	if err != nil {
		return err
	}
	n.relays.set(uid, after)
	if before == after {
		return nil
	}
	if err := n.applyRules(false); err != nil {
		n.mu.Lock()
		n.leases.byUID[uid] = before
		err = errors.Join(err, n.leases.save(before))
		n.mu.Unlock()
		n.relays.set(uid, before)
		return err
	}
	n.forgetFlows(slices.Concat(before.HostPorts, after.HostPorts))
	return nil
}

// forgetFlows drops what conntrack knows of UDP host ports: a client that
// keeps sending would keep its old translation, or have none, for ever.
func (n *Network) forgetFlows(ports []HostPort) {
	filter := udpPorts{}
	for _, p := range ports {
		if p.Protocol == UDP {
			filter[p.Port] = p.HostIP.AsSlice()
			if p.everywhere() {
				filter[p.Port] = nil
			}
		}
	}
	if len(filter) == 0 {
		return
	}
	err := onThread(n.host.fd(), func() error {
		h, err := netlink.NewHandle(unix.NETLINK_NETFILTER)
		if err != nil {
			return err
		}
		defer h.Close()
		for _, fam := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
			if _, ferr := h.ConntrackDeleteFilters(netlink.ConntrackTable, fam, filter); ferr != nil {
				err = errors.Join(err, ferr)
			}
		}
		return err
	})
	if err != nil {
		n.cfg.Log.Warn("old flows of UDP host ports may go on to the wrong pod for some minutes", "err", err)
	}
}

// udpPorts matches flows to these ports, and to these addresses if not nil.
type udpPorts map[uint16]net.IP

// MatchConntrackFlow tells the netlink library which flows to delete.
func (u udpPorts) MatchConntrackFlow(f *netlink.ConntrackFlow) bool {
	ip, ok := u[f.Forward.DstPort]
	return ok && f.Forward.Protocol == unix.IPPROTO_UDP && (ip == nil || ip.Equal(f.Forward.DstIP))
}
