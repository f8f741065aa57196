package dns

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
)

// address adds one A or AAAA record, if it is of the type asked for.
func (m *message) address(owner, qtype uint16, ttl uint32, a netip.Addr) {
	switch {
	case qtype == typeA && a.Is4():
		if m.fits(lenA) {
			a4 := a.As4()
			m.head(owner, typeA, ttl, 4)
			m.b = append(m.b, a4[:]...)
			m.an++
		}
	case qtype == typeAAAA && a.Is6():
		if m.fits(lenAAAA) {
			a16 := a.As16()
			m.head(owner, typeAAAA, ttl, 16)
			m.b = append(m.b, a16[:]...)
			m.an++
		}
	}
}

// addresses adds the addresses of one family, starting anywhere.
func (m *message) addresses(owner, qtype uint16, ttl uint32, addrs []netip.Addr) {
	first := 0
	if len(addrs) > 1 {
		first = rand.IntN(len(addrs))
	}
	for _, a := range addrs[first:] {
		m.address(owner, qtype, ttl, a)
	}
	for _, a := range addrs[:first] {
		m.address(owner, qtype, ttl, a)
	}
}

// additional adds both families' records of the name at an offset, as far as
// there is room: what is missing here is no truncation.
func (m *message) additional(at int, ttl uint32, a netip.Addr) {
	size, typ := lenA, uint16(typeA)
	if a.Is6() {
		size, typ = lenAAAA, typeAAAA
	}
	if at >= 0x4000 || len(m.b)+size > m.limit {
		return // beyond that no pointer reaches
	}
	an, tc := m.an, m.tc
	m.address(0xC000|uint16(at), typ, ttl, a)
	m.an, m.tc = an, tc
	m.ar++
}

// target adds the name of a service, or with a label of something below it.
func (x *index) target(m *message, e *entry, label []byte) {
	if len(label) > 0 {
		m.b = append(m.b, byte(len(label)))
		m.b = append(m.b, label...)
	}
	m.b = append(m.b, e.owner.name...)
	m.b = append(m.b, "\x03svc"...)
	m.b = append(m.b, x.zone...)
}

func (x *index) targetLen(e *entry, label []byte) int {
	n := len(e.owner.name) + len("\x03svc") + len(x.zone)
	if len(label) > 0 {
		n += 1 + len(label)
	}
	return n
}

// oneSRV adds an SRV record and gives the offset of its target, which is
// never compressed (RFC 2782).
func (x *index) oneSRV(m *message, owner uint16, e *entry, label []byte, weight, port uint16) (at int, ok bool) {
	n := 6 + x.targetLen(e, label)
	if !m.fits(headLen + n) {
		return 0, false
	}
	m.head(owner, typeSRV, x.ttl.Load(), n)
	m.b = append(m.b, 0, 0, byte(weight>>8), byte(weight), byte(port>>8), byte(port))
	at = len(m.b)
	x.target(m, e, label)
	m.an++
	return at, true
}

// maxExtra is up to how many SRV records addresses are added; answers with
// more do not fit into a packet.
const maxExtra = 64

// srv answers an SRV question for a port.
func (x *index) srv(e *entry, p *port, owner uint16, m *message) {
	if e.kind != headless {
		if at, ok := x.oneSRV(m, owner, e, nil, 100, p.number); ok {
			for _, a := range e.vips {
				m.additional(at, x.ttl.Load(), a)
			}
		}
		return
	}
	n := len(p.srvs)
	first := rand.IntN(n)
	var order [maxExtra]uint16
	few := min(n, maxExtra)
	for i := range few {
		order[i] = uint16((first + i) % n)
		j := rand.IntN(i + 1)
		order[i], order[j] = order[j], order[i]
	}
	var at [maxExtra]int
	var buf [maxLabel]byte
	for i := range n {
		j := (first + i) % n
		if i < few {
			j = int(order[i])
		}
		r := &p.srvs[j]
		label := buf[:0]
		if r.host >= 0 {
			label = append(label, e.hosts[r.host].label...)
		} else {
			label = dashed(label, r.addr)
		}
		off, ok := x.oneSRV(m, owner, e, label, r.weight, r.port)
		if !ok {
			return
		}
		if i < few {
			at[i] = off
		}
	}
	if n > few {
		return
	}
next:
	for i := range few {
		r := &p.srvs[order[i]]
		for j := range i {
			if s := &p.srvs[order[j]]; s.host == r.host && s.addr == r.addr {
				continue next // the same name on another port
			}
		}
		if r.host < 0 {
			m.additional(at[i], x.ttl.Load(), r.addr)
			continue
		}
		for _, a := range e.hosts[r.host].addrs {
			m.additional(at[i], x.ttl.Load(), a)
		}
	}
}

