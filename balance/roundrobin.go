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
	if r.total > 0 {
		for range start % uint64(len(weights)) {
			r.Next()
		}
	}
	return r
}

// Len is the number of weights.
func (r *RoundRobin) Len() int { return r.n }

// Next gives the index whose turn it is. Unequal weights cost a look at each.
func (r *RoundRobin) Next() int {
	if r.equal {
		return int((r.turn.Add(1) - 1) % uint64(r.n))
	}
	if r.total == 0 {
		return -1
	}
	r.mu.Lock()
	defer r.mu.Unlock()
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
