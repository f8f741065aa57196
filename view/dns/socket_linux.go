package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"strconv"
	"strings"
	"syscall"
)

var errPermission = syscall.EACCES

func isInUse(err error) bool { return errors.Is(err, syscall.EADDRINUSE) }

// reusePort is SO_REUSEPORT, which package syscall lacks on some systems.
func reusePort() int {
	if strings.HasPrefix(runtime.GOARCH, "mips") {
		return 0x200
	}
	return 15
}

// listenUDP opens n sockets on one address: the kernel spreads the clients
// over them. On the unspecified address each packet tells where it came to.
// Packets are read and written in batches, unless plain is asked for.
func listenUDP(addr netip.AddrPort, n int, plain bool) ([]*udpSocket, error) {
	wild := addr.Addr().IsUnspecified()
	lc := net.ListenConfig{Control: func(net, _ string, c syscall.RawConn) error {
		var err error
		cerr := c.Control(func(fd uintptr) {
			set := func(level, option int) {
				if err == nil {
					err = syscall.SetsockoptInt(int(fd), level, option, 1)
				}
			}
			set(syscall.SOL_SOCKET, reusePort())
			if wild {
				set(syscall.IPPROTO_IP, syscall.IP_PKTINFO)
				if net == "udp6" {
					set(syscall.IPPROTO_IPV6, syscall.IPV6_RECVPKTINFO)
				}
			}
		})
		return errors.Join(cerr, err)
	}}
	var socks []*udpSocket
	for range n {
		p, err := lc.ListenPacket(context.Background(), network("udp", addr.Addr()), addr.String())
		if err != nil {
			for _, u := range socks {
				u.close()
			}
			return nil, err
		}
		conn := p.(*net.UDPConn)
		_ = conn.SetReadBuffer(udpBuffer) // as much as net.core.rmem_max allows
		_ = conn.SetWriteBuffer(udpBuffer)
		u := &udpSocket{conn: conn, addr: conn.LocalAddr().(*net.UDPAddr).AddrPort(), oob: wild}
		if !plain {
			if err := u.detach(); err != nil {
				u.close()
				for _, u := range socks {
					u.close()
				}
				return nil, err
			}
		}
		socks = append(socks, u)
	}
	return socks, nil
}

// source turns what the kernel said about a packet's destination into what it
// takes as the answer's source: the same structure, without the interface, so
// that routing stays free to choose one.
func source(oob []byte) []byte {
	const align = strconv.IntSize / 8
	for i := 0; i+syscall.SizeofCmsghdr <= len(oob); {
		// struct cmsghdr: length (a size_t), level, type.
		length := int(binary.NativeEndian.Uint32(oob[i:]))
		if align == 8 {
			length = int(binary.NativeEndian.Uint64(oob[i:]))
		}
		level := binary.NativeEndian.Uint32(oob[i+align:])
		typ := binary.NativeEndian.Uint32(oob[i+align+4:])
		if length < syscall.SizeofCmsghdr || length > len(oob)-i {
			return nil
		}
		whole := oob[i : i+length]
		data := whole[syscall.SizeofCmsghdr:]
		switch {
		case level == syscall.IPPROTO_IP && typ == syscall.IP_PKTINFO && len(data) >= syscall.SizeofInet4Pktinfo:
			clear(data[:4]) // struct in_pktinfo: interface, local address, header's address
			return whole
		case level == syscall.IPPROTO_IPV6 && typ == syscall.IPV6_PKTINFO && len(data) >= syscall.SizeofInet6Pktinfo:
			a := netip.AddrFrom16([16]byte(data[:16]))
			if a.Is4In6() {
				break // IP_PKTINFO says the same
			}
			if !a.IsLinkLocalUnicast() {
				clear(data[16:20]) // struct in6_pktinfo: address, interface
			}
			return whole
		}
		i += (length + align - 1) &^ (align - 1)
	}
	return nil
}