const (
	nsLabels   = "\x02ns\x03dns"
	hostmaster = "\x0ahostmaster"
	soaMaxTTL  = 300
)

// apex answers the zone's own name.
func (x *index) apex(n *name, qtype, owner uint16, m *message) {
	switch qtype {
	case typeSOA:
		x.soa(m, n, 0, owner, true)
	case typeNS:
		if !m.fits(headLen + len(nsLabels) + 2) {
			return
		}
		m.head(owner, typeNS, x.ttl.Load(), len(nsLabels)+2)
		at := len(m.b)
		m.b = append(m.b, nsLabels...)
		m.b = append(m.b, byte(owner>>8), byte(owner))
		m.an++
		if hosts := x.hosts.Load(); hosts != nil {
			for _, a := range *hosts {
				m.additional(at, x.ttl.Load(), a)
			}
		}
	}
}

// soa adds the SOA record: to the answer, or to the authority section of a
// negative answer. The zone's name is the tail of n from label number zone.
func (x *index) soa(m *message, n *name, zone int, owner uint16, answer bool) {
	at := owner + uint16(n.off[zone])
	ttl := min(x.ttl.Load(), soaMaxTTL)
	inCluster := string(n.b[n.off[zone]:n.n]) == x.zone
	tail := 2
	if !inCluster {
		tail = len(x.zone)
	}
	length := len(nsLabels) + len(hostmaster) + 2*tail + 20
	if !m.fits(headLen + length) {
		return
	}
	m.head(at, typeSOA, ttl, length)
	for _, labels := range [...]string{nsLabels, hostmaster} {
		m.b = append(m.b, labels...)
		if inCluster {
			m.b = append(m.b, byte(at>>8), byte(at))
		} else {
			m.b = append(m.b, x.zone...)
		}
	}
	// Nobody transfers the zone: refresh, retry and expire are for show.
	for _, v := range [...]uint32{x.serial.Load(), 7200, 1800, 86400, ttl} {
		m.b = binary.BigEndian.AppendUint32(m.b, v)
	}
	if answer {
		m.an++
	} else {
		m.ns++
	}
}

// reverse answers a name outside the zone: of an address, if the index knows
// it, else it is an upstream's business.
func (x *index) reverse(n *name, qtype, owner uint16, m *message) finding {
	elsewhere := finding{rcode: rcodeRefused, rule: ruleElsewhere, zone: zoneOther, elsewhere: true}
	addr, zone, in, ok := n.reverse()
	if !in || !ok {
		x.custom(n, 0, qtype, owner, m, &elsewhere)
		return elsewhere
	}
	had := m.an
	f := finding{zone: zoneReverse}
	if !x.ptr(addr, qtype, owner, m, &f) {
		if x.custom(n, 0, qtype, owner, m, &elsewhere) {
			return elsewhere
		}
		if x.synced.Load() || !private(addr) {
			return elsewhere
		}
		f.rcode, f.rule = rcodeServFail, ruleReverseUnsynced
		return f
	}
	x.finish(n, zone, qtype, owner, m, had)
	return f
}

// private says whether an address may be of this cluster though it is not
// known yet.
func private(a netip.Addr) bool {
	return a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() ||
		a.Is4() && netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64, 0, 0}), 10).Contains(a)
}

// ptr answers for an address: the service of a cluster IP, else one name per
// endpoint.
func (x *index) ptr(addr netip.Addr, qtype, owner uint16, m *message, f *finding) bool {
	first := x.ips.get(addr.As16())
	for o := first; o != nil; o = o.next {
		e := x.find([]byte(o.owner.name))
		if e == nil {
			continue
		}
		for _, vip := range e.vips {
			if vip == addr {
				f.rule, f.entry = rulePTRService, e
				x.onePTR(m, qtype, owner, e, nil)
				return true
			}
		}
	}
	found := false
	for o := first; o != nil; o = o.next {
		e := x.find([]byte(o.owner.name))
		if e == nil {
			continue
		}
		for i := range e.hosts {
			for _, a := range e.hosts[i].addrs {
				if a == addr {
					found = true
					f.rule, f.entry = rulePTREndpoint, e
					var buf [maxLabel]byte
					x.onePTR(m, qtype, owner, e, append(buf[:0], e.hosts[i].label...))
				}
			}
		}
		if e.unnamed(addr) {
			found = true
			f.rule, f.entry = rulePTREndpoint, e
			var buf [maxLabel]byte
			x.onePTR(m, qtype, owner, e, dashed(buf[:0], addr))
		}
	}
	return found
}

func (x *index) onePTR(m *message, qtype, owner uint16, e *entry, label []byte) {
	if n := x.targetLen(e, label); qtype == typePTR && m.fits(headLen+n) {
		m.head(owner, typePTR, x.ttl.Load(), n)
		x.target(m, e, label)
		m.an++
	}
}
