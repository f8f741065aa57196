package forward

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	miekg "github.com/miekg/dns"

	wiredns "github.com/fingerpost/fingerpost/wire/dns"
)

// entry is an answer, ready to be copied. Only hits and popular ever change.
type entry struct {
	msg       []byte // with a lower-case question and without OPT; id 0
	records   []place
	answers   int // records of the answer section
	authority int
	turn      turn
	stored    int64 // nanoseconds
	expires   int64
	rcode     int // with the bits of EDNS
	denial    bool
	keep      bool // may be cached
	signed    bool // AD
	asked     atomic.Uint32
}

// place is where a record starts and where its TTL is.
type place struct{ start, ttl uint16 }

// turn is a run of addresses of equal length, which take turns at the front.
type turn struct{ start, size, n int }

func (e *entry) bytes() int { return len(e.msg) + 4*len(e.records) }

func (e *entry) failed() bool {
	return e.rcode != rcodeOK && e.rcode != rcodeNXDomain
}

// newEntry reads what an upstream said to a question. Everything is unpacked
// and packed anew, so that nobody gets bytes that were not understood.
func newEntry(a *ask, resp []byte, now time.Time, cfg *Config) (*entry, error) {
	if !whole(resp) {
		return nil, errors.New("malformed answer: it has not the records that it says")
	}
	var m miekg.Msg
	if err := m.Unpack(resp); err != nil {
		return nil, fmt.Errorf("malformed answer: %w", err)
	}
	if !m.Response || len(m.Question) != 1 {
		return nil, errors.New("malformed answer: no response to one question")
	}
	q := a.question()
	name, _, err := miekg.UnpackDomainName(q.name(), 0)
	if err != nil {
		return nil, fmt.Errorf("malformed question: %w", err)
	}
	if miekg.CanonicalName(m.Question[0].Name) != name || m.Question[0].Qtype != q.qtype || m.Question[0].Qclass != q.class {
		return nil, errors.New("it answers another question")
	}
	e := &entry{rcode: m.Rcode, signed: m.AuthenticatedData, stored: now.UnixNano()}
	if opt := m.IsEdns0(); opt != nil {
		e.rcode = m.Rcode&0xF | opt.ExtendedRcode()&^0xF
	}
	m.Question[0].Name = name
	own := func(rrs []miekg.RR) []miekg.RR {
		kept := rrs[:0]
		for _, rr := range rrs {
			h := rr.Header()
			if h.Rrtype == typeOPT || h.Rrtype == typeTSIG {
				continue // of the hop to the upstream
			}
			if miekg.CanonicalName(h.Name) == name {
				h.Name = name // the question's case was random; also compresses
			}
			kept = append(kept, rr)
		}
		return kept
	}
	m.Answer, m.Ns, m.Extra = own(m.Answer), own(m.Ns), own(m.Extra)
	ttl := e.lifetime(&m, &q, name, cfg)
	if m.Truncated || q.qtype >= 128 && q.qtype <= typeANY || q.class != classIN || a.bits()&bitNoRD != 0 {
		ttl = 0
	}
	e.keep = ttl > 0
	e.expires = now.Add(ttl).UnixNano()

	m.Id, m.Opcode, m.Compress = 0, 0, true
	m.Authoritative, m.RecursionAvailable, m.RecursionDesired = false, true, true
	m.CheckingDisabled, m.AuthenticatedData, m.Zero = false, false, false
	m.Rcode = e.rcode & 0xF
	if e.rcode > 0xF { // speaks of the hop to the upstream: BADVERS, BADCOOKIE
		m.Rcode = rcodeServFail
	}
	if e.msg, err = m.Pack(); err != nil {
		return nil, fmt.Errorf("malformed answer: %w", err)
	}
	if len(e.msg) > tcpMax {
		return nil, errors.New("malformed answer: it is longer than any answer can be")
	}
	// The library can write what it cannot read, like a SOA without data.
	if err := new(miekg.Msg).Unpack(e.msg); err != nil {
		return nil, fmt.Errorf("malformed answer: %w", err)
	}
	if !e.index(q.end) {
		return nil, errors.New("malformed answer: its records cannot be found")
	}
	return e, nil
}

// lifetime bounds all TTLs and says how long the answer may be kept.
func (e *entry) lifetime(m *miekg.Msg, q *question, name string, cfg *Config) time.Duration {
	least, most := uint32(cfg.MinTTL/time.Second), uint32(cfg.MaxTTL/time.Second)
	bound := func(rrs []miekg.RR) uint32 {
		low := most
		for _, rr := range rrs {
			h := rr.Header()
			if h.Ttl >= 1<<31 { // RFC 2181 §8
				h.Ttl = 0
			}
			h.Ttl = min(max(h.Ttl, least), most)
			low = min(low, h.Ttl)
		}
		return low
	}
	ttl := min(bound(m.Answer), bound(m.Ns))
	bound(m.Extra)
	switch e.rcode {
	case rcodeOK, rcodeNXDomain:
	case rcodeServFail:
		e.denial = true
		return failureTTL
	default:
		e.denial = true
		return 0
	}
	target, found := name, false
	for _, rr := range m.Answer {
		if c, ok := rr.(*miekg.CNAME); ok && miekg.CanonicalName(c.Hdr.Name) == target && q.qtype != miekg.TypeCNAME {
			target = miekg.CanonicalName(c.Target)
		} else if rr.Header().Rrtype == q.qtype || q.qtype == typeANY {
			found = true
		}
	}
	if found && e.rcode == rcodeOK {
		return time.Duration(ttl) * time.Second
	}
	// RFC 2308 §5: no denial without its SOA is kept, and only that of a zone
	// which the name is in.
	e.denial = true
	for _, rr := range m.Ns {
		soa, ok := rr.(*miekg.SOA)
		if !ok || !miekg.IsSubDomain(soa.Hdr.Name, target) {
			continue
		}
		ttl = min(ttl, soa.Minttl, uint32(cfg.NegativeTTL/time.Second))
		for _, rr := range m.Ns {
			rr.Header().Ttl = min(rr.Header().Ttl, ttl)
		}
		return time.Duration(ttl) * time.Second
	}
	return 0
}

