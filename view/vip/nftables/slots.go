package nftables

import (
	"net/netip"

	"github.com/fingerpost/fingerpost/view/vip"
)

// maxSlots bounds the table of a frontend whose weights differ. With equal
// weights every backend has one slot, however many there are.
const maxSlots = 256

// shares gives the number of slots for each backend, in proportion to weight.
// Each gets at least one.
func shares(all []vip.Backend) []int {
	out := make([]int, len(all))
	if len(all) == 0 {
		return out
	}
	sum, divisor := 0, 0
	for _, b := range all {
		sum += int(b.Weight)
		divisor = gcd(divisor, int(b.Weight))
	}
	// limit leaves room for the rounding of many small weights.
	limit := max(maxSlots, 2*len(all))
	for i, b := range all {
		n := int(b.Weight) / divisor
		if sum/divisor > limit {
			n = (int(b.Weight)*limit + sum/2) / sum
		}
		out[i] = max(1, n)
	}
	return out
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// arrange gives the slots for the backends, with as few differences from the
// slots before as there can be: newcomers take the places of those that went,
// and what is left over is filled from the end.
func arrange(before []slot, all []vip.Backend) []slot {
	want := make(map[netip.AddrPort]int, len(all))
	ids := identities(all)
	byAddr := make(map[netip.AddrPort]slot, len(all))
	total := 0
	for i, n := range shares(all) {
		want[all[i].Addr] = n
		byAddr[all[i].Addr] = slot{all[i].Addr, ids[i]}
		total += n
	}
	out := make([]slot, 0, max(total, len(before)))
	var holes []int
	for i, s := range before {
		now, ok := byAddr[s.addr]
		if ok && want[s.addr] > 0 {
			want[s.addr]--
			out = append(out, now)
			continue
		}
		out = append(out, slot{})
		holes = append(holes, i)
	}
	for i := range all {
		s := byAddr[all[i].Addr]
		for ; want[s.addr] > 0; want[s.addr]-- {
			if len(holes) > 0 {
				out[holes[0]], holes = s, holes[1:]
			} else {
				out = append(out, s)
			}
		}
	}
	for len(holes) > 0 {
		last := len(out) - 1
		if hole := holes[len(holes)-1]; hole == last {
			holes = holes[:len(holes)-1]
		} else {
			out[holes[0]], holes = out[last], holes[1:]
		}
		out = out[:last]
	}
	return out
}

// slot is one entry of a frontend's table.
type slot struct {
	addr netip.AddrPort
	id   uint32
}

// identities gives each backend the number that affinity remembers: that of its
// address and target, so that it is the same on all ports; where several share
// those (processes of one machine), the port counts too.
func identities(all []vip.Backend) []uint32 {
	out := make([]uint32, len(all))
	seen := make(map[uint32]int, len(all))
	for i, b := range all {
		out[i] = identity(b, false)
		if j, ok := seen[out[i]]; ok {
			out[j], out[i] = identity(all[j], true), identity(b, true)
			continue
		}
		seen[out[i]] = i
	}
	return out
}

func identity(b vip.Backend, port bool) uint32 {
	h := hash32(2166136261)
	a := b.Addr.Addr().As16()
	h.add(a[:]...)
	for i := range len(b.Target.Name) {
		h.add(b.Target.Name[i])
	}
	if port {
		h.add(byte(b.Addr.Port()>>8), byte(b.Addr.Port()))
	}
	return uint32(h) & 0x7fffffff // the highest bit tells local ones
}

// hash32 is the FNV-1a hash: it must be the same in every run.
type hash32 uint32

func (h *hash32) add(bytes ...byte) {
	for _, b := range bytes {
		*h = (*h ^ hash32(b)) * 16777619
	}
}
