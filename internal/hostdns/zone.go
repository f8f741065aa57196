package hostdns

import (
	"fmt"
	"net/netip"
	"strings"
)

// maxReverse is how many zones one range may become.
const maxReverse = 16

// ReverseZones gives the zones of the names of a range's addresses. Zones end
// at whole labels: a range that would take many becomes the one zone around
// it, as the server passes on what it does not know.
func ReverseZones(p netip.Prefix) []string {
	p = p.Masked()
	step := 8
	if p.Addr().Is6() {
		step = 4
	}
	bits := (p.Bits() + step - 1) / step * step
	if 1<<(bits-p.Bits()) > maxReverse {
		bits -= step
	}
	bits = max(bits, step)
	start := netip.PrefixFrom(p.Addr(), bits).Masked().Addr()
	var zones []string
	for a := start; len(zones) < 1<<max(0, bits-p.Bits()); a = after(a, bits) {
		zones = append(zones, reverse(a, bits/step))
	}
	return zones
}

// after gives the first address of the next network with that many bits.
func after(a netip.Addr, bits int) netip.Addr {
	b := a.AsSlice()
	for i, add := (bits-1)/8, byte(1)<<(7-(bits-1)%8); i >= 0; i, add = i-1, 1 {
		if b[i] += add; b[i] >= add {
			break
		}
	}
	next, _ := netip.AddrFromSlice(b)
	return next
}

func reverse(a netip.Addr, labels int) string {
	var l []string
	tail := "in-addr.arpa"
	if a.Is4() {
		for _, b := range a.AsSlice() {
			l = append(l, fmt.Sprint(b))
		}
	} else {
		tail = "ip6.arpa"
		for _, b := range a.AsSlice() {
			l = append(l, fmt.Sprintf("%x", b>>4), fmt.Sprintf("%x", b&15))
		}
	}
	var out strings.Builder
	for i := labels - 1; i >= 0; i-- {
		out.WriteString(l[i] + ".")
	}
	return out.String() + tail
}
