package balance

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// TestDeadOneIsEjected: a backend that refuses everything gets one request, and
// then one each time its ejection is over, which takes longer each time.
func TestDeadOneIsEjected(t *testing.T) {
	for _, a := range algorithms {
		g, loads, h := group(same(10), Ejection{}, Options{Algorithm: a, Bounded: -1})
		now := time.Second
		q := seeded(Query{Clock: func() time.Duration { return now }})
		var got []time.Duration
		for range 120_000 { // one each ms
			now += time.Millisecond
			q.Hash++
			i := g.Pick(q)
			h.Begin(loads[i])
			r := Success
			if i == 4 {
				r = Failure
				got = append(got, now)
			}
			h.End(loads[i], r, time.Millisecond, now)
		}
		if len(got) < 4 || len(got) > 6 {
			t.Errorf("%v: %d requests went to the dead one, at %v", a, len(got), got)
			continue
		}
		for k, want := range []time.Duration{5, 10, 20} {
			if d := got[k+1] - got[k]; d < want*time.Second || d > (want+4)*time.Second {
				t.Errorf("%v: ejection %d took %v, want about %ds", a, k, d, want)
			}
		}
	}
}

// TestFailingLooksBusy: below the threshold of ejection, failures count as load.
func TestFailingLooksBusy(t *testing.T) {
	for _, a := range []Algorithm{TwoRandom, LeastRequest, EWMA} {
		g, loads, h := group(same(2), Ejection{Failures: 100, Bad: 100}, Options{Algorithm: a})
		for _, r := range []Result{Failure, Bad} {
			h.Begin(loads[0])
			h.End(loads[0], r, time.Microsecond, time.Second)
			h.Begin(loads[1])
			h.End(loads[1], Success, time.Millisecond, time.Second)
			h.Begin(loads[1]) // it has one request, the failing one has none
			q := seeded(Query{Clock: at(2 * time.Second)})
			for range 100 {
				if g.Pick(q) == 0 {
					t.Errorf("%v: the failing one wins after %v", a, r)
					break
				}
			}
			h.End(loads[1], Nothing, 0, time.Second)
		}
	}
}

func TestBadAnswers(t *testing.T) {
	for _, tc := range []struct {
		cfg     Ejection
		results []Result
		want    bool
	}{
		{Ejection{}, []Result{Bad, Bad, Bad, Bad}, false},
		{Ejection{}, []Result{Bad, Bad, Bad, Bad, Bad}, true},
		{Ejection{}, []Result{Bad, Bad, Bad, Bad, Success, Bad}, false},
		{Ejection{}, []Result{Bad, Bad, Nothing, Bad, Bad, Bad}, true},
		{Ejection{Bad: 2}, []Result{Bad, Bad}, true},
		{Ejection{Bad: -1}, []Result{Bad, Bad, Bad, Bad, Bad, Bad}, false},
		{Ejection{}, []Result{Bad, Broken, Broken, Bad}, false},
		{Ejection{}, []Result{Bad, Broken, Broken, Bad, Broken}, true},
		{Ejection{}, []Result{Failure}, true},
		{Ejection{Failures: 3}, []Result{Failure, Failure}, false},
		{Ejection{Failures: 3}, []Result{Failure, Failure, Bad, Failure}, false},
		{Ejection{Off: true}, []Result{Failure, Failure, Failure}, false},
	} {
		_, loads, h := group(same(3), tc.cfg, Options{})
		got := false
		for _, r := range tc.results {
			h.Begin(loads[0])
			got = h.End(loads[0], r, 0, time.Second)
		}
		if got != tc.want || (loads[0].Ejected(2*time.Second) != 0) != tc.want {
			t.Errorf("%+v %v: ejected %v, want %v", tc.cfg, tc.results, got, tc.want)
		}
	}
}

// TestPanic: with more than half ejected for bad answers, all are used again;
// those that cannot be reached are not, while there is another.
func TestPanic(t *testing.T) {
	for _, a := range algorithms {
		for _, r := range []Result{Bad, Failure} {
			g, loads, h := group(same(10), Ejection{Bad: 1}, Options{Algorithm: a, Bounded: -1})
			q := seeded(Query{Clock: at(time.Second)})
			ejected := func(n int) (picks int) {
				for range 2000 {
					q.Hash++
					if g.Pick(q) < n {
						picks++
					}
				}
				return picks
			}
			for i := range 10 {
				h.Begin(loads[i])
				h.End(loads[i], r, 0, time.Second)
				n := ejected(i + 1)
				switch {
				case i < 5 && n > 0:
					t.Errorf("%v: %d are ejected, and %d requests went there", a, i+1, n)
				case i >= 5 && i < 9 && r == Failure && n > 0:
					t.Errorf("%v: %d cannot be reached, and %d requests went there", a, i+1, n)
				case i == 9 && n != 2000:
					t.Errorf("%v: all are ejected, and %d of 2000 requests went somewhere", a, n)
				case i >= 5 && r == Bad && n == 0 && a != LeastRequest && a != TwoRandom && a != EWMA:
					t.Errorf("%v: %d are ejected, which is a panic, but nothing goes there", a, i+1)
				}
			}
		}
	}
}

