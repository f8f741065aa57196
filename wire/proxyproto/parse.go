package proxyproto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"net/netip"
)

// Header is what a proxy says about a connection.
type Header struct {
	Version uint8 // 1 or 2
	// Local: the proxy opened the connection for itself, say for a health check.
	Local bool
	// Source and Destination are not valid if Local, or if the proxy does not
	// know them, or if they are Unix sockets.
	Source, Destination netip.AddrPort
	// Datagram: the client spoke UDP, or sent to a datagram socket.
	Datagram bool
	// Unix: the client came over a Unix socket.
	Unix bool
}

// MaxLength is the most that may follow the first 16 bytes of version 2: addresses
// and TLVs, of which a client certificate is the largest.
const MaxLength = 8 << 10

const (
	signature = "\r\n\r\n\x00\r\nQUIT\n"
	prefix    = "PROXY "
	maxLine   = 107 // with CRLF
)

// The errors of Parse.
var (
	// ErrMissing: there is no PROXY header here.
	ErrMissing = errors.New("proxyproto: parse header: the connection does not begin with one; let the proxy send it or turn it off here")
	// ErrMalformed: a header of version 1 is not as specified.
	ErrMalformed = errors.New("proxyproto: parse header: malformed")
	// ErrTooLong: a header is longer than MaxLength.
	ErrTooLong = errors.New("proxyproto: parse header: longer than allowed")
	// ErrChecksum: a header's CRC32C does not match.
	ErrChecksum = errors.New("proxyproto: parse header: checksum does not match")
)

// Parse parses the header at the start of b. n is its length; 0 without an error says
// that it is not complete. Ask for at most 16 bytes + MaxLength.
func Parse(b []byte) (n int, h Header, err error) {
	if len(b) == 0 {
		return 0, h, nil
	}
	if b[0] == signature[0] {
		if m := min(len(b), len(signature)); string(b[:m]) != signature[:m] {
			return 0, h, ErrMissing
		}
		return parse2(b)
	}
	if m := min(len(b), len(prefix)); string(b[:m]) != prefix[:m] {
		return 0, h, ErrMissing
	}
	return parse1(b)
}

func parse1(b []byte) (int, Header, error) {
	end := bytes.IndexByte(b[:min(len(b), maxLine)], '\n')
	if end < 0 {
		if len(b) >= maxLine {
			return 0, Header{}, ErrTooLong
		}
		return 0, Header{}, nil
	}
	if b[end-1] != '\r' {
		return 0, Header{}, ErrMalformed
	}
	h := Header{Version: 1}
	if len(b) < len(prefix) {
		return 0, Header{}, ErrMalformed
	}
	line := b[len(prefix) : end-1]
	family, rest, _ := bytes.Cut(line, []byte(" "))
	var four bool
	switch string(family) {
	case "UNKNOWN":
		// The rest of the line is to be ignored, whatever it is.
		return end + 1, h, nil
	case "TCP4":
		four = true
	case "TCP6":
	default:
		return 0, Header{}, ErrMalformed
	}
	var words [4][]byte
	for i := range words {
		var found bool
		words[i], rest, found = bytes.Cut(rest, []byte(" "))
		if found != (i < 3) {
			return 0, Header{}, ErrMalformed
		}
	}
	var ok [2]bool
	h.Source, ok[0] = address(words[0], words[2], four)
	h.Destination, ok[1] = address(words[1], words[3], four)
	if !ok[0] || !ok[1] {
		return 0, Header{}, ErrMalformed
	}
	return end + 1, h, nil
}

func address(ip, port []byte, four bool) (netip.AddrPort, bool) {
	a, err := netip.ParseAddr(string(ip))
	if err != nil || a.Is4() != four || a.Zone() != "" {
		return netip.AddrPort{}, false
	}
	if len(port) == 0 || len(port) > 5 || port[0] == '0' && len(port) > 1 {
		return netip.AddrPort{}, false
	}
	n := 0
	for _, c := range port {
		if c < '0' || c > '9' {
			return netip.AddrPort{}, false
		}
		n = n*10 + int(c-'0')
	}
	return netip.AddrPortFrom(a, uint16(n)), n <= 65535
}

// Families of version 2: address family and transport.
const (
	tcp4 = 0x11
	udp4 = 0x12
	tcp6 = 0x21
	udp6 = 0x22
	unix = 0x31
	dgrm = 0x32
)

func parse2(b []byte) (int, Header, error) {
	h := Header{Version: 2}
	if len(b) > 12 && b[12] != 0x20 && b[12] != 0x21 {
		return 0, Header{}, ErrMalformed
	}
	if len(b) < 16 {
		return 0, Header{}, nil
	}
	size := int(binary.BigEndian.Uint16(b[14:]))
	if size > MaxLength {
		return 0, Header{}, ErrTooLong
	}
	if len(b) < 16+size {
		return 0, Header{}, nil
	}
	n := 16 + size
	if b[12] == 0x20 {
		h.Local = true
		return n, h, nil
	}
	body := b[16:n]
	used := 0
	switch b[13] {
	case 0:
		// UNSPEC: the length of an address is not known, and so is where TLVs
		// begin.
		return n, h, nil
	case tcp4, udp4:
		if used = 12; size < used {
			return 0, Header{}, ErrMalformed
		}
		h.Datagram = b[13] == udp4
		h.Source = netip.AddrPortFrom(netip.AddrFrom4([4]byte(body)), binary.BigEndian.Uint16(body[8:]))
		h.Destination = netip.AddrPortFrom(netip.AddrFrom4([4]byte(body[4:])), binary.BigEndian.Uint16(body[10:]))
	case tcp6, udp6:
		if used = 36; size < used {
			return 0, Header{}, ErrMalformed
		}
		h.Datagram = b[13] == udp6
		h.Source = netip.AddrPortFrom(netip.AddrFrom16([16]byte(body)), binary.BigEndian.Uint16(body[32:]))
		h.Destination = netip.AddrPortFrom(netip.AddrFrom16([16]byte(body[16:])), binary.BigEndian.Uint16(body[34:]))
	case unix, dgrm:
		if used = 216; size < used {
			return 0, Header{}, ErrMalformed
		}
		h.Datagram = b[13] == dgrm
		h.Unix = true
	default:
		return 0, Header{}, ErrMalformed
	}
	if err := tlvs(b[:n], 16+used); err != nil {
		return 0, Header{}, err
	}
	return n, h, nil
}

// The TLV of the checksum.
const crcType = 0x03

// tlvs checks what follows the addresses of a whole header b from i on.
func tlvs(b []byte, i int) error {
	for i < len(b) {
		if len(b)-i < 3 {
			return ErrMalformed
		}
		kind, size := b[i], int(binary.BigEndian.Uint16(b[i+1:]))
		i += 3
		if size > len(b)-i {
			return ErrMalformed
		}
		if kind == crcType {
			if size != 4 {
				return ErrMalformed
			}
			if checksum(b, i) != binary.BigEndian.Uint32(b[i:]) {
				return ErrChecksum
			}
		}
		i += size
	}
	return nil
}

var zeros [4]byte

// checksum is the CRC32C of b with zeros for the four bytes at i.
func checksum(b []byte, i int) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	sum := crc32.Update(0, table, b[:i])
	sum = crc32.Update(sum, table, zeros[:])
	return crc32.Update(sum, table, b[i+4:])
}
