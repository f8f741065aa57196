package ebpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// diag is a sock_diag(7) socket.
type diag struct{ fd int }

// sockID is struct inet_diag_sockid, as it lies in memory.
type sockID [48]byte

func (s *sockID) cookie() uint64 {
	return uint64(binary.NativeEndian.Uint32(s[40:])) | uint64(binary.NativeEndian.Uint32(s[44:]))<<32
}

func (s *sockID) peer(family uint8) netip.AddrPort {
	port := binary.BigEndian.Uint16(s[2:])
	if family == unix.AF_INET {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(s[20:24])), port)
	}
	return netip.AddrPortFrom(netip.AddrFrom16([16]byte(s[20:36])).Unmap(), port)
}

func openDiag() (diag, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return diag{}, fmt.Errorf("ebpf: open a sock_diag socket: %w", err)
	}
	// The kernel answers at once or never; do not wait for ever.
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5}); err != nil {
		_ = unix.Close(fd)
		return diag{}, fmt.Errorf("ebpf: open a sock_diag socket: %w", err)
	}
	return diag{fd}, nil
}

func (d diag) close() { _ = unix.Close(d.fd) }

// request sends struct inet_diag_req_v2 for UDP.
func (d diag) request(kind, flags uint16, family uint8, states uint32, id sockID) error {
	const head, size = 16, 16 + 56
	var m [size]byte
	binary.NativeEndian.PutUint32(m[0:], size)
	binary.NativeEndian.PutUint16(m[4:], kind)
	binary.NativeEndian.PutUint16(m[6:], unix.NLM_F_REQUEST|flags)
	m[head], m[head+1] = family, unix.IPPROTO_UDP
	binary.NativeEndian.PutUint32(m[head+4:], states)
	copy(m[head+8:], id[:])
	return unix.Sendto(d.fd, m[:], 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// connected gives the UDP sockets that have a peer.
func (d diag) connected(family uint8) (all []sockID, err error) {
	const established = 1
	if err := d.request(unix.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP, family, 1<<established, sockID{}); err != nil {
		return nil, fmt.Errorf("ebpf: list UDP sockets: %w", err)
	}
	err = d.answers(func(body []byte) {
		if len(body) >= 4+len(sockID{}) {
			all = append(all, sockID(body[4:]))
		}
	})
	if err != nil {
		return nil, fmt.Errorf("ebpf: list UDP sockets: %w", err)
	}
	return all, nil
}

func (d diag) destroy(family uint8, id sockID) error {
	if err := d.request(unix.SOCK_DESTROY, unix.NLM_F_ACK, family, ^uint32(0), id); err != nil {
		return err
	}
	return d.answers(func([]byte) {})
}

// answers reads until the kernel says that it is done.
func (d diag) answers(each func(body []byte)) error {
	buf := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(d.fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		done, err := walk(buf[:n], each)
		if done || err != nil {
			return err
		}
	}
}

// walk goes through the netlink messages of a datagram.
func walk(b []byte, each func(body []byte)) (done bool, err error) {
	for len(b) >= unix.NLMSG_HDRLEN {
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.NLMSG_HDRLEN || size > len(b) {
			return false, errors.New("a netlink message has a wrong length")
		}
		body := b[unix.NLMSG_HDRLEN:size]
		switch binary.NativeEndian.Uint16(b[4:]) {
		case unix.NLMSG_DONE:
			return true, nil
		case unix.NLMSG_ERROR:
			if len(body) < 4 {
				return false, errors.New("a netlink error has no number")
			}
			if n := int32(binary.NativeEndian.Uint32(body)); n != 0 {
				return true, unix.Errno(-n)
			}
			return true, nil
		default:
			each(body)
		}
		b = b[min(len(b), (size+3)&^3):]
	}
	return false, nil
}
