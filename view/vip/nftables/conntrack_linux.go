package nftables

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/vip"
)

// cleanFlows cuts UDP flows that lead where they should not any more. That is
// done before Apply returns, unless it was done lately and took long: then it is
// done beside, for many changes at once, and takes a part of the time only.
func (d *Driver) cleanFlows() {
	if len(d.udp) == 0 {
		return
	}
	if d.cfg.FlowsFirst || d.cfg.Now().Sub(d.udpLooked) >= 3*d.udpCost {
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
	for i, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		var of []vip.Front
		for f := range d.udp {
			if index(f.Addr.Addr().Is6()) == i {
				of = append(of, f)
			}
		}
		if len(of) == 0 {
			continue
		}
		n, err := d.k.cutFlows(family, unix.IPPROTO_UDP, of, func(f *flow) bool { return d.stale(f.to, f.backend) })
		if err != nil {
			d.cfg.Log.Warn("nftables: UDP flows to endpoints that left may go on", "error", err)
		}
		d.metrics.cut(n)
	}
	clear(d.udp)
	d.udpCost, d.udpLooked = time.Since(began), d.cfg.Now()
}

// stale says whether a flow is of a frontend that changed, and leads to no
// backend of it.
func (d *Driver) stale(to, backend netip.AddrPort) bool {
	at := d.nodeFront(to, catalog.UDP)
	if _, touched := d.udp[at]; !touched {
		return false
	}
	if at.Addr != to && !d.answersAt(to.Addr()) {
		return false
	}
	front := d.fronts[at]
	if front == nil {
		return true
	}
	leads := func(b vip.Backend) bool { return b.Addr == backend }
	return !slices.ContainsFunc(front.Backends, leads) && !slices.ContainsFunc(front.Local, leads)
}

// cutEarly cuts what was sent to a service before there were rules for it: its
// first packet went elsewhere untranslated, and conntrack would keep sending
// the client's repetitions after it (kubernetes/kubernetes#48719).
func (d *Driver) cutEarly() {
	for i, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		var of []vip.Front
		for f := range d.fronts {
			if f.Proto == catalog.TCP && index(f.Addr.Addr().Is6()) == i {
				of = append(of, f)
			}
		}
		if d.families[i] == nil || len(of) == 0 {
			continue
		}
		n, err := d.k.cutFlows(family, unix.IPPROTO_TCP, of, func(f *flow) bool {
			at := d.nodeFront(f.to, catalog.TCP)
			return !f.answered && f.backend == f.to && d.fronts[at] != nil && (at.Addr == f.to || d.answersAt(f.to.Addr()))
		})
		if err != nil {
			d.cfg.Log.Warn("nftables: connections begun before the rules may hang until their client gives up", "error", err)
		}
		d.metrics.cut(n)
	}
}

// answersAt says whether node ports answer at an address; for all that is known
// any address may be one of this machine.
func (d *Driver) answersAt(a netip.Addr) bool {
	return len(d.cfg.NodeAddresses) == 0 || slices.Contains(d.cfg.NodeAddresses, a)
}

// The numbers of conntrack's messages and attributes (nfnetlink_conntrack.h).
const (
	ctGet    = unix.NFNL_SUBSYS_CTNETLINK<<8 | 1
	ctDelete = unix.NFNL_SUBSYS_CTNETLINK<<8 | 2

	ctaOrig, ctaReply, ctaStatus, ctaZone, ctaFilter = 1, 2, 3, 18, 25

	statusSeenReply = 1 << 1

	ctaTupleIP, ctaTupleProto    = 1, 2
	ctaV4Src, ctaV4Dst           = 1, 2
	ctaV6Src, ctaV6Dst           = 3, 4
	ctaProtoNum                  = 1
	ctaProtoSrcPort, ctaProtoDst = 2, 3
	filterNum, filterDPt         = 1 << 3, 1 << 5
)

