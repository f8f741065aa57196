package dns

import (
	"encoding/binary"
	"net/netip"

	wiredns "github.com/fingerpost/fingerpost/wire/dns"
)

// Numbers of RFC 1035 and its successors that this package speaks of.
const (
	typeA     = 1
	typeNS    = 2
	typeCNAME = 5
	typeSOA   = 6
	typePTR   = 12
	typeHINFO = 13
	typeTXT   = 16
	typeAAAA  = 28
	typeSRV   = 33
	typeOPT   = wiredns.TypeOPT
	typeIXFR  = 251
	typeAXFR  = 252
	typeANY   = 255

	classIN = 1

	rcodeOK       = 0
	rcodeFormErr  = 1
	rcodeServFail = 2
	rcodeNXDomain = 3
	rcodeNotImp   = 4
	rcodeRefused  = 5
	rcodeBadVers  = 16 // extended: its low four bits are in the header, the rest in OPT

	flagQR     = 1 << 15
	flagAA     = 1 << 10
	flagTC     = 1 << 9
	flagRD     = 1 << 8
	flagRA     = 1 << 7
	flagCD     = 1 << 4
	opcodeMask = 0xF << 11

	headerLen = wiredns.HeaderLen
	optLen    = 11
	udpPlain  = 512   // what every client takes (RFC 1035 §4.2.1)
	udpMax    = 1232  // what passes every path without fragments (DNS flag day 2020)
	tcpMax    = 65535 // the length prefix has two bytes
)

// query is a parsed request. It holds nothing of the packet.
type query struct {
	name
	id, flags    uint16
	qtype, class uint16
	client       netip.Addr // who asks, set by the caller; for autopath
	aside        name       // scratch, so that it is not on the heap; for autopath
	end          int        // where the question ends in the packet

	edns    bool
	do      bool
	version uint8
	size    uint16 // the UDP payload that the client takes
}

type verdict uint8

const (
	parsed    verdict = iota
	drop              // not a request: an answer to it could start a loop
	malformed         // the header can be read, the rest not
	foreign           // an opcode other than QUERY
)

// parse reads a request: header, one question, and of the rest the OPT record.
func (q *query) parse(msg []byte) verdict {
	if len(msg) < headerLen {
		return drop
	}
	q.id = binary.BigEndian.Uint16(msg)
	q.flags = binary.BigEndian.Uint16(msg[2:])
	if q.flags&flagQR != 0 {
		return drop
	}
	q.edns, q.do, q.version, q.size = false, false, 0, 0
	if q.flags&opcodeMask != 0 {
		return foreign
	}
	if binary.BigEndian.Uint16(msg[4:]) != 1 {
		return malformed
	}
	off, ok := q.name.read(msg, headerLen)
	if !ok || off+4 > len(msg) {
		return malformed
	}
	q.qtype = binary.BigEndian.Uint16(msg[off:])
	q.class = binary.BigEndian.Uint16(msg[off+2:])
	q.end = off + 4
	before, extra := wiredns.Records(msg)
	if before+extra > 0 && !q.records(msg, before, extra) {
		return malformed
	}
	if q.qtype == typeOPT {
		return malformed
	}
	return parsed
}

// records walks over the records behind the question and keeps the OPT.
func (q *query) records(msg []byte, before, extra int) bool {
	off := q.end
	for i := range before + extra {
		root := off < len(msg) && msg[off] == 0
		fixed, next, ok := wiredns.SkipRecord(msg, off)
		if !ok {
			return false
		}
		if binary.BigEndian.Uint16(msg[fixed:]) == typeOPT {
			if i < before || q.edns || !root { // RFC 6891 §6.1.1
				return false
			}
			q.edns = true
			q.size = binary.BigEndian.Uint16(msg[fixed+2:])
			q.version = msg[fixed+5]
			q.do = msg[fixed+6]&0x80 != 0
		}
		off = next
	}
	return true
}
