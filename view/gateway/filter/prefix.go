package filter

import (
	"net/netip"
	"slices"
)

// ranges are sets of addresses, sorted and disjoint: one binary search tells
// whether an address is in one of thousands of prefixes.
type ranges struct {
	from, to []netip.Addr
}

func newRanges(prefixes []netip.Prefix) ranges {
	type span struct{ from, to netip.Addr }
	spans := make([]span, 0, len(prefixes))
	for _, p := range prefixes {
		if !p.IsValid() {
			continue
		}
		if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
		}
		p = p.Masked()
		spans = append(spans, span{p.Addr(), last(p)})
	}
	slices.SortFunc(spans, func(a, b span) int { return a.from.Compare(b.from) })
	var r ranges
	for _, s := range spans {
		n := len(r.to)
		if n > 0 && r.to[n-1].BitLen() == s.from.BitLen() && s.from.Compare(r.to[n-1]) <= 0 {
			if s.to.Compare(r.to[n-1]) > 0 {
				r.to[n-1] = s.to
			}
			continue
		}
		r.from, r.to = append(r.from, s.from), append(r.to, s.to)
	}
	return r
}

// last is the highest address of a prefix.
func last(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := range b {
		switch host := (i+1)*8 - p.Bits(); {
		case host >= 8:
			b[i] = 0xff
		case host > 0:
			b[i] |= 1<<host - 1
		}
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func (r *ranges) empty() bool { return len(r.from) == 0 }

func (r *ranges) has(a netip.Addr) bool {
	lo, hi := 0, len(r.from)
	for lo < hi { // the first range that begins after a
		if mid := (lo + hi) / 2; r.from[mid].Compare(a) <= 0 {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo > 0 && a.IsValid() && r.to[lo-1].BitLen() == a.BitLen() && a.Compare(r.to[lo-1]) <= 0
}
