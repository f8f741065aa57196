package forward

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"

	wiredns "github.com/fingerpost/fingerpost/wire/dns"
)

// Numbers of RFC 1035 and its successors.
const (
	typeA    = 1
	typeNS   = 2
	typeSOA  = 6
	typeHINF = 13
	typeAAAA = 28
	typeOPT  = wiredns.TypeOPT
	typeTSIG = 250
	typeIXFR = 251
	typeAXFR = 252
	typeANY  = 255

	classIN = 1

	rcodeOK       = 0
	rcodeFormErr  = 1
	rcodeServFail = 2
	rcodeNXDomain = 3
	rcodeNotImp   = 4

	flagQR = 1 << 15
	flagTC = 1 << 9
	flagRD = 1 << 8
	flagRA = 1 << 7
	flagAD = 1 << 5
	flagCD = 1 << 4

	headerLen = wiredns.HeaderLen
	optLen    = 11
	maxName   = wiredns.MaxName
	maxLabel  = wiredns.MaxLabel
	udpPlain  = 512
	udpMax    = 1232 // passes every path without fragments (DNS flag day 2020)
	tcpMax    = 65535

	optPadding = 12 // RFC 7830
	optEDE     = 15 // RFC 8914
	edeStale   = 3
)

// Bits of a question that change its answer.
const (
	bitDO   = 1 << iota // DNSSEC records
	bitCD               // unchecked
	bitNoRD             // no recursion; never in the cache
)

// question is what is left of a request: its key in the cache is wire[:n], the
// lower-case name, type, class and bits.
type question struct {
	wire [maxName + 5]byte
	n    int
	end  int // in the request

	id, flags    uint16
	qtype, class uint16
	edns, do     bool
}

func (q *question) key() []byte  { return q.wire[:q.n] }
func (q *question) name() []byte { return q.wire[:q.n-5] }

// parse reads a request whose question ends at end. It looks at everything
// again: its caller's idea of end is not trusted with memory.
func (q *question) parse(msg []byte, end int) bool {
	if end < headerLen+5 || end > len(msg) || end > headerLen+maxName+4 {
		return false
	}
	q.flags = binary.BigEndian.Uint16(msg[2:])
	if q.flags&(flagQR|0xF<<11) != 0 || binary.BigEndian.Uint16(msg[4:]) != 1 {
		return false
	}
	name := msg[headerLen : end-4]
	for off := 0; ; {
		l := int(name[off])
		if l > maxLabel || off+1+l > len(name) || l == 0 && off+1 != len(name) {
			return false
		}
		if off += 1 + l; l == 0 {
			break
		}
		if off >= len(name) {
			return false
		}
	}
	n := len(name)
	for i, c := range name {
		if c-'A' < 26 { // lengths of labels are below 'A'
			c |= 0x20
		}
		q.wire[i] = c
	}
	copy(q.wire[n:], msg[end-4:end])
	q.id = binary.BigEndian.Uint16(msg)
	q.qtype = binary.BigEndian.Uint16(msg[end-4:])
	q.class = binary.BigEndian.Uint16(msg[end-2:])
	q.end, q.edns, q.do = end, false, false
	if !q.options(msg) {
		return false
	}
	var bits byte
	if q.do {
		bits |= bitDO
	}
	if q.flags&flagCD != 0 {
		bits |= bitCD
	}
	q.wire[n+4] = bits
	q.n = n + 5
	return true
}

// options looks for the OPT record behind the question.
func (q *question) options(msg []byte) bool {
	before, additional := wiredns.Records(msg)
	off := q.end
	for range before + additional {
		fixed, next, ok := wiredns.SkipRecord(msg, off)
		if !ok {
			return false
		}
		if binary.BigEndian.Uint16(msg[fixed:]) == typeOPT {
			q.edns, q.do = true, msg[fixed+6]&0x80 != 0
		}
		off = next
	}
	return true
}

// whole says whether a message has as many questions and records as its header
// says and nothing behind them. The library lets both pass.
func whole(msg []byte) bool {
	if len(msg) < headerLen {
		return false
	}
	off, ok := wiredns.SkipQuestions(msg)
	if !ok {
		return false
	}
	before, additional := wiredns.Records(msg)
	for range before + additional {
		if _, off, ok = wiredns.SkipRecord(msg, off); !ok {
			return false
		}
	}
	return off == len(msg)
}