// TestCalm: when the trouble is over, Pick does not look at the clock any more.
func TestCalm(t *testing.T) {
	g, loads, h := group(same(3), Ejection{}, Options{})
	h.Begin(loads[0])
	h.End(loads[0], Failure, 0, time.Second)
	g.Pick(&Query{Clock: at(2 * time.Second)})
	if h.troubled.Load() == 0 {
		t.Error("an ejection was forgotten")
	}
	g.Pick(&Query{Clock: at(time.Minute)})
	if h.troubled.Load() != 0 {
		t.Error("it still looks")
	}
}

func TestSuccessForgets(t *testing.T) {
	_, loads, h := group(same(3), Ejection{}, Options{})
	l := loads[0]
	end := func(r Result, now time.Duration) { h.Begin(l); h.End(l, r, 0, now) }
	end(Failure, time.Second)
	if u := l.Ejected(time.Second); u != 6*time.Second {
		t.Fatalf("until %v", u)
	}
	end(Success, 2*time.Second) // it was under way
	if l.Ejected(3*time.Second) == 0 {
		t.Error("an answer that was under way ended the ejection")
	}
	end(Failure, 7*time.Second)
	if u := l.Ejected(7 * time.Second); u != 17*time.Second {
		t.Errorf("the second time until %v, want 17s", u)
	}
	end(Success, 18*time.Second)
	end(Failure, 19*time.Second)
	if u := l.Ejected(19 * time.Second); u != 24*time.Second {
		t.Errorf("after a success until %v, want 24s", u)
	}
	for now := 30 * time.Second; now < time.Hour; now += 2 * time.Minute {
		end(Failure, now)
		if d := l.Ejected(now) - now; d > time.Minute {
			t.Fatalf("ejected for %v", d)
		}
	}
	if l.Active() != 0 {
		t.Errorf("%d requests are left", l.Active())
	}
}

// TestAllDownAndUp: when all were ejected and are back, so many of them are
// found that it is no panic any more.
func TestAllDownAndUp(t *testing.T) {
	g, loads, h := group(same(5), Ejection{}, Options{})
	for _, l := range loads {
		h.Begin(l)
		h.End(l, Failure, 0, time.Second)
	}
	used := map[int]int{}
	q := seeded(Query{Clock: at(2 * time.Second)})
	for range 500 {
		q.Tried = q.Tried[:0]
		for { // as an exchange does: one that is not back is not tried again
			i := g.Pick(q)
			if i == 3 {
				q.Tried = append(q.Tried, loads[i])
				h.Begin(loads[i])
				h.End(loads[i], Failure, 0, 2*time.Second)
				continue
			}
			h.Begin(loads[i])
			h.Reached(loads[i], 2*time.Second)
			h.End(loads[i], Success, 0, 2*time.Second)
			used[i]++
			break
		}
	}
	if len(used) < 3 {
		t.Errorf("%v requests, and all but 3 are back", used)
	}
}

func TestBudget(t *testing.T) {
	b := NewBudget(20, 10)
	now := time.Second
	allowed := func(n int) (k int) {
		for range n {
			if b.Retry(now) {
				k++
			}
		}
		return k
	}
	if n := allowed(1000); n != 100 {
		t.Errorf("%d retries at once, want the burst of 100", n)
	}
	now += time.Second
	if n := allowed(1000); n != 10 {
		t.Errorf("%d in a second without requests, want 10", n)
	}
	for range 100 {
		b.Request()
	}
	if n := allowed(1000); n != 20 {
		t.Errorf("%d after 100 requests, want 20", n)
	}
	now += time.Hour
	if n := allowed(1000); n != 100 {
		t.Errorf("%d after an hour, want 100", n)
	}
}

