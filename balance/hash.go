package balance

import (
	"cmp"
	"slices"
)

// hashes is where hashes lead: a ring of points or a table of slots.
type hashes struct {
	points []uint64 // of a ring, sorted: the place and, in the lower half, whose it is
	owners []int32  // what the lower half is an index into
	slots  []int32  // of maglev
	total  int64    // of all weights
}

// maxPoints bounds a ring, of 8 bytes each: at 4,000 backends.
const maxPoints = 1 << 19

// newRing gives every member of weight 100 so many points, others in proportion.
// A member's points depend on it alone, so a list without it moves nobody
// else's hashes.
func newRing(list []Member) hashes {
	h := hashes{total: weightOf(list), owners: byHash(list)}
	if h.total == 0 {
		return h
	}
	per := 128.0
	for float64(h.total)/100*per > maxPoints && per > 1 {
		per /= 2
	}
	for rank, i := range h.owners {
		m := &list[i]
		for k := range max(1, int(per*float64(m.Weight)/100+0.5)) {
			at := mix(m.Hash + uint64(k)*0x9e3779b97f4a7c15)
			h.points = append(h.points, at&^(1<<32-1)|uint64(rank))
		}
	}
	slices.Sort(h.points)
	return h
}

// byHash gives the indices of those with a weight by their hashes, so that the
// same list in another order leads to the same backends.
func byHash(list []Member) []int32 {
	var order []int32
	for i, m := range list {
		if m.Weight > 0 {
			order = append(order, int32(i))
		}
	}
	slices.SortFunc(order, func(a, b int32) int { return cmp.Compare(list[a].Hash, list[b].Hash) })
	return order
}

func weightOf(list []Member) (total int64) {
	for _, m := range list {
		total += int64(m.Weight)
	}
	return total
}

// newMaglev fills a table by the algorithm of Maglev (NSDI 2016, section 3.4):
// each member has its own order in which it wants the slots, and they take
// turns. Heavier ones have more turns.
func newMaglev(list []Member) hashes {
	h := hashes{total: weightOf(list)}
	order := byHash(list)
	top := uint16(0)
	for _, i := range order {
		top = max(top, list[i].Weight)
	}
	if len(order) == 0 {
		return h
	}
	size := uint64(655373)
	for _, p := range []uint64{1021, 4093, 16381, 65537} {
		if p >= 50*uint64(len(order)) {
			size = p
			break
		}
	}
	h.slots = make([]int32, size)
	for s := range h.slots {
		h.slots[s] = -1
	}
	type claim struct {
		at, step uint64
		credit   float64
	}
	claims := make([]claim, len(order))
	for k, i := range order {
		claims[k] = claim{at: list[i].Hash % size, step: mix(list[i].Hash^0x5bd1e995)%(size-1) + 1}
	}
	for left := size; ; {
		for k, i := range order {
			c := &claims[k]
			if c.credit += float64(list[i].Weight) / float64(top); c.credit < 1 {
				continue
			}
			c.credit--
			for h.slots[c.at] >= 0 {
				if c.at += c.step; c.at >= size {
					c.at -= size
				}
			}
			h.slots[c.at] = i
			if left--; left == 0 {
				return h
			}
		}
	}
}

// walk is how many places after its own a hash is carried to before all
// members are looked at.
const walk = 64

// follow gives the member that a hash leads to; if that is not fit or has its
// part of the load already, the next one.
func (g *Group) follow(q *Query, c *care) int32 {
	h := &g.hashes
	limit := g.limit()
	if h.slots != nil {
		x := q.Hash
		for range walk {
			if i := h.slots[x%uint64(len(h.slots))]; g.takes(i, limit, c, q) {
				return i
			}
			x = mix(x + 0x9e3779b97f4a7c15)
		}
		return g.room(q, limit, c)
	}
	at := mix(q.Hash) &^ (1<<32 - 1)
	lo, hi := 0, len(h.points)
	for lo < hi {
		if mid := int(uint(lo+hi) >> 1); h.points[mid] < at {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if g.opt.Subset > 1 {
		if i := g.among(q, lo, limit, c); i >= 0 {
			return i
		}
		return g.room(q, limit, c)
	}
	last := int32(-1)
	for range walk {
		if lo == len(h.points) {
			lo = 0
		}
		if i := h.owners[uint32(h.points[lo])]; i != last {
			if g.takes(i, limit, c, q) {
				return i
			}
			last = i
		}
		lo++
	}
	return g.room(q, limit, c)
}

// maxSubset bounds Options.Subset.
const maxSubset = 32

// among gives the one with the least load of the first Subset members behind a
// place of the ring; chance decides between equals.
func (g *Group) among(q *Query, at int, limit int64, c *care) int32 {
	h := &g.hashes
	var room [maxSubset]int32
	seen := room[:0]
	most := min(g.opt.Subset, maxSubset, len(h.owners))
	best, ties := int32(-1), uint64(0)
	for range min(len(h.points), walk*most) {
		if at == len(h.points) {
			at = 0
		}
		i := h.owners[uint32(h.points[at])]
		at++
		if slices.Contains(seen, i) || !g.takes(i, limit, c, q) {
			continue
		}
		seen = append(seen, i)
		less := int64(-1)
		if best >= 0 {
			x, y := &g.members[i], &g.members[best]
			less = g.load(x, c)*int64(y.weight) - g.load(y, c)*int64(x.weight)
		}
		switch {
		case less < 0:
			best, ties = i, 1
		case less == 0:
			if ties++; q.random()%ties == 0 {
				best = i
			}
		}
		if len(seen) == most {
			break
		}
	}
	return best
}

// limit is how much of the bound there is for weight 1, times 100 and the total
// weight; 0: there is no bound.
func (g *Group) limit() int64 {
	bound := g.opt.Bounded
	switch {
	case bound < 0:
		return 0
	case bound == 0:
		bound = 125
	}
	return int64(max(bound, 100)) * (g.health.active.Load() + 1)
}

func (g *Group) takes(i int32, limit int64, c *care, q *Query) bool {
	m := &g.members[i]
	// The bound is rounded up: an idle member may always have one.
	if limit > 0 && int64(m.load.active.Load())*100*g.hashes.total >= limit*int64(m.weight) {
		return false
	}
	return c == nil || c.fitsHash(m, q)
}

func (c *care) fitsHash(m *member, q *Query) bool {
	return !c.out(m) && !slices.Contains(q.Tried, m.load)
}

// room looks at all members, from one that the hash says, for one with room.
func (g *Group) room(q *Query, limit int64, c *care) int32 {
	from := int(mix(q.Hash) % uint64(len(g.members)))
	for k := range g.members {
		i := int32((from + k) % len(g.members))
		if g.members[i].weight > 0 && g.takes(i, limit, c, q) {
			return i
		}
	}
	return -1
}