// index finds the records, whose TTLs change from answer to answer, and the
// addresses that take turns.
func (e *entry) index(off int) bool {
	e.answers = int(binary.BigEndian.Uint16(e.msg[6:]))
	e.authority = int(binary.BigEndian.Uint16(e.msg[8:]))
	total := e.answers + e.authority + int(binary.BigEndian.Uint16(e.msg[10:]))
	e.records = make([]place, 0, total)
	for i := range total {
		start := off
		fixed, next, ok := wiredns.SkipRecord(e.msg, start)
		if !ok {
			return false
		}
		rtype := binary.BigEndian.Uint16(e.msg[fixed:])
		e.records = append(e.records, place{uint16(start), uint16(fixed + 4)})
		owner := fixed - start
		off = next
		// Only records with a pointer for an owner may move: nothing points
		// into them, for an address holds no name.
		if i >= e.answers || owner != 2 || rtype != typeA && rtype != typeAAAA {
			continue
		}
		switch t := &e.turn; {
		case t.n == 0:
			*t = turn{start, off - start, 1}
		case t.start+t.size*t.n == start && off-start == t.size && [4]byte(e.msg[t.start:]) == [4]byte(e.msg[start:]):
			t.n++ // same owner, same type
		}
	}
	return off == len(e.msg)
}

// answer appends the entry as the answer to q, whose message is raw, not
// longer than limit. A copy is all it costs.
func (e *entry) answer(buf, raw []byte, q *question, limit int, now int64, stale bool) []byte {
	base := len(buf)
	room := max(limit, udpPlain)
	if q.edns {
		room -= optLen
		if stale {
			room -= 6
		}
	}
	size, kept := len(e.msg), len(e.records)
	for size > room && kept > 0 {
		kept--
		size = int(e.records[kept].start)
	}
	buf = append(buf, e.msg[:size]...)
	m := buf[base:]
	copy(m[headerLen:], raw[headerLen:q.end])

	if t := e.turn; t.n > 1 {
		if k := int(rand.Uint32()) % t.n; k > 0 {
			at := t.start
			at += copy(m[min(at, size):], e.msg[t.start+k*t.size:t.start+t.n*t.size])
			copy(m[min(at, size):], e.msg[t.start:t.start+k*t.size])
		}
	}
	if age := uint32(max(0, now-e.stored) / int64(time.Second)); age > 0 || stale {
		for _, r := range e.records[:kept] {
			ttl := m[r.ttl : r.ttl+4]
			was := binary.BigEndian.Uint32(ttl)
			switch {
			case stale:
				was = staleTTL
			case was > age:
				was -= age
			default:
				was = 0
			}
			binary.BigEndian.PutUint32(ttl, was)
		}
	}

	flags := binary.BigEndian.Uint16(m[2:])&(flagTC|0xF) | flagQR | flagRA | q.flags&(flagRD|flagCD)
	if e.signed && (q.do || q.flags&flagAD != 0) && !stale {
		flags |= flagAD
	}
	an := min(kept, e.answers)
	ns := min(kept-an, e.authority)
	if kept < len(e.records) {
		// Additional records may be left out in silence, authority too where
		// it proves nothing (RFC 2181 §9).
		if an < e.answers || ns < e.authority && (e.denial || q.do) {
			flags |= flagTC
		}
	}
	ar := kept - an - ns
	binary.BigEndian.PutUint16(m, q.id)
	binary.BigEndian.PutUint16(m[2:], flags)
	binary.BigEndian.PutUint16(m[6:], uint16(an))
	binary.BigEndian.PutUint16(m[8:], uint16(ns))
	if !q.edns {
		binary.BigEndian.PutUint16(m[10:], uint16(ar))
		return buf
	}
	binary.BigEndian.PutUint16(m[10:], uint16(ar+1))
	var do byte
	if q.do {
		do = 0x80
	}
	if stale {
		return append(buf, 0, 0, typeOPT, udpMax>>8, udpMax&0xFF, 0, 0, do, 0, 0, 6, 0, optEDE, 0, 2, 0, edeStale)
	}
	return append(buf, 0, 0, typeOPT, udpMax>>8, udpMax&0xFF, 0, 0, do, 0, 0, 0)
}
