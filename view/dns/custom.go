package dns

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"

	miekg "github.com/miekg/dns"

	wiredns "github.com/fingerpost/fingerpost/wire/dns"
)

// customs are records of the configuration. They are never changed, only
// exchanged.
type customs struct {
	names map[string]*custom // by wire form, lower case
	below map[string]*custom // wildcards, by the name that they are below
}

// custom is one name.
type custom struct {
	sets []rrset
	to   string // CNAME target, wire form
	ttl  uint32 // of the CNAME
}

// rrset is the records of one type.
type rrset struct {
	typ  uint16
	ttl  uint32
	data []string // without names that are compressed
}

// SetRecords replaces the custom records, all at once or, if one is wrong, not
// at all. A line is of one of two forms; what follows # or ; is a comment:
//
//	192.0.2.7 printer.example printer     as in a hosts file, with PTR
//	printer.example 60 IN TXT "2nd floor" as in a zone file; TTL and IN may be left out
//
// All names are complete, with or without a dot at the end. *.example stands
// for every name below example that has no records of its own.
func (s *Server) SetRecords(lines []string) error {
	c, err := parseCustoms(lines, s.index.ttl.Load())
	if err != nil {
		return fmt.Errorf("view/dns: %w", err)
	}
	s.index.customs.Store(c)
	return nil
}

// parseCustoms gives nil for no records.
func parseCustoms(lines []string, ttl uint32) (*customs, error) {
	c := &customs{names: map[string]*custom{}, below: map[string]*custom{}}
	var reverse []miekg.RR // of lines of the first form
	for _, line := range lines {
		rrs, ptrs, err := parseCustom(line, ttl)
		if err != nil {
			return nil, fmt.Errorf("record %q: %w", line, err)
		}
		reverse = append(reverse, ptrs...)
		for _, rr := range rrs {
			if err := c.add(rr); err != nil {
				return nil, fmt.Errorf("record %q: %w", line, err)
			}
		}
	}
	for _, rr := range reverse {
		// What a line of the second form says about an address holds.
		if wire, err := packName(rr.Header().Name); err == nil && c.names[wire] == nil {
			if err := c.add(rr); err != nil {
				return nil, err
			}
		}
	}
	if len(c.names)+len(c.below) == 0 {
		return nil, nil
	}
	return c, nil
}

func parseCustom(line string, ttl uint32) (rrs, reverse []miekg.RR, err error) {
	text := strings.TrimSpace(line)
	if text == "" || text[0] == '#' || text[0] == ';' {
		return nil, nil, nil
	}
	if text[0] == '$' {
		return nil, nil, fmt.Errorf("directives are not understood: write the record out")
	}
	first, rest, _ := strings.Cut(strings.ReplaceAll(text, "\t", " "), " ")
	if a, err := netip.ParseAddr(first); err == nil {
		rest, _, _ = strings.Cut(rest, "#")
		return hostsLine(plain(a), strings.Fields(rest), ttl)
	}
	if i := strings.IndexByte(text, '#'); i > 0 && text[i-1] == ' ' && !strings.Contains(text[:i], `"`) {
		text = text[:i]
	}
	p := miekg.NewZoneParser(strings.NewReader(text+"\n"), ".", "")
	p.SetDefaultTTL(ttl)
	rr, ok := p.Next()
	switch {
	case p.Err() != nil:
		return nil, nil, fmt.Errorf("%w; write it like \"name.example 60 IN A 192.0.2.1\" or \"192.0.2.1 name.example\"", p.Err())
	case !ok:
		return nil, nil, fmt.Errorf("it says nothing; write it like \"name.example 60 IN A 192.0.2.1\" or \"192.0.2.1 name.example\"")
	}
	if _, more := p.Next(); more || p.Err() != nil {
		return nil, nil, fmt.Errorf("it is more than one record; write one on each line")
	}
	return []miekg.RR{rr}, nil, nil
}

func hostsLine(a netip.Addr, names []string, ttl uint32) (rrs, reverse []miekg.RR, err error) {
	if len(names) == 0 {
		return nil, nil, fmt.Errorf("the address has no name; write one after it")
	}
	for i, n := range names {
		h := miekg.RR_Header{Name: miekg.Fqdn(n), Class: miekg.ClassINET, Ttl: ttl}
		if a.Is4() {
			h.Rrtype = miekg.TypeA
			rrs = append(rrs, &miekg.A{Hdr: h, A: a.AsSlice()})
		} else {
			h.Rrtype = miekg.TypeAAAA
			rrs = append(rrs, &miekg.AAAA{Hdr: h, AAAA: a.AsSlice()})
		}
		if back, err := miekg.ReverseAddr(a.String()); i == 0 && err == nil && !strings.HasPrefix(n, "*") {
			reverse = append(reverse, &miekg.PTR{Hdr: miekg.RR_Header{Name: back, Rrtype: miekg.TypePTR, Class: miekg.ClassINET, Ttl: ttl}, Ptr: miekg.Fqdn(n)})
		}
	}
	return rrs, reverse, nil
}