// moved is the part of hashes that lead elsewhere after one member left, of
// those that did not lead to it.
func moved(t *testing.T, a Algorithm, n int) (others, spread float64) {
	t.Helper()
	h := NewHealth(Ejection{}, a)
	list := make([]Member, n)
	for i := range list {
		list[i] = Member{Weight: 100, Load: new(Load), Hash: Hash(fmt.Sprintf("10.1.%d.%d:8080", i/256, i%256))}
	}
	o := Options{Algorithm: a, Bounded: -1}
	before := NewGroup(list, h, o)
	gone := n / 3
	less := append(append([]Member{}, list[:gone]...), list[gone+1:]...)
	after := NewGroup(less, h, o)
	rnd := rand.New(rand.NewPCG(9, 9))
	counts := make([]int, n)
	moves, rest := 0, 0
	picks := 200 * n
	for range picks {
		q := Query{Hash: rnd.Uint64()}
		i := before.Pick(&q)
		counts[i]++
		if i == gone {
			continue
		}
		rest++
		if less[after.Pick(&q)].Load != list[i].Load {
			moves++
		}
	}
	for _, c := range counts {
		spread = math.Max(spread, float64(c)/200)
	}
	return float64(moves) / float64(rest), spread
}

func TestHashesMoveLittle(t *testing.T) {
	for _, tc := range []struct {
		a              Algorithm
		n              int
		moves, busiest float64
	}{
		{RingHash, 3, 0, 1.4}, {RingHash, 10, 0, 1.4}, {RingHash, 100, 0, 1.6}, {RingHash, 1000, 0, 1.7},
		{Maglev, 3, 0.02, 1.3}, {Maglev, 10, 0.03, 1.3}, {Maglev, 100, 0.04, 1.35}, {Maglev, 1000, 0.06, 1.4},
	} {
		moves, busiest := moved(t, tc.a, tc.n)
		t.Logf("%v of %d: %.4f moved, the busiest has %.2f of the mean", tc.a, tc.n, moves, busiest)
		if moves > tc.moves || busiest > tc.busiest {
			t.Errorf("%v of %d: %.4f of the hashes moved that had no reason (want %.2f), the busiest has %.2f of the mean (want %.2f)",
				tc.a, tc.n, moves, tc.moves, busiest, tc.busiest)
		}
	}
}

// TestHashesAgree: the same list in another order sends hashes to the same
// backends, and heavier ones get more.
func TestHashesAgree(t *testing.T) {
	for _, a := range []Algorithm{RingHash, Maglev} {
		h := NewHealth(Ejection{}, a)
		list := make([]Member, 20)
		for i := range list {
			list[i] = Member{Weight: uint16(50 * (1 + i%4)), Load: new(Load), Hash: Hash(fmt.Sprint("pod-", i))}
		}
		list[7].Weight = 0
		turned := append(append([]Member{}, list[11:]...), list[:11]...)
		o := Options{Algorithm: a, Bounded: -1}
		x, y := NewGroup(list, h, o), NewGroup(turned, h, o)
		byWeight := map[uint16]float64{}
		const picks = 50_000
		for i := range picks {
			q := Query{Hash: mix(uint64(i))}
			m := list[x.Pick(&q)]
			if m.Load != turned[y.Pick(&q)].Load {
				t.Fatalf("%v: the order of the list matters", a)
			}
			byWeight[m.Weight]++
		}
		total := weightOf(list)
		for w, n := range byWeight {
			members := 5.0
			if w == list[3].Weight { // index 7 had this weight
				members = 4
			}
			if want := members * float64(w) / float64(total) * picks; n < 0.8*want || n > 1.2*want {
				t.Errorf("%v: weight %d has %.0f picks, want about %.0f", a, w, n, want)
			}
		}
		if byWeight[0] > 0 {
			t.Errorf("%v: weight 0 was picked", a)
		}
	}
}

// TestBoundedLoad: even if all requests have one hash.
func TestBoundedLoad(t *testing.T) {
	for _, a := range []Algorithm{RingHash, Maglev} {
		for _, n := range []int{2, 10, 300} {
			g, loads, h := group(same(n), Ejection{}, Options{Algorithm: a})
			for k := range 20 * n {
				h.Begin(loads[g.Pick(&Query{Hash: 42})])
				most := int(math.Ceil(1.25 * float64(k+1) / float64(n)))
				for i, l := range loads {
					if l.Active() > most {
						t.Fatalf("%v: backend %d of %d has %d of %d requests, want at most %d", a, i, n, l.Active(), k+1, most)
					}
				}
			}
			for _, l := range loads {
				for range l.Active() {
					h.End(l, Success, 0, 0)
				}
			}
			if h.active.Load() != 0 {
				t.Errorf("%v: %d requests are left", a, h.active.Load())
			}
		}
	}
}

func TestAlgorithmNames(t *testing.T) {
	for _, a := range algorithms {
		if got, err := ParseAlgorithm(a.String()); err != nil || got != a {
			t.Errorf("%v: %v, %v", a, got, err)
		}
	}
	if _, err := ParseAlgorithm("best"); err == nil {
		t.Error("an unknown algorithm is taken")
	}
}
