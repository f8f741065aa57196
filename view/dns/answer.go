package dns

import "bytes"

// rule says which part of the specification an answer comes from.
type rule uint8

const (
	ruleDropped rule = iota
	ruleMalformed
	ruleOpcode
	ruleVersionEDNS
	ruleClass
	ruleTransfer
	ruleApex
	ruleTree
	ruleSchema
	ruleNameserver
	ruleVirtual
	ruleHeadless
	ruleExternal
	ruleEndpoint
	rulePort
	rulePortTree
	rulePod
	ruleCustom
	ruleAutopath
	ruleUnverified
	rulePTRService
	rulePTREndpoint
	ruleNoName
	ruleNoNamespace
	ruleNoService
	ruleNotReady
	ruleNoEndpoint
	ruleNoPort
	ruleReverseUnsynced
	ruleElsewhere
)

// zoneID is the zone that a query falls in, for the counters.
type zoneID uint8

const (
	zoneCluster zoneID = iota
	zoneReverse
	zoneOther
	zones
)

// finding is what was found out about a request.
type finding struct {
	rcode     int
	rule      rule
	zone      zoneID
	elsewhere bool   // an upstream may know more: about the question, or about next
	entry     *entry // the service it was about, nil if none
	next      string // CNAME target that is still to be followed, wire form
}

// maxChain is how many CNAMEs are followed.
const maxChain = 10

// answer answers a request from the index alone: buf[:0] is where the answer
// is written, nil means that there must be none. When the finding says
// elsewhere, the answer is the one to give when no upstream does better.
func (x *index) answer(q *query, pkt, buf []byte, tcp bool) ([]byte, finding) {
	switch q.parse(pkt) {
	case drop:
		return nil, finding{zone: zoneOther}
	case malformed:
		return bare(buf, q, rcodeFormErr), finding{rcode: rcodeFormErr, rule: ruleMalformed, zone: zoneOther}
	case foreign:
		return bare(buf, q, rcodeNotImp), finding{rcode: rcodeNotImp, rule: ruleOpcode, zone: zoneOther}
	}
	var m message
	m.begin(buf, pkt[:q.end], q.room(tcp))
	f := finding{zone: zoneOther}
	switch {
	case q.edns && q.version != 0:
		f.rcode, f.rule = rcodeBadVers, ruleVersionEDNS
	case q.class != classIN:
		f.rcode, f.rule = rcodeRefused, ruleClass
	case q.qtype == typeAXFR || q.qtype == typeIXFR:
		f.rcode, f.rule = rcodeRefused, ruleTransfer
	default:
		f = x.lookup(&q.name, q.qtype, questionAt, &m)
		if x.options.Load().auto && f.rcode == rcodeNXDomain && q.client.IsValid() {
			x.autopath(q, &m, &f)
		}
		if f.next != "" {
			f = x.chase(q, &m, f)
		}
	}
	if tcp {
		m.tc = false // there is nothing larger to retry with
	}
	var flags uint16
	if (f.zone != zoneOther || f.rule == ruleCustom) && f.rcode != rcodeServFail {
		flags = flagAA
	}
	if x.upstream.Load() {
		flags |= flagRA
	}
	return m.end(q, f.rcode, flags), f
}

// room is how long an answer may be, without the OPT record.
func (q *query) room(tcp bool) int {
	n := udpPlain
	switch {
	case tcp:
		n = tcpMax
	case q.edns:
		n = min(max(int(q.size), udpPlain), udpMax)
	}
	if q.edns {
		n -= optLen
	}
	return n
}

// chase follows a CNAME as far as the index goes.
func (x *index) chase(q *query, m *message, f finding) finding {
	var n name
	var seen [maxChain]string
	for i := 0; f.next != ""; i++ {
		next := f.next
		if i == maxChain || string(q.b[:q.n]) == next {
			f.next = ""
			return f
		}
		for _, s := range seen[:i] {
			if s == next {
				f.next = ""
				return f
			}
		}
		seen[i] = next
		n.set(next)
		// The target is the last thing that was written.
		g := x.lookup(&n, q.qtype, 0xC000|uint16(len(m.b)-len(next)), m)
		if g.elsewhere {
			f.elsewhere = true
			return f
		}
		f.next, f.rcode = g.next, g.rcode
	}
	return f
}

// lookup answers one name. owner is the compression pointer to it.
func (x *index) lookup(n *name, qtype, owner uint16, m *message) finding {
	before, ok := n.under(x.zone, x.zoneLabels)
	if !ok {
		return x.reverse(n, qtype, owner, m)
	}
	f := finding{zone: zoneCluster}
	had := m.an
	if x.inZone(n, before, qtype, owner, m, &f) {
		x.finish(n, before, qtype, owner, m, had)
		return f
	}
	if x.custom(n, before, qtype, owner, m, &f) {
		return f
	}
	f.rcode = rcodeNXDomain
	if f.rule != ruleNoName && !x.synced.Load() {
		f.rcode = rcodeServFail
		return f
	}
	x.soa(m, n, before, owner, false)
	return f
}

// finish completes the answer for a name that exists: ANY gets a placeholder
// (RFC 8482), and a type that the name does not have gets an SOA.
func (x *index) finish(n *name, zone int, qtype, owner uint16, m *message, had uint16) {
	if m.an != had || m.tc {
		return
	}
	if qtype == typeANY {
		const hinfo = "\x07RFC8482\x00"
		if m.fits(headLen + len(hinfo)) {
			m.head(owner, typeHINFO, x.ttl.Load(), len(hinfo))
			m.b = append(m.b, hinfo...)
			m.an++
		}
		return
	}
	x.soa(m, n, zone, owner, false)
}