// cutFlows deletes the flows of a protocol that stale picks. The kernel is asked
// for that protocol only, and for one port if all frontends have it; before
// Linux 5.8 it gives everything.
func (k *kernel) cutFlows(family, protocol byte, of []vip.Front, stale func(*flow) bool) (int, error) {
	filter := uint32(filterNum)
	proto := []netlink.Attribute{{Type: ctaProtoNum, Data: []byte{protocol}}}
	// Not by address: the kernel's filter has that the wrong way round for IPv6.
	port := of[0].Addr.Port()
	if !slices.ContainsFunc(of, func(f vip.Front) bool { return f.Addr.Port() != port }) {
		filter |= filterDPt
		proto = append(proto, netlink.Attribute{Type: ctaProtoDst, Data: binary.BigEndian.AppendUint16(nil, port)})
	}
	var doomed [][]byte
	err := k.dump(ctGet, family, []netlink.Attribute{
		nested(ctaOrig, nested(ctaTupleProto, proto...)),
		nested(ctaFilter,
			netlink.Attribute{Type: 1, Data: binary.NativeEndian.AppendUint32(nil, filter)},
			netlink.Attribute{Type: 2, Data: make([]byte, 4)}),
	}, func() { doomed = nil }, func(b []byte) error {
		f, err := decodeFlow(b)
		if err == nil && f.protocol == protocol && stale(&f) {
			doomed = append(doomed, append([]byte{family, unix.NFNETLINK_V0, 0, 0}, f.name...))
		}
		return err
	})
	if err != nil || len(doomed) == 0 {
		return 0, err
	}
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: k.netns})
	if err != nil {
		return 0, err
	}
	defer c.Close()
	n := 0
	for _, name := range doomed {
		_, err := c.Execute(netlink.Message{
			Header: netlink.Header{Type: ctDelete, Flags: netlink.Request | netlink.Acknowledge}, Data: name,
		})
		switch {
		case err == nil:
			n++
		case !errors.Is(err, unix.ENOENT): // it ended by itself
			return n, err
		}
	}
	return n, nil
}

func nested(kind uint16, attrs ...netlink.Attribute) netlink.Attribute {
	data, _ := netlink.MarshalAttributes(attrs) // fails for more than 64 KiB only
	return netlink.Attribute{Type: kind | unix.NLA_F_NESTED, Data: data}
}

// flow is what is needed of a conntrack entry.
type flow struct {
	protocol byte
	to       netip.AddrPort // of the client's packets
	backend  netip.AddrPort // who answers
	answered bool           // there was a packet in the other direction
	name     []byte         // the attributes that name it
}

func decodeFlow(b []byte) (f flow, err error) {
	var inner error
	err = attributes(b, func(kind uint16, v []byte) {
		switch kind {
		case ctaOrig:
			f.name = appendAttribute(f.name, kind|unix.NLA_F_NESTED, v)
			var e error
			_, f.to, f.protocol, e = decodeTuple(v)
			inner = errors.Join(inner, e)
		case ctaReply:
			var e error
			f.backend, _, _, e = decodeTuple(v)
			inner = errors.Join(inner, e)
		case ctaStatus:
			f.answered = len(v) == 4 && binary.BigEndian.Uint32(v)&statusSeenReply != 0
		case ctaZone:
			f.name = appendAttribute(f.name, kind, v)
		}
	})
	return f, errors.Join(err, inner)
}

func appendAttribute(b []byte, kind uint16, v []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofNlAttr+len(v)))
	b = append(binary.NativeEndian.AppendUint16(b, kind), v...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// decodeTuple decodes one direction of a flow.
func decodeTuple(b []byte) (src, dst netip.AddrPort, protocol byte, err error) {
	var addrs [2]netip.Addr
	var ports [2]uint16
	var inner error
	err = attributes(b, func(kind uint16, v []byte) {
		switch kind {
		case ctaTupleIP:
			inner = errors.Join(inner, attributes(v, func(kind uint16, v []byte) {
				switch kind {
				case ctaV4Src, ctaV6Src:
					addrs[0], _ = netip.AddrFromSlice(v)
				case ctaV4Dst, ctaV6Dst:
					addrs[1], _ = netip.AddrFromSlice(v)
				}
			}))
		case ctaTupleProto:
			inner = errors.Join(inner, attributes(v, func(kind uint16, v []byte) {
				switch {
				case kind == ctaProtoNum && len(v) == 1:
					protocol = v[0]
				case kind == ctaProtoSrcPort && len(v) == 2:
					ports[0] = binary.BigEndian.Uint16(v)
				case kind == ctaProtoDst && len(v) == 2:
					ports[1] = binary.BigEndian.Uint16(v)
				}
			}))
		}
	})
	return netip.AddrPortFrom(addrs[0], ports[0]), netip.AddrPortFrom(addrs[1], ports[1]), protocol, errors.Join(err, inner)
}
