package balance

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// group makes a Group of members with these weights.
func group(weights []uint16, e Ejection, o Options) (*Group, []*Load, *Health) {
	h := NewHealth(e, o.Algorithm)
	list := make([]Member, len(weights))
	loads := make([]*Load, len(weights))
	for i, w := range weights {
		loads[i] = new(Load)
		list[i] = Member{Weight: w, Load: loads[i], Hash: Hash(fmt.Sprintf("10.0.%d.%d:80", i/256, i%256))}
	}
	return NewGroup(list, h, o), loads, h
}

func same(n int) []uint16 {
	w := make([]uint16, n)
	for i := range w {
		w[i] = 100
	}
	return w
}

// at is a clock that stands.
func at(d time.Duration) func() time.Duration { return func() time.Duration { return d } }

func seeded(q Query) *Query {
	q.Rand = rand.New(rand.NewPCG(5, 6))
	return &q
}

var algorithms = []Algorithm{TwoRandom, InTurn, AnyRandom, LeastRequest, EWMA, RingHash, Maglev}

// TestIdleShares: without load every algorithm follows the weights. Those by
// hash are bound to their table, and have their own test.
func TestIdleShares(t *testing.T) {
	for _, a := range []Algorithm{TwoRandom, InTurn, AnyRandom, LeastRequest, EWMA} {
		for _, weights := range [][]uint16{{1}, {100, 100, 100}, {1, 2, 3, 4}, {0, 5, 0, 5}, {100, 0, 1}, {100, 200, 0}} {
			t.Run(fmt.Sprint(a, weights), func(t *testing.T) {
				const picks = 100_000
				g, _, _ := group(weights, Ejection{}, Options{Algorithm: a})
				got := make([]int, len(weights))
				q := seeded(Query{})
				for range picks {
					got[g.Pick(q)]++
				}
				checkShares(t, weights, got, picks)
			})
		}
	}
}

// TestUneasyShares: the careful way gives the same shares as the fast one.
func TestUneasyShares(t *testing.T) {
	for _, a := range []Algorithm{TwoRandom, InTurn, AnyRandom, LeastRequest, EWMA} {
		t.Run(a.String(), func(t *testing.T) {
			weights := []uint16{1, 2, 3, 4, 0}
			g, _, h := group(weights, Ejection{}, Options{Algorithm: a})
			h.trouble(time.Hour)
			got := make([]int, len(weights))
			q := seeded(Query{Clock: at(time.Second)})
			const picks = 100_000
			for range picks {
				got[g.Pick(q)]++
			}
			if a == InTurn { // exact
				checkShares(t, weights, got, picks)
				return
			}
			checkShares(t, weights, got, picks)
		})
	}
}

func TestNobodyToPick(t *testing.T) {
	for _, a := range algorithms {
		for _, weights := range [][]uint16{nil, {0}, {0, 0}} {
			g, _, _ := group(weights, Ejection{}, Options{Algorithm: a})
			if i := g.Pick(&Query{}); i != -1 {
				t.Errorf("%v of %v picks %d", a, weights, i)
			}
		}
	}
}

// TestTried: what was tried never comes again, and when all were: nobody.
func TestTried(t *testing.T) {
	for _, a := range algorithms {
		for _, n := range []int{1, 2, 5, 40} {
			g, loads, _ := group(same(n), Ejection{}, Options{Algorithm: a})
			q := seeded(Query{Clock: at(time.Second), Hash: 77})
			for k := range n {
				i := g.Pick(q)
				if i < 0 {
					t.Fatalf("%v of %d: nobody at try %d", a, n, k)
				}
				for _, l := range q.Tried {
					if l == loads[i] {
						t.Fatalf("%v of %d: %d came again", a, n, i)
					}
				}
				q.Tried = append(q.Tried, loads[i])
			}
			if i := g.Pick(q); i != -1 {
				t.Errorf("%v of %d: %d, but all were tried", a, n, i)
			}
		}
	}
}

// TestTwoRandomMaximum: with n requests on n backends nobody has more than a few
// (log log n), where random choice gives log n / log log n.
func TestTwoRandomMaximum(t *testing.T) {
	const n = 1000
	for a, most := range map[Algorithm]int{TwoRandom: 5, LeastRequest: 1} {
		g, loads, h := group(same(n), Ejection{}, Options{Algorithm: a})
		q := seeded(Query{})
		for range n {
			h.Begin(loads[g.Pick(q)])
		}
		top := 0
		for _, l := range loads {
			top = max(top, l.Active())
		}
		if top > most {
			t.Errorf("%v: %d requests on one of %d backends with %d requests, want at most %d", a, top, n, n, most)
		}
	}
}

