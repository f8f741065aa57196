package balance

import (
	"sync"
	"sync/atomic"
)

// RoundRobin takes turns in proportion to weight. Make it with NewRoundRobin.
type RoundRobin struct {
	n int

	// All weights the same and above zero: a counter is enough.
	equal bool
	turn  atomic.Uint64

	// order is a whole turn of the others, if it is short: no lock then.
	order []int32

	mu      sync.Mutex
	weights []int64
	credit  []int64 // what each is owed; the sum is zero between picks
	total   int64
}

// NewRoundRobin makes a RoundRobin. Two of the same list start at different
// places when start differs, so that many clients made at the same moment do
// not all begin with the first backend.
func NewRoundRobin(weights []uint16, start uint64) *RoundRobin {
	r := &RoundRobin{n: len(weights), equal: len(weights) > 0}
	for _, w := range weights {
		r.equal = r.equal && w > 0 && w == weights[0]
	}
	if r.equal {
		r.turn.Store(start % uint64(len(weights)))
		return r
	}
	r.weights, r.credit = make([]int64, len(weights)), make([]int64, len(weights))
	for i, w := range weights {
		r.weights[i] = int64(w)
		r.total += int64(w)
	}
	if r.total == 0 {
		return r
	}
	r.shorten()
	if r.total*int64(r.n) <= maxTurn {
		order := make([]int32, r.total)
		for i := range order {
			order[i] = int32(r.next())
		}
		r.order = order
		r.turn.Store(start % uint64(r.n))
		return r
	}
	for range start % uint64(r.n) {
		r.next()
	}
	return r
}

// maxTurn is how much work it may be to lay down a whole turn.
const maxTurn = 1 << 18

// shorten divides the weights by what they have in common.
func (r *RoundRobin) shorten() {
	var d int64
	for _, w := range r.weights {
		for w != 0 {
			d, w = w, d%w
		}
	}
	for i := range r.weights {
		r.weights[i] /= d
	}
	r.total /= d
}

// Len is the number of weights.
func (r *RoundRobin) Len() int { return r.n }

// Next gives the index whose turn it is. Unequal weights with a long common
// turn cost a lock and a look at each.
func (r *RoundRobin) Next() int {
	switch {
	case r.equal:
		return int((r.turn.Add(1) - 1) % uint64(r.n))
	case r.order != nil:
		return int(r.order[(r.turn.Add(1)-1)%uint64(len(r.order))])
	case r.total == 0:
		return -1
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.next()
}

func (r *RoundRobin) next() int {
	best := -1
	for i, w := range r.weights {
		if w == 0 {
			continue
		}
		r.credit[i] += w
		if best < 0 || r.credit[i] > r.credit[best] {
			best = i
		}
	}
	r.credit[best] -= r.total
	return best
}
