package proxyproto

import (
	"encoding/binary"
	"net/netip"
)

// Append1 appends a header of version 1. Without two addresses of one family it says
// UNKNOWN. There is no LOCAL in version 1; UNKNOWN says it too.
func Append1(dst []byte, h Header) []byte {
	src, to, kind := pair(h)
	switch {
	case h.Local || h.Datagram || kind == 0:
		return append(dst, "PROXY UNKNOWN\r\n"...)
	case kind == tcp4:
		dst = append(dst, "PROXY TCP4 "...)
	default:
		dst = append(dst, "PROXY TCP6 "...)
	}
	dst = src.Addr().AppendTo(dst)
	dst = append(dst, ' ')
	dst = to.Addr().AppendTo(dst)
	dst = append(dst, ' ')
	dst = appendPort(dst, src.Port())
	dst = append(dst, ' ')
	dst = appendPort(dst, to.Port())
	return append(dst, '\r', '\n')
}

func appendPort(dst []byte, p uint16) []byte {
	if p >= 10 {
		dst = appendPort(dst, p/10)
	}
	return append(dst, byte('0'+p%10))
}

// Append2 appends a header of version 2, on demand with a checksum. Without two
// addresses it says UNSPEC, also for Unix sockets: their paths are not known.
func Append2(dst []byte, h Header, checked bool) []byte {
	start := len(dst)
	dst = append(dst, signature...)
	src, to, kind := pair(h)
	if h.Datagram && kind != 0 {
		kind++
	}
	if h.Local {
		dst = append(dst, 0x20, 0, 0, 0)
		return dst
	}
	dst = append(dst, 0x21, kind, 0, 0)
	switch kind {
	case 0:
		return dst
	case tcp4, udp4:
		a, b := src.Addr().As4(), to.Addr().As4()
		dst = append(dst, a[:]...)
		dst = append(dst, b[:]...)
	default:
		a, b := src.Addr().As16(), to.Addr().As16()
		dst = append(dst, a[:]...)
		dst = append(dst, b[:]...)
	}
	dst = binary.BigEndian.AppendUint16(dst, src.Port())
	dst = binary.BigEndian.AppendUint16(dst, to.Port())
	if checked {
		dst = append(dst, crcType, 0, 4, 0, 0, 0, 0)
	}
	head := dst[start:]
	binary.BigEndian.PutUint16(head[14:], uint16(len(head)-16))
	if checked {
		at := len(head) - 4
		binary.BigEndian.PutUint32(head[at:], checksum(head, at))
	}
	return dst
}

// pair gives both addresses in one family, and which; 0 if there are not two.
// Addresses lose their zones: there is no place for them.
func pair(h Header) (src, to netip.AddrPort, kind byte) {
	if !h.Source.IsValid() || !h.Destination.IsValid() {
		return src, to, 0
	}
	a, b := h.Source.Addr().WithZone(""), h.Destination.Addr().WithZone("")
	kind = tcp6
	switch {
	case a.Is4() && b.Is4():
		kind = tcp4
	case a.Is4():
		a = netip.AddrFrom16(a.As16())
	case b.Is4():
		b = netip.AddrFrom16(b.As16())
	}
	return netip.AddrPortFrom(a, h.Source.Port()), netip.AddrPortFrom(b, h.Destination.Port()), kind
}
