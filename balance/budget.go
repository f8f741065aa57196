package balance

import (
	"sync/atomic"
	"time"
)

// Budget bounds retries to a part of the requests, so that trouble does not
// multiply itself, and lets some through where there are few requests. Make it
// with NewBudget.
type Budget struct {
	part  int64 // what a request pays in; a retry costs whole
	most  int64
	every int64 // ns for one that is given
	saved atomic.Int64
	given atomic.Int64 // the moment up to which time has paid in
}

// whole is what a retry costs.
const whole = 1000

// NewBudget lets retries be up to this many per cent of the requests, and so
// many a second in any case. Zero values: 20 per cent, 10 a second.
func NewBudget(percent, perSecond int) *Budget {
	set(&percent, 20)
	set(&perSecond, 10)
	b := &Budget{part: int64(percent) * whole / 100, every: int64(time.Second) / int64(perSecond)}
	// What was saved is worth ten seconds of the least, or a burst of a hundred.
	b.most = whole * int64(max(100, 10*perSecond))
	b.saved.Store(b.most)
	return b
}

// Request pays in for a request. It writes nothing while there is enough, as is
// usual.
func (b *Budget) Request() {
	if b.saved.Load() < b.most {
		b.saved.Add(b.part)
	}
}

// Retry says whether a retry is allowed, and counts it.
func (b *Budget) Retry(now time.Duration) bool {
	if since := b.given.Load(); int64(now)-since >= b.every && b.given.CompareAndSwap(since, int64(now)) {
		b.saved.Store(min(b.most, b.saved.Load()+(int64(now)-since)/b.every*whole))
	}
	for {
		n := b.saved.Load()
		if n < whole {
			return false
		}
		if b.saved.CompareAndSwap(n, n-whole) {
			return true
		}
	}
}
