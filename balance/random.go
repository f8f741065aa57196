package balance

import (
	"math/bits"
	"math/rand/v2"
)

// Random picks at random in proportion to weight. The zero value has nothing
// to pick. Copies share the table.
type Random struct {
	n int
	// total is what the upper bounds add up to. When all weights are the same
	// there is no table: bounds is nil and total is n.
	total  uint32
	bounds []uint32
}

// NewRandom makes a Random from weights. Up to 65,536 weights keep the sum
// within 32 bits; a longer list than that is scaled by treating every
// non-zero weight alike.
func NewRandom(weights []uint16) Random {
	r := Random{n: len(weights)}
	if len(weights) == 0 {
		return r
	}
	same := true
	for _, w := range weights {
		same = same && w == weights[0]
	}
	if same {
		if weights[0] > 0 {
			r.total = uint32(len(weights))
		}
		return r
	}
	r.bounds = make([]uint32, len(weights))
	for i, w := range weights {
		if len(weights) > 1<<16 && w > 0 {
			w = 1
		}
		r.total += uint32(w)
		r.bounds[i] = r.total
	}
	return r
}

// Len is the number of weights.
func (r Random) Len() int { return r.n }

// Empty says whether nothing can be picked.
func (r Random) Empty() bool { return r.total == 0 }

// Next picks with the process's random source.
func (r Random) Next() int {
	if r.total == 0 {
		return -1
	}
	return r.Pick(rand.Uint64())
}

// Pick maps u, uniform over all of uint64, to an index: the pure part of Next.
func (r Random) Pick(u uint64) int {
	if r.total == 0 {
		return -1
	}
	// The high word of u*total is uniform in [0,total) up to 2^-32, without
	// a division.
	hi, _ := bits.Mul64(u, uint64(r.total))
	if r.bounds == nil {
		return int(hi)
	}
	return r.search(uint32(hi))
}

// search finds the first bound above x. A zero weight has the bound of its
// predecessor, so it is never the first.
func (r Random) search(x uint32) int {
	lo, hi := 0, len(r.bounds)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if r.bounds[mid] > x {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	return lo
}

// NextExcept picks among the indices for which skip is false, still in
// proportion to weight: for the second try after the first pick failed. It
// looks at every weight.
func (r Random) NextExcept(skip func(int) bool) int {
	var left uint32
	for i := range r.n {
		if w := r.weight(i); w > 0 && !skip(i) {
			left += w
		}
	}
	if left == 0 {
		return -1
	}
	x := rand.Uint32N(left)
	for i := range r.n {
		w := r.weight(i)
		if w == 0 || skip(i) {
			continue
		}
		if x < w {
			return i
		}
		x -= w
	}
	return -1 // skip changed its mind between the two rounds
}

func (r Random) weight(i int) uint32 {
	switch {
	case r.total == 0:
		return 0
	case r.bounds == nil:
		return 1
	case i == 0:
		return r.bounds[0]
	}
	return r.bounds[i] - r.bounds[i-1]
}
