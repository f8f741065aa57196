package balance

import "math/bits"

// table draws one of a list in proportion to weight in constant time, by the
// alias method (Walker, Vose): each slot belongs to one member up to a mark, and
// to another above it.
type table struct {
	who    []int32 // nil: every member by itself, all weights alike
	marks  []uint32
	others []int32
	n      uint32
}

func newTable(members []member, pick []int32) table {
	t := table{n: uint32(len(pick)), who: pick}
	total, same := uint64(0), true
	for _, i := range pick {
		w := members[i].weight
		total += uint64(w)
		same = same && w == members[pick[0]].weight
	}
	identity := len(pick) == len(members)
	if same && identity {
		t.who = nil
	}
	if same {
		return t
	}
	n := len(pick)
	t.marks, t.others = make([]uint32, n), make([]int32, n)
	// share is n times the probability, scaled by total so that all is exact.
	share := make([]uint64, n)
	small, large := make([]int32, 0, n), make([]int32, 0, n)
	for s, i := range pick {
		share[s] = uint64(members[i].weight) * uint64(n)
		if share[s] < total {
			small = append(small, int32(s))
		} else {
			large = append(large, int32(s))
		}
	}
	for len(small) > 0 && len(large) > 0 {
		s, l := small[len(small)-1], large[len(large)-1]
		small = small[:len(small)-1]
		hi, lo := bits.Mul64(share[s], 1<<32)
		mark, _ := bits.Div64(hi, lo, total)
		t.marks[s], t.others[s] = uint32(mark), pick[l]
		share[l] -= total - share[s]
		if share[l] < total {
			large = large[:len(large)-1]
			small = append(small, l)
		}
	}
	for _, s := range append(small, large...) {
		t.marks[s], t.others[s] = 1<<32-1, pick[s]
	}
	return t
}

// draw maps u, uniform over uint64, to a member.
func (t *table) draw(u uint64) int32 {
	hi, lo := bits.Mul64(u, uint64(t.n))
	if t.marks != nil && uint32(lo>>32) >= t.marks[hi] {
		return t.others[hi]
	}
	if t.who == nil {
		return int32(hi)
	}
	return t.who[hi]
}

// pair maps u to two different members, of a table whose weights are alike.
func (t *table) pair(u uint64) (a, b int32) {
	n := uint64(t.n)
	x := u >> 32 * n >> 32
	y := u & (1<<32 - 1) * (n - 1) >> 32
	if y >= x {
		y++
	}
	if t.who == nil {
		return int32(x), int32(y)
	}
	return t.who[x], t.who[y]
}

// mix makes all bits of the result depend on all bits of x (the finalizer of
// MurmurHash3).
func mix(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

// Hash is for what requests and backends are placed by: the same on every
// machine and in every run, so that several gateways agree. It is no secret.
func Hash[T string | []byte](s T) uint64 {
	h := uint64(14695981039346656037) // FNV-1a
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return mix(h)
}