// inZone answers a name of the zone with k labels before the zone's, and says
// whether it exists. Adding no record means that the name lacks the type.
func (x *index) inZone(n *name, k int, qtype, owner uint16, m *message, f *finding) bool {
	if k == 0 {
		f.rule = ruleApex
		x.apex(n, qtype, owner, m)
		return true
	}
	switch string(n.label(k - 1)) {
	case "svc":
		return x.inServices(n, k-1, qtype, owner, m, f)
	case "pod":
		return x.inPods(n, k-1, qtype, owner, m, f)
	case "dns":
		f.rule = ruleTree
		if k == 1 {
			return true
		}
		if k == 2 && string(n.label(0)) == "ns" {
			f.rule = ruleNameserver
			if hosts := x.hosts.Load(); hosts != nil {
				m.addresses(owner, qtype, x.ttl.Load(), *hosts)
			}
			return true
		}
	case "dns-version":
		if k == 1 {
			f.rule = ruleSchema
			const version = "\x051.1.0"
			if qtype == typeTXT && m.fits(headLen+len(version)) {
				m.head(owner, typeTXT, x.ttl.Load(), len(version))
				m.b = append(m.b, version...)
				m.an++
			}
			return true
		}
	}
	f.rule = ruleNoName
	return false
}

// inServices answers names below svc; k labels stand before svc.
func (x *index) inServices(n *name, k int, qtype, owner uint16, m *message, f *finding) bool {
	switch k {
	case 0:
		f.rule = ruleTree
		return true
	case 1:
		return x.namespace(n.span(0, 1), f)
	}
	if k > 4 || k == 4 && (n.label(0)[0] != '_' || n.label(1)[0] != '_') {
		f.rule = ruleNoName
		return false
	}
	e := x.find(n.span(k-2, k))
	if e == nil {
		f.rule = ruleNoService
		return false
	}
	f.entry = e
	if !e.exists() {
		f.rule = ruleNotReady
		return false
	}
	switch {
	case k == 2:
		x.ownName(e, qtype, owner, m, f)
		return true
	case k == 4:
		f.rule = ruleNoPort
		want := n.span(0, 2)
		for i := range e.ports {
			if p := &e.ports[i]; p.name == string(want) {
				f.rule = rulePort
				if qtype == typeSRV {
					x.srv(e, p, owner, m)
				}
				return true
			}
		}
		return false
	}
	return x.below(e, n, qtype, owner, m, f)
}

// ownName answers a service's own name.
func (x *index) ownName(e *entry, qtype, owner uint16, m *message, f *finding) {
	switch e.kind {
	case external:
		f.rule = ruleExternal
		if e.target != "" && m.fits(headLen+len(e.target)) {
			m.head(owner, typeCNAME, x.ttl.Load(), len(e.target))
			m.b = append(m.b, e.target...)
			m.an++
			if qtype != typeCNAME && qtype != typeANY {
				f.next = e.target
			}
		}
		return
	case headless:
		f.rule = ruleHeadless
	default:
		f.rule = ruleVirtual
	}
	switch qtype {
	case typeA:
		m.set(owner, e.a, lenA)
	case typeAAAA:
		m.set(owner, e.aaaa, lenAAAA)
	}
}

// below answers the names one label below a service: endpoints, and _tcp,
// which has no record but names below it (RFC 8020).
func (x *index) below(e *entry, n *name, qtype, owner uint16, m *message, f *finding) bool {
	label := n.label(0)
	if label[0] == '_' {
		f.rule = rulePortTree
		want := n.span(0, 1)
		for i := range e.ports {
			if p := &e.ports[i]; p.name[p.proto:] == string(want) {
				return true
			}
		}
		f.rule = ruleNoPort
		return false
	}
	f.rule = ruleEndpoint
	if i := e.findHost(label); i >= 0 {
		m.addresses(owner, qtype, x.ttl.Load(), e.hosts[i].addrs)
		return true
	}
	if a, ok := parseDashed(label); ok && e.unnamed(a) {
		var buf [maxLabel]byte
		if bytes.Equal(dashed(buf[:0], a), label) {
			m.address(owner, qtype, x.ttl.Load(), a)
			return true
		}
	}
	f.rule = ruleNoEndpoint
	return false
}

// inPods answers names below pod; k labels stand before pod.
func (x *index) inPods(n *name, k int, qtype, owner uint16, m *message, f *finding) bool {
	switch k {
	case 0:
		f.rule = ruleTree
		return true
	case 1:
		return x.namespace(n.span(0, 1), f)
	case 2:
		a, ok := parseDashed(n.label(0))
		if !ok {
			break
		}
		if !x.namespace(n.span(1, 2), f) {
			return false
		}
		if pods := x.options.Load().pods; pods == PodsDisabled || pods == PodsVerified && !x.podIn(n.span(1, 2), a) {
			f.rule = ruleUnverified
			return false
		}
		f.rule = rulePod
		m.address(owner, qtype, x.ttl.Load(), a)
		return true
	}
	f.rule = ruleNoName
	return false
}

func (x *index) namespace(label []byte, f *finding) bool {
	if lookup(x.spaces, label) == nil {
		f.rule = ruleNoNamespace
		return false
	}
	f.rule = ruleTree
	return true
}