// TestLoadFollowsWeight: requests that stay are in proportion to weight.
func TestLoadFollowsWeight(t *testing.T) {
	for _, a := range []Algorithm{TwoRandom, LeastRequest} {
		g, loads, h := group([]uint16{100, 200, 300, 0}, Ejection{}, Options{Algorithm: a})
		q := seeded(Query{})
		for range 600 {
			h.Begin(loads[g.Pick(q)])
		}
		for i, want := range []int{100, 200, 300, 0} {
			if n := loads[i].Active(); n < want-6 || n > want+6 {
				t.Errorf("%v: backend %d has %d requests, want about %d", a, i, n, want)
			}
		}
	}
}

// TestSlowOneGetsLess: of two backends, the one ten times as slow gets a small part.
func TestSlowOneGetsLess(t *testing.T) {
	g, loads, h := group(same(2), Ejection{}, Options{Algorithm: EWMA})
	var now time.Duration
	q := seeded(Query{Clock: func() time.Duration { return now }})
	got := [2]int{}
	for range 10_000 {
		now += time.Millisecond
		i := g.Pick(q)
		got[i]++
		h.Begin(loads[i])
		h.End(loads[i], Success, []time.Duration{time.Millisecond, 10 * time.Millisecond}[i], now)
	}
	if got[1] > 200 || got[1] == 0 {
		t.Errorf("%v picks, want few of the slow one, but some", got)
	}
}

func TestPeakIsSeenAtOnce(t *testing.T) {
	l := new(Load)
	for i := range 100 {
		l.observe(time.Millisecond, time.Duration(i)*time.Millisecond)
	}
	l.observe(time.Second, 101*time.Millisecond)
	if d := l.Latency(101 * time.Millisecond); d != time.Second {
		t.Errorf("after one answer in 1s it expects %v", d)
	}
	for i := range 100 {
		l.observe(time.Millisecond, time.Duration(102+i)*time.Millisecond)
	}
	if d := l.Latency(210 * time.Millisecond); d > 10*time.Millisecond {
		t.Errorf("after 100 answers in 1ms it still expects %v", d)
	}
	if d := l.Latency(time.Hour); d > time.Microsecond {
		t.Errorf("after an hour it still expects %v", d)
	}
}

// TestSlowStart: the share grows from a tenth to the whole.
func TestSlowStart(t *testing.T) {
	const window = 100 * time.Second
	for _, a := range []Algorithm{TwoRandom, InTurn, AnyRandom, LeastRequest, EWMA} {
		h := NewHealth(Ejection{}, a)
		list := make([]Member, 4)
		for i := range list {
			list[i] = Member{Weight: 100, Load: new(Load)}
		}
		list[3].Since = time.Second
		g := NewGroup(list, h, Options{Algorithm: a, SlowStart: window})
		for _, tc := range []struct {
			after time.Duration
			part  float64 // of a whole share
		}{{0, 0.1}, {5 * time.Second, 0.1}, {50 * time.Second, 0.5}, {90 * time.Second, 0.9}, {window, 1}, {2 * window, 1}} {
			const picks = 40_000
			n := 0
			q := seeded(Query{Clock: at(time.Second + tc.after)})
			for range picks {
				if g.Pick(q) == 3 {
					n++
				}
			}
			want := picks * tc.part / (3 + tc.part)
			if f := float64(n); f < want*0.93 || f > want*1.07 {
				t.Errorf("%v after %v: %d of %d picks, want about %.0f", a, tc.after, n, picks, want)
			}
		}
		if g.ramp.Load() != 0 {
			t.Errorf("%v: it still looks at the clock after everybody has started", a)
		}
	}
}

