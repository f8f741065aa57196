package dns

import (
	"encoding/binary"
	"math/rand/v2"
)

// questionAt is a compression pointer to the name in the question.
const questionAt = 0xC000 | headerLen

// message is an answer in the making. Sections are written in order: the
// counts say how many records each has so far.
type message struct {
	b          []byte
	limit      int // the answer may grow to this length
	an, ns, ar uint16
	tc         bool
}

// begin writes the header and the question as the client spelled it. What the
// header says is set by end.
func (m *message) begin(buf, question []byte, limit int) {
	m.b = append(buf[:0], question...)
	m.limit = limit
	m.an, m.ns, m.ar, m.tc = 0, 0, 0, false
}

// end fills in the header, and the OPT record if the client sent one.
func (m *message) end(q *query, rcode int, flags uint16) []byte {
	flags |= flagQR | q.flags&(flagRD|flagCD) | uint16(rcode&0xF)
	if m.tc {
		flags |= flagTC
	}
	if q.edns {
		var do byte
		if q.do {
			do = 0x80
		}
		m.b = append(m.b, 0, 0, typeOPT, udpMax>>8, udpMax&0xFF, byte(rcode>>4), 0, do, 0, 0, 0)
		m.ar++
	}
	binary.BigEndian.PutUint16(m.b[2:], flags)
	binary.BigEndian.PutUint16(m.b[4:], 1)
	binary.BigEndian.PutUint16(m.b[6:], m.an)
	binary.BigEndian.PutUint16(m.b[8:], m.ns)
	binary.BigEndian.PutUint16(m.b[10:], m.ar)
	return m.b
}

// bare is an answer without question: to a request that cannot be read.
func bare(buf []byte, q *query, rcode int) []byte {
	b := append(buf[:0], make([]byte, headerLen)...)
	binary.BigEndian.PutUint16(b, q.id)
	binary.BigEndian.PutUint16(b[2:], flagQR|q.flags&(opcodeMask|flagRD|flagCD)|uint16(rcode))
	return b
}

// fits says whether a record of n bytes fits, and marks the answer as
// truncated if not.
func (m *message) fits(n int) bool {
	if len(m.b)+n > m.limit {
		m.tc = true
		return false
	}
	return true
}

// head starts a record: owner is a compression pointer.
func (m *message) head(owner, typ uint16, ttl uint32, length int) {
	m.b = append(m.b,
		byte(owner>>8), byte(owner), byte(typ>>8), byte(typ), 0, classIN,
		byte(ttl>>24), byte(ttl>>16), byte(ttl>>8), byte(ttl), byte(length>>8), byte(length))
}

const (
	headLen = 12           // a record up to its data, when the owner is a pointer
	lenA    = headLen + 4  // an A record
	lenAAAA = headLen + 16 // an AAAA record
)

// set adds records of one size that are stored ready to send, in fresh order.
// What does not fit is left out: a part of a set is better than none.
func (m *message) set(owner uint16, records []byte, size int) {
	n := len(records) / size
	k := n
	if room := max(0, (m.limit-len(m.b))/size); k > room {
		k = room
		m.tc = true
	}
	at := len(m.b)
	if n < 2 {
		m.b = append(m.b, records[:k*size]...)
	} else {
		first := rand.IntN(n)
		here := min(k, n-first)
		m.b = append(m.b, records[first*size:(first+here)*size]...)
		m.b = append(m.b, records[:(k-here)*size]...)
		shuffle(m.b[at:], size, min(k, 32))
	}
	if owner != questionAt {
		for i := range k {
			binary.BigEndian.PutUint16(m.b[at+i*size:], owner)
		}
	}
	m.an += uint16(k)
}

// shuffle reorders the data of the first n records; their heads are alike.
func shuffle(records []byte, size, n int) {
	for i := n - 1; i > 0; i-- {
		j := int(rand.Uint32N(uint32(i + 1)))
		a, b := records[i*size+headLen:(i+1)*size], records[j*size+headLen:(j+1)*size]
		if size == lenA {
			x, y := binary.NativeEndian.Uint32(a), binary.NativeEndian.Uint32(b)
			binary.NativeEndian.PutUint32(a, y)
			binary.NativeEndian.PutUint32(b, x)
			continue
		}
		x := [16]byte(a)
		copy(a, b)
		copy(b, x[:])
	}
}
