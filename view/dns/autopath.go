package dns

import "net/netip"

// autopath saves clients the walk along their search list. A client in
// namespace shop with the usual list asks for example.com as
//
//	example.com.shop.svc.<zone>, example.com.svc.<zone>, example.com.<zone>, example.com
//
// When the first does not exist, the answer is that of the first that does, as
// the target of a CNAME. That the client is in that namespace is known from
// its address: an endpoint of a service there has it.
//
// It is called with the answer to the first name in m and f, and changes both
// if a later name exists. The last one is an upstream's to answer.
func (x *index) autopath(q *query, m *message, f *finding) {
	k, ok := q.under(x.zone, x.zoneLabels)
	if !ok || k < 3 || string(q.label(k-1)) != "svc" || !x.podIn(q.span(k-2, k-1), q.client) {
		return
	}
	before, was := *m, *f
	base := q.span(0, k-2)
	target := &q.aside
	for _, rest := range x.search {
		n := copy(target.b[:], base)
		if n+len(rest) > maxName {
			continue
		}
		copy(target.b[n:], rest)
		target.n = n + len(rest)
		target.index()
		m.b, m.an, m.ns, m.ar, m.tc = m.b[:q.end], 0, 0, 0, false
		if !m.fits(headLen + target.n) {
			break
		}
		m.head(questionAt, typeCNAME, x.ttl.Load(), target.n)
		at := len(m.b)
		m.b = append(m.b, target.b[:target.n]...)
		m.an++
		g := x.lookup(target, q.qtype, 0xC000|uint16(at), m)
		if g.elsewhere && !x.upstream.Load() {
			break
		}
		if g.rcode != rcodeOK && !g.elsewhere {
			continue
		}
		g.zone, g.rule = zoneCluster, ruleAutopath
		if g.elsewhere {
			g.rcode, g.next = rcodeOK, string(target.b[:target.n])
		}
		*f = g
		return
	}
	// Nothing exists: the first answer again. The SOA is all that it had.
	*m = before
	*f = was
	m.b, m.an, m.ns, m.ar, m.tc = m.b[:q.end], 0, 0, 0, false
	x.soa(m, &q.name, k, questionAt, false)
}

// podIn says whether an endpoint that is in, of a service in the namespace,
// has the address.
func (x *index) podIn(space []byte, a netip.Addr) bool {
	a = plain(a)
	for o := x.ips.get(a.As16()); o != nil; o = o.next {
		if o.owner.space != string(space) {
			continue
		}
		p := x.services.get(o.owner.name)
		if p == nil || *p == nil {
			continue
		}
		e := *p
		if e.unnamed(a) {
			return true
		}
		for i := range e.hosts {
			for _, h := range e.hosts[i].addrs {
				if h == a {
					return true
				}
			}
		}
	}
	return false
}