// TestNear: near ones get everything while enough of them are well, and less
// and less when not.
func TestNear(t *testing.T) {
	for _, a := range []Algorithm{TwoRandom, InTurn, AnyRandom, LeastRequest, EWMA} {
		h := NewHealth(Ejection{}, a)
		list := make([]Member, 20)
		for i := range list {
			list[i] = Member{Weight: 100, Load: new(Load), Near: i < 10}
		}
		g := NewGroup(list, h, Options{Algorithm: a})
		near := func() (part float64) {
			const picks = 20_000
			q := seeded(Query{Clock: at(time.Second)})
			for range picks {
				if g.Pick(q) < 10 {
					part += 1.0 / picks
				}
			}
			return part
		}
		if p := near(); p < 0.9999 {
			t.Errorf("%v: all are well, and %.3f go to near ones", a, p)
		}
		eject := func(from, to int) {
			for i := from; i < to; i++ {
				h.Begin(list[i].Load)
				h.End(list[i].Load, Failure, 0, time.Second)
			}
		}
		eject(0, 3)
		if p := near(); p < 0.9999 {
			t.Errorf("%v: 7 of 10 are well, and %.3f go to near ones", a, p)
		}
		eject(3, 7)
		// 3/7 of the traffic, and the near ones' part of what goes to all.
		want := 3.0/7 + 4.0/7*3/13
		if p := near(); p < want-0.05 || p > want+0.05 {
			t.Errorf("%v: 3 of 10 are well, and %.3f go to near ones, want about %.3f", a, p, want)
		}
		eject(7, 10)
		if p := near(); p != 0 {
			t.Errorf("%v: none is well, and %.3f go to near ones", a, p)
		}
	}
}

func TestPickOfGroupDoesNotAllocate(t *testing.T) {
	for _, a := range algorithms {
		g, loads, h := group([]uint16{1, 2, 3, 4, 5}, Ejection{}, Options{Algorithm: a})
		clock := at(time.Second)
		tried := loads[:2]
		if n := testing.AllocsPerRun(1000, func() {
			q := Query{Hash: 5, Clock: clock}
			g.Pick(&q)
			q.Tried = tried
			i := g.Pick(&q)
			h.Begin(loads[i])
			h.End(loads[i], Success, time.Millisecond, time.Second)
		}); n != 0 {
			t.Errorf("%v: %v allocations", a, n)
		}
	}
}

func BenchmarkGroup(b *testing.B) {
	for _, a := range algorithms {
		for _, n := range []int{3, 10, 100, 1000} {
			b.Run(fmt.Sprintf("%v/%d", a, n), func(b *testing.B) {
				g, loads, h := group(same(n), Ejection{}, Options{Algorithm: a})
				start := time.Now()
				clock := func() time.Duration { return time.Since(start) }
				for i, l := range loads {
					l.active.Store(int32(5 + i%7))
					l.observe(time.Millisecond, 0)
					h.active.Add(int64(5 + i%7))
				}
				q := Query{Clock: clock}
				b.ReportAllocs()
				for b.Loop() {
					q.Hash++
					l := loads[g.Pick(&q)]
					h.Begin(l)
					h.End(l, Success, time.Millisecond, 1)
				}
			})
		}
	}
}

// BenchmarkGroupWeighted: unequal weights, one ejected.
func BenchmarkGroupWeighted(b *testing.B) {
	for _, bad := range []bool{false, true} {
		for _, n := range []int{10, 1000} {
			b.Run(fmt.Sprintf("ejected=%v/%d", bad, n), func(b *testing.B) {
				weights := same(n)
				for i := range weights {
					weights[i] += uint16(i % 50)
				}
				g, loads, h := group(weights, Ejection{}, Options{})
				start := time.Now()
				q := Query{Clock: func() time.Duration { return time.Since(start) }}
				if bad {
					h.Begin(loads[1])
					h.End(loads[1], Failure, 0, time.Hour)
				}
				for b.Loop() {
					l := loads[g.Pick(&q)]
					h.Begin(l)
					h.End(l, Success, time.Millisecond, 1)
				}
			})
		}
	}
}

func BenchmarkNewGroup(b *testing.B) {
	for _, a := range []Algorithm{TwoRandom, RingHash, Maglev} {
		for _, n := range []int{10, 1000} {
			b.Run(fmt.Sprintf("%v/%d", a, n), func(b *testing.B) {
				_, loads, h := group(same(n), Ejection{}, Options{})
				list := make([]Member, n)
				for i := range list {
					list[i] = Member{Weight: 100, Load: loads[i], Hash: mix(uint64(i))}
				}
				for b.Loop() {
					NewGroup(list, h, Options{Algorithm: a})
				}
			})
		}
	}
}
