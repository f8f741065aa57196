package dns

import "net/netip"

// dashed adds the name of an endpoint that has no host name: its address with
// dashes for dots and colons.
func dashed(b []byte, a netip.Addr) []byte {
	at := len(b)
	b = a.AppendTo(b)
	for i := at; i < len(b); i++ {
		if b[i] == '.' || b[i] == ':' {
			b[i] = '-'
		}
	}
	return b
}

// parseDashed reads what dashed writes, and any other way to spell an IPv6
// address. It is netip.ParseAddr without the string, which would allocate.
func parseDashed(s []byte) (netip.Addr, bool) {
	if a, ok := parse4(s, '-'); ok {
		return a, true
	}
	return parse6(s)
}

// parse4 reads four decimal numbers without leading zeros.
func parse4(s []byte, sep byte) (netip.Addr, bool) {
	var a [4]byte
	i := 0
	for part := range a {
		if part > 0 {
			if i >= len(s) || s[i] != sep {
				return netip.Addr{}, false
			}
			i++
		}
		v, digits := 0, 0
		for ; i < len(s) && s[i]-'0' < 10; i++ {
			if digits > 0 && v == 0 {
				return netip.Addr{}, false
			}
			if v = v*10 + int(s[i]-'0'); v > 255 {
				return netip.Addr{}, false
			}
			digits++
		}
		if digits == 0 {
			return netip.Addr{}, false
		}
		a[part] = byte(v)
	}
	return netip.AddrFrom4(a), i == len(s)
}

// parse6 reads groups of hexadecimal digits between dashes; two dashes stand,
// once, for one or more groups of zeros.
func parse6(s []byte) (netip.Addr, bool) {
	var a [16]byte
	gap, n := -1, 0 // where the double dash is, and bytes read, in a
	i := 0
	if len(s) >= 2 && s[0] == '-' && s[1] == '-' {
		gap, i = 0, 2
	}
	for i < len(s) {
		v, digits := 0, 0
		for ; i < len(s); i++ {
			h, ok := nibble(s[i])
			if !ok {
				break
			}
			if digits++; digits > 4 {
				return netip.Addr{}, false
			}
			v = v<<4 | int(h)
		}
		if digits == 0 || n == 16 {
			return netip.Addr{}, false
		}
		a[n], a[n+1] = byte(v>>8), byte(v)
		n += 2
		if i == len(s) {
			break
		}
		if s[i] != '-' {
			return netip.Addr{}, false
		}
		i++
		if i < len(s) && s[i] == '-' {
			if gap >= 0 {
				return netip.Addr{}, false
			}
			gap = n
			i++
		} else if i == len(s) {
			return netip.Addr{}, false // a dash at the end
		}
	}
	switch {
	case gap < 0 && n != 16, gap >= 0 && n == 16:
		return netip.Addr{}, false
	case gap >= 0:
		tail := n - gap
		copy(a[16-tail:], a[gap:n])
		clear(a[gap : 16-tail])
	}
	return netip.AddrFrom16(a), true
}

func nibble(c byte) (byte, bool) {
	switch {
	case c-'0' < 10:
		return c - '0', true
	case c-'a' < 6:
		return c - 'a' + 10, true
	}
	return 0, false
}

const (
	reverse4 = "\x07in-addr\x04arpa\x00"
	reverse6 = "\x03ip6\x04arpa\x00"
)

// reverse reads the address in a reverse name. in says that the name is in a
// reverse zone, whose first label is number zone; ok that it is a whole
// address.
func (n *name) reverse() (a netip.Addr, zone int, in, ok bool) {
	if before, under := n.under(reverse4, 2); under {
		if before != 4 {
			return a, before, true, false
		}
		var b [4]byte
		for i := range b {
			v, digits := 0, 0
			for _, c := range n.label(3 - i) {
				if c-'0' > 9 || digits > 0 && v == 0 || digits == 3 {
					return a, before, true, false
				}
				v = v*10 + int(c-'0')
				digits++
			}
			if digits == 0 || v > 255 {
				return a, before, true, false
			}
			b[i] = byte(v)
		}
		return netip.AddrFrom4(b), before, true, true
	}
	before, under := n.under(reverse6, 2)
	if !under || before != 32 {
		return a, before, under, false
	}
	var b [16]byte
	for i := range 32 {
		l := n.label(31 - i)
		h, ok := nibble(l[0])
		if len(l) != 1 || !ok {
			return a, before, true, false
		}
		b[i/2] = b[i/2]<<4 | h
	}
	return netip.AddrFrom16(b), before, true, true
}
