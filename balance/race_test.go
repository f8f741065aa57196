package balance

import (
	"sync"
	"testing"
	"time"
)

// TestTogether: many goroutines pick, fail and recover while lists change, and
// in the end no request is left.
func TestTogether(t *testing.T) {
	for _, a := range algorithms {
		g, loads, h := group(same(20), Ejection{Base: time.Millisecond}, Options{Algorithm: a})
		start := time.Now()
		clock := func() time.Duration { return time.Since(start) + time.Second }
		var wg sync.WaitGroup
		for w := range 4 {
			wg.Go(func() {
				q := Query{Clock: clock}
				for k := range 5000 {
					q.Hash++
					q.Tried = nil
					if k%7 == 0 {
						q.Tried = loads[:3]
					}
					i := g.Pick(&q)
					if i < 0 {
						t.Errorf("%v: nobody", a)
						return
					}
					h.Begin(loads[i])
					r := Success
					if (k+w)%5 == 0 {
						r = []Result{Bad, Failure, Nothing}[k%3]
					}
					h.End(loads[i], r, time.Millisecond, clock())
				}
			})
		}
		wg.Wait()
		for i, l := range loads {
			if l.Active() != 0 {
				t.Errorf("%v: backend %d has %d requests left", a, i, l.Active())
			}
		}
		if n := h.active.Load(); n != 0 {
			t.Errorf("%v: %d requests left", a, n)
		}
	}
}