// within says whether a lower-case wire name is a zone or below it.
func within(name, zone []byte) bool {
	for len(name) > len(zone) {
		name = name[1+int(name[0]):]
	}
	return bytes.Equal(name, zone)
}

// ask is a question on its way to upstreams.
type ask struct {
	key  string // see question
	hash uint64
}

func (a *ask) name() []byte { return []byte(a.key[:len(a.key)-5]) }
func (a *ask) bits() byte   { return a.key[len(a.key)-1] }
func (a *ask) qtype() uint16 {
	return uint16(a.key[len(a.key)-5])<<8 | uint16(a.key[len(a.key)-4])
}

// question gives the same thing as it would have come from a client.
func (a *ask) question() question {
	var q question
	q.n = copy(q.wire[:], a.key)
	q.end = headerLen + len(a.key) - 1
	q.qtype = a.qtype()
	q.class = uint16(a.key[len(a.key)-3])<<8 | uint16(a.key[len(a.key)-2])
	q.do = a.bits()&bitDO != 0
	return q
}

// shape says how a question is written.
type shape struct {
	edns bool
	pad  bool // to a multiple of 128, so that its length tells nothing (RFC 8467)
	mix  bool // random case
}

// write makes the message for an upstream; the question ends at the second
// result. Nothing of the client is in it but the question and its bits.
func (a *ask) write(s shape) ([]byte, int) {
	flags := uint16(flagAD) // tell us what you validated (RFC 6840 §5.7)
	if a.bits()&bitNoRD == 0 {
		flags |= flagRD
	}
	if a.bits()&bitCD != 0 {
		flags |= flagCD
	}
	m := make([]byte, headerLen, 160)
	binary.BigEndian.PutUint16(m, uint16(rand.Uint32()))
	binary.BigEndian.PutUint16(m[2:], flags)
	m[5] = 1
	m = append(m, a.key[:len(a.key)-1]...)
	end := len(m)
	if s.mix {
		mixCase(m[headerLen : end-4])
	}
	if !s.edns {
		return m, end
	}
	m[11] = 1
	var do byte
	if a.bits()&bitDO != 0 {
		do = 0x80
	}
	m = append(m, 0, 0, typeOPT, udpMax>>8, udpMax&0xFF, 0, 0, do, 0, 0, 0)
	if s.pad {
		n := -(len(m) + 4) & 127
		m[len(m)-1] = byte(4 + n)
		m = append(m, 0, optPadding, 0, byte(n))
		m = append(m, make([]byte, n)...)
	}
	return m, end
}

// mixCase makes each letter of a lower-case name a bit that a forger must guess.
func mixCase(name []byte) {
	var r uint64
	for i, c := range name {
		if i&63 == 0 {
			r = rand.Uint64()
		}
		if c-'a' < 26 && r&(1<<(i&63)) != 0 {
			name[i] = c - 0x20
		}
	}
}

type match uint8

const (
	matches     match = iota
	otherCase         // right but for the case: a server that does not keep it, or a guess
	otherwise         // not the answer to this question
	withoutWord       // no question, and an error: from servers that cannot read it
)

// compare holds a response against the message it should answer.
func compare(asked []byte, end int, resp []byte) match {
	if len(resp) < headerLen || resp[2]&(flagQR>>8) == 0 || !bytes.Equal(asked[:2], resp[:2]) || resp[2]&0x78 != 0 {
		return otherwise
	}
	switch n := binary.BigEndian.Uint16(resp[4:]); {
	case n == 0 && resp[3]&0xF != rcodeOK && resp[3]&0xF != rcodeNXDomain:
		return withoutWord
	case n != 1 || len(resp) < end:
		return otherwise
	case bytes.Equal(asked[headerLen:end], resp[headerLen:end]):
		return matches
	case bytes.Equal(asked[end-4:end], resp[end-4:end]) && foldEqual(asked[headerLen:end-4], resp[headerLen:end-4]):
		return otherCase
	}
	return otherwise
}

// foldEqual compares ASCII only: bytes.EqualFold takes names for UTF-8.
func foldEqual(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		x, y := a[i], b[i]
		if x-'A' < 26 {
			x |= 0x20
		}
		if y-'A' < 26 {
			y |= 0x20
		}
		if x != y {
			return false
		}
	}
	return true
}
