package balance

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
)

var _, _ Picker = Random{}, (*RoundRobin)(nil)

// TestRandomShares holds the table against the shares by Pearson's test: with
// a fixed seed it is a fact, not a chance.
func TestRandomShares(t *testing.T) {
	for _, weights := range [][]uint16{
		{1}, {100, 100, 100}, {1, 2, 3, 4}, {0, 5, 0, 5}, {100, 0, 1}, {65535, 65535, 1},
		{100, 200, 0}, {0, 0, 7},
	} {
		t.Run(fmt.Sprint(weights), func(t *testing.T) {
			const picks = 200_000
			rnd := rand.New(rand.NewPCG(1, 2))
			r := NewRandom(weights)
			got := make([]int, len(weights))
			for range picks {
				got[r.Pick(rnd.Uint64())]++
			}
			checkShares(t, weights, got, picks)
		})
	}
}

func checkShares(t *testing.T, weights []uint16, got []int, picks int) {
	t.Helper()
	total := 0
	for _, w := range weights {
		total += int(w)
	}
	chi := 0.0
	for i, w := range weights {
		if w == 0 {
			if got[i] != 0 {
				t.Errorf("weight 0 at %d was picked %d times", i, got[i])
			}
			continue
		}
		want := float64(picks) * float64(w) / float64(total)
		chi += (float64(got[i]) - want) * (float64(got[i]) - want) / want
	}
	// 20 is beyond the 99.9 % quantile for up to 4 degrees of freedom.
	if chi > 20 {
		t.Errorf("picks %v do not follow weights %v: chi-square %.1f", got, weights, chi)
	}
}

func TestRandomNothingToPick(t *testing.T) {
	for _, weights := range [][]uint16{nil, {}, {0}, {0, 0, 0}} {
		r := NewRandom(weights)
		if got := r.Next(); got != -1 || !r.Empty() {
			t.Errorf("NewRandom(%v).Next() = %d, Empty %v; want -1, true", weights, got, r.Empty())
		}
		if got := r.NextExcept(func(int) bool { return false }); got != -1 {
			t.Errorf("NewRandom(%v).NextExcept = %d, want -1", weights, got)
		}
	}
	if got := (Random{}).Next(); got != -1 {
		t.Errorf("zero Random picked %d", got)
	}
}

// TestRandomAgainstList holds the search against the obvious slow way.
func TestRandomAgainstList(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		weights := make([]uint16, 1+rnd.IntN(20))
		for i := range weights {
			weights[i] = uint16(rnd.IntN(4))
		}
		weights[0]++
		var list []int
		for i, w := range weights {
			for range w {
				list = append(list, i)
			}
		}
		r := NewRandom(weights)
		if r.bounds == nil {
			continue // all the same: scaled down
		}
		for x, want := range list {
			if got := r.search(uint32(x)); got != want {
				t.Fatalf("weights %v: position %d gives %d, want %d", weights, x, got, want)
			}
		}
	}
}

func TestRandomNextExcept(t *testing.T) {
	weights := []uint16{1, 0, 3, 5}
	r := NewRandom(weights)
	got := make([]int, len(weights))
	const picks = 90_000
	for range picks {
		got[r.NextExcept(func(i int) bool { return i == 3 })]++
	}
	if got[1] != 0 || got[3] != 0 {
		t.Fatalf("picked what was skipped: %v", got)
	}
	// 1:3, with six standard deviations (780) of room.
	if want := picks / 4; got[0] < want-780 || got[0] > want+780 {
		t.Errorf("picked %v, want about %d of index 0", got, want)
	}
	if i := r.NextExcept(func(int) bool { return true }); i != -1 {
		t.Errorf("all skipped: picked %d", i)
	}
}

func TestRoundRobinOrder(t *testing.T) {
	for _, tc := range []struct {
		weights []uint16
		want    []int
	}{
		{[]uint16{5, 1, 1}, []int{0, 0, 1, 0, 2, 0, 0}}, // the smooth order, no burst of five
		{[]uint16{1, 1, 1}, []int{0, 1, 2, 0, 1, 2}},
		{[]uint16{0, 2, 1}, []int{1, 2, 1, 1, 2, 1}},
		{[]uint16{0, 0}, []int{-1, -1}},
		{nil, []int{-1}},
	} {
		r := NewRoundRobin(tc.weights, 0)
		var got []int
		for range tc.want {
			got = append(got, r.Next())
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("weights %v: %v, want %v", tc.weights, got, tc.want)
		}
	}
}

func TestRoundRobinStart(t *testing.T) {
	if a, b := NewRoundRobin([]uint16{1, 1, 1}, 1).Next(), NewRoundRobin([]uint16{1, 1, 1}, 5).Next(); a != 1 || b != 2 {
		t.Errorf("started at %d and %d, want 1 and 2", a, b)
	}
}

// TestRoundRobinTogether: with many goroutines the shares are still exact.
func TestRoundRobinTogether(t *testing.T) {
	weights := []uint16{3, 1, 0, 6}
	long := NewRoundRobin([]uint16{3, 1, 0, 6}, 0)
	long.order = nil // as with a turn that is too long to lay down
	for _, r := range []*RoundRobin{NewRoundRobin(weights, 0), NewRoundRobin([]uint16{2, 2}, 0), long} {
		const turns = 1000
		got := make([]int, r.Len())
		var mu sync.Mutex
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				for range turns {
					i := r.Next()
					mu.Lock()
					got[i]++
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		want := []int{3000, 1000, 0, 6000}
		if r.Len() == 2 {
			want = []int{5000, 5000}
		}
		if !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
}

func TestPickingDoesNotAllocate(t *testing.T) {
	r, rr := NewRandom([]uint16{1, 2, 3}), NewRoundRobin([]uint16{1, 2, 3}, 0)
	skip := func(i int) bool { return i == 0 }
	if n := testing.AllocsPerRun(1000, func() { r.Next(); rr.Next(); r.NextExcept(skip) }); n != 0 {
		t.Errorf("%v allocations a pick, want 0", n)
	}
}

func BenchmarkRandom(b *testing.B) {
	for _, n := range []int{3, 10, 1000} {
		equal, mixed := make([]uint16, n), make([]uint16, n)
		for i := range n {
			equal[i], mixed[i] = 100, uint16(50+i%100)
		}
		b.Run(fmt.Sprintf("equal/%d", n), func(b *testing.B) {
			r := NewRandom(equal)
			for b.Loop() {
				r.Next()
			}
		})
		b.Run(fmt.Sprintf("weighted/%d", n), func(b *testing.B) {
			r := NewRandom(mixed)
			for b.Loop() {
				r.Next()
			}
		})
	}
}

func BenchmarkRoundRobin(b *testing.B) {
	for _, n := range []int{3, 10} {
		mixed := make([]uint16, n)
		for i := range n {
			mixed[i] = uint16(50 + i)
		}
		b.Run(fmt.Sprintf("weighted/%d", n), func(b *testing.B) {
			r := NewRoundRobin(mixed, 0)
			for b.Loop() {
				r.Next()
			}
		})
	}
}