// packName gives the lower-case wire form of a name in text.
func packName(name string) (string, error) {
	var b [maxName + 1]byte
	n, err := miekg.PackDomainName(miekg.CanonicalName(name), b[:], 0, nil, false)
	if err != nil {
		return "", fmt.Errorf("%q is no domain name: %w", name, err)
	}
	return string(b[:n]), nil
}

func (c *customs) add(rr miekg.RR) error {
	h := rr.Header()
	if h.Class != miekg.ClassINET {
		return fmt.Errorf("class %s: it must be IN", miekg.Class(h.Class))
	}
	switch h.Rrtype {
	case miekg.TypeSOA, miekg.TypeNS, miekg.TypeDNAME, miekg.TypeOPT, miekg.TypeANY, miekg.TypeAXFR, miekg.TypeIXFR, miekg.TypeTSIG, miekg.TypeTKEY:
		return fmt.Errorf("type %s is not for records of your own: for another zone name its servers as upstreams", miekg.Type(h.Rrtype))
	}
	wire, err := packName(h.Name)
	if err != nil {
		return err
	}
	names := c.names
	if rest, ok := strings.CutPrefix(wire, "\x01*"); ok {
		names, wire = c.below, rest
	}
	var buf [maxName + 1 + tcpMax]byte
	end, err := miekg.PackRR(rr, buf[:], 0, nil, false)
	if err != nil {
		return err
	}
	at, _ := wiredns.SkipName(buf[:end], 0)
	// A zone file may leave the data out, for updates (RFC 2136), and the library
	// writes some records that nobody can read.
	if end > at+10 {
		_, _, err = miekg.UnpackRR(buf[:end], 0)
	}
	if end <= at+10 || err != nil {
		return fmt.Errorf("%s: the data is missing or not complete; a record looks like 'printer.example A 192.0.2.7'", miekg.Type(h.Rrtype))
	}
	data := string(buf[at+10 : end])
	n := names[wire]
	if n == nil {
		n = &custom{}
		names[wire] = n
	}
	if h.Rrtype == miekg.TypeCNAME {
		if n.to != "" || len(n.sets) > 0 {
			return fmt.Errorf("a name with a CNAME has nothing else")
		}
		target, err := packName(rr.(*miekg.CNAME).Target)
		n.to, n.ttl = target, h.Ttl
		return err
	}
	if n.to != "" {
		return fmt.Errorf("a name with a CNAME has nothing else")
	}
	for i := range n.sets {
		if s := &n.sets[i]; s.typ == h.Rrtype {
			s.ttl = min(s.ttl, h.Ttl) // they are one set (RFC 2181 §5.2)
			for _, d := range s.data {
				if d == data {
					return nil
				}
			}
			s.data = append(s.data, data)
			return nil
		}
	}
	n.sets = append(n.sets, rrset{h.Rrtype, h.Ttl, []string{data}})
	return nil
}

// find gives the records of a name, nil if there are none.
func (c *customs) find(n *name) *custom {
	if r := c.names[string(n.b[:n.n])]; r != nil || len(c.below) == 0 {
		return r
	}
	for i := 1; i <= n.labels; i++ {
		rest := n.b[n.off[i]:n.n]
		if r := c.below[string(rest)]; r != nil {
			return r
		}
		if c.names[string(rest)] != nil {
			break // a wildcard does not reach below a name that exists (RFC 4592 §3.3.1)
		}
	}
	return nil
}

// custom answers a name that the catalog does not know, and says whether it
// could. Label number zone is where the zone's name starts in n.
func (x *index) custom(n *name, zone int, qtype, owner uint16, m *message, f *finding) bool {
	c := x.customs.Load()
	if c == nil {
		return false
	}
	r := c.find(n)
	if r == nil {
		return false
	}
	f.rule, f.rcode, f.elsewhere, f.entry = ruleCustom, rcodeOK, false, nil
	if r.to != "" {
		if m.fits(headLen + len(r.to)) {
			m.head(owner, typeCNAME, r.ttl, len(r.to))
			m.b = append(m.b, r.to...)
			m.an++
			if qtype != typeCNAME && qtype != typeANY {
				f.next = r.to
			}
		}
		return true
	}
	had := m.an
	for i := range r.sets {
		s := &r.sets[i]
		if s.typ != qtype {
			continue
		}
		first := rand.IntN(len(s.data))
		for j := range s.data {
			d := s.data[(first+j)%len(s.data)]
			if !m.fits(headLen + len(d)) {
				break
			}
			m.head(owner, s.typ, s.ttl, len(d))
			m.b = append(m.b, d...)
			m.an++
		}
	}
	x.finish(n, zone, qtype, owner, m, had)
	return true
}
