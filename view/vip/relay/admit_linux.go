package relay

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/fingerpost/fingerpost/catalog"
)

// free says whether a socket can have the address.
func free(s spot) bool {
	var lc net.ListenConfig
	lc.Control = func(_, _ string, c syscall.RawConn) (err error) {
		if s.addr.Addr().Is4() {
			return nil
		}
		e := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, 1) })
		return errors.Join(e, err)
	}
	if s.proto == catalog.UDP {
		c, err := lc.ListenPacket(context.Background(), "udp", s.addr.String())
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	}
	l, err := lc.Listen(context.Background(), "tcp", s.addr.String())
	if err == nil {
		_ = l.Close()
	}
	return err == nil
}

// doubt asks connection tracking about clients.
type doubt struct {
	mu     sync.Mutex
	fd     int // 0: none
	seq    uint32
	closed bool
	buf    [4096]byte
}

func (d *doubt) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	d.give()
}

func (d *doubt) give() {
	if d.fd > 0 {
		_ = unix.Close(d.fd)
		d.fd = 0
	}
}

// admit says whether a client was sent to a relay by rules.
func (r *Relay) admit(proto catalog.Protocol, client, at netip.AddrPort) bool {
	meant, err := r.doubt.meant(proto, client, at)
	switch {
	case err == nil && meant.IsValid() && meant != at:
		return true
	case err != nil && !errors.Is(err, unix.ENOENT):
		r.cfg.Log.Warn("relay: a client was refused, because connection tracking does not say where it wanted to go", "client", client, "error", err)
	}
	r.refused.Inc()
	return false
}

// The numbers of conntrack's messages and attributes (nfnetlink_conntrack.h).
const (
	ctGet = unix.NFNL_SUBSYS_CTNETLINK<<8 | 1

	ctaOrig, ctaReply            = 1, 2
	ctaTupleIP, ctaTupleProto    = 1, 2
	ctaV4Src, ctaV4Dst           = 1, 2
	ctaV6Src, ctaV6Dst           = 3, 4
	ctaProtoNum                  = 1
	ctaProtoSrcPort, ctaProtoDst = 2, 3
	headerLen                    = 4 // of struct nfgenmsg
)

// meant gives the address that a client's first packet was for. The flow is
// found by its replies, which go from us to the client.
func (d *doubt) meant(proto catalog.Protocol, client, at netip.AddrPort) (netip.AddrPort, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return netip.AddrPort{}, net.ErrClosed
	}
	b, err := d.ask(question(proto, client, at))
	if err != nil {
		if !errors.Is(err, unix.ENOENT) {
			d.give()
		}
		return netip.AddrPort{}, err
	}
	return destination(b)
}

// ask sends a question and gives the answer. The kernel marks it as the first
// of several, which it is not, so that the usual libraries wait for ever.
func (d *doubt) ask(question []byte) ([]byte, error) {
	if d.fd == 0 {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
		if err != nil {
			return nil, err
		}
		limit := unix.NsecToTimeval(int64(time.Second))
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
			_ = unix.Close(fd)
			return nil, err
		}
		d.fd = fd
	}
	d.seq++
	ne := binary.NativeEndian
	m := ne.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(question)))
	m = ne.AppendUint16(m, ctGet)
	m = ne.AppendUint16(m, unix.NLM_F_REQUEST)
	m = ne.AppendUint32(m, d.seq)
	m = append(ne.AppendUint32(m, 0), question...)
	if err := unix.Sendto(d.fd, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	for {
		n, _, err := unix.Recvfrom(d.fd, d.buf[:], 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if seq, body, err := answer(d.buf[:n]); err != nil || seq == d.seq {
			return body, err
		}
	}
}

// answer takes the first message of what the kernel sent.
func answer(b []byte) (seq uint32, body []byte, err error) {
	ne := binary.NativeEndian
	if len(b) < unix.SizeofNlMsghdr || int(ne.Uint32(b)) > len(b) || ne.Uint32(b) < unix.SizeofNlMsghdr {
		return 0, nil, errShort
	}
	kind, seq, body := ne.Uint16(b[4:]), ne.Uint32(b[8:]), b[unix.SizeofNlMsghdr:ne.Uint32(b)]
	if kind != unix.NLMSG_ERROR {
		return seq, body, nil
	}
	if len(body) < 4 {
		return 0, nil, errShort
	}
	return seq, nil, unix.Errno(-int32(ne.Uint32(body)))
}

var errShort = errors.New("a message about a flow is too short")

func question(proto catalog.Protocol, client, at netip.AddrPort) []byte {
	family, src, dst, number := byte(unix.AF_INET), uint16(ctaV4Src), uint16(ctaV4Dst), byte(unix.IPPROTO_TCP)
	if at.Addr().Is6() {
		family, src, dst = unix.AF_INET6, ctaV6Src, ctaV6Dst
	}
	if proto == catalog.UDP {
		number = unix.IPPROTO_UDP
	}
	port := func(a netip.AddrPort) []byte { return binary.BigEndian.AppendUint16(nil, a.Port()) }
	b, _ := netlink.MarshalAttributes([]netlink.Attribute{nested(ctaReply, // fails for more than 64 KiB only
		nested(ctaTupleIP,
			netlink.Attribute{Type: src, Data: at.Addr().AsSlice()},
			netlink.Attribute{Type: dst, Data: client.Addr().AsSlice()}),
		nested(ctaTupleProto,
			netlink.Attribute{Type: ctaProtoNum, Data: []byte{number}},
			netlink.Attribute{Type: ctaProtoSrcPort, Data: port(at)},
			netlink.Attribute{Type: ctaProtoDst, Data: port(client)}),
	)})
	return append([]byte{family, unix.NFNETLINK_V0, 0, 0}, b...)
}

func nested(kind uint16, attrs ...netlink.Attribute) netlink.Attribute {
	data, _ := netlink.MarshalAttributes(attrs)
	return netlink.Attribute{Type: kind | unix.NLA_F_NESTED, Data: data}
}

// destination gives where the client's packets go, from a message about a flow.
func destination(b []byte) (netip.AddrPort, error) {
	if len(b) < headerLen {
		return netip.AddrPort{}, errShort
	}
	var addr netip.Addr
	var port uint16
	within := func(kind uint16, of []byte, do func([]byte) error) error {
		d, err := netlink.NewAttributeDecoder(of)
		if err != nil {
			return err
		}
		for d.Next() {
			if d.Type() == kind {
				if err := do(d.Bytes()); err != nil {
					return err
				}
			}
		}
		return d.Err()
	}
	err := within(ctaOrig, b[headerLen:], func(tuple []byte) error {
		ip := func(v []byte) error {
			addr, _ = netip.AddrFromSlice(v)
			return nil
		}
		return errors.Join(
			within(ctaTupleIP, tuple, func(ips []byte) error {
				return errors.Join(within(ctaV4Dst, ips, ip), within(ctaV6Dst, ips, ip))
			}),
			within(ctaTupleProto, tuple, func(p []byte) error {
				return within(ctaProtoDst, p, func(v []byte) error {
					if len(v) != 2 {
						return errors.New("a port of a flow is not two bytes")
					}
					port = binary.BigEndian.Uint16(v)
					return nil
				})
			}),
		)
	})
	if err != nil || !addr.IsValid() {
		return netip.AddrPort{}, err
	}
	return netip.AddrPortFrom(addr, port), nil
}
