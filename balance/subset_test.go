package balance

import "testing"

// TestSubset: a hash leads to as many members as asked, evenly, and to the same
// ones when others go.
func TestSubset(t *testing.T) {
	o := Options{Algorithm: RingHash, Subset: 3, Bounded: -1}
	g, loads, h := group(same(10), Ejection{}, o)
	mine := map[int]int{}
	for range 300 {
		i := g.Pick(seeded(Query{Hash: 7}))
		mine[i]++
		h.Begin(loads[i])
	}
	if len(mine) != 3 {
		t.Fatalf("a hash leads to %v", mine)
	}
	for i, n := range mine {
		if n != 100 {
			t.Errorf("member %d has %d of 300", i, n)
		}
	}
	// Without one of the others nothing changes; without one of these, one comes.
	without := func(gone int) map[int]bool {
		w := same(10)
		w[gone] = 0
		g, loads, h := group(w, Ejection{}, o)
		got := map[int]bool{}
		for range 30 {
			i := g.Pick(seeded(Query{Hash: 7}))
			got[i] = true
			h.Begin(loads[i])
		}
		return got
	}
	for gone := range 10 {
		kept := 0
		for i := range without(gone) {
			if _, ok := mine[i]; ok {
				kept++
			}
		}
		want := 3
		if _, ok := mine[gone]; ok {
			want = 2
		}
		if kept != want {
			t.Errorf("without %d: %d of the three are left, want %d", gone, kept, want)
		}
	}
	// One that was tried makes room for the next.
	var tried []*Load
	seen := map[int]bool{}
	for range 10 {
		i := g.Pick(&Query{Hash: 7, Tried: tried})
		if i < 0 || seen[i] {
			t.Fatalf("after %d: %d", len(tried), i)
		}
		seen[i] = true
		tried = append(tried, loads[i])
	}
	if i := g.Pick(&Query{Hash: 7, Tried: tried}); i >= 0 {
		t.Errorf("all were tried, and %d is given", i)
	}
	// More than there are is all; all hashes together are even.
	g, loads, h = group(same(4), Ejection{}, Options{Algorithm: RingHash, Subset: 100})
	n := map[int]int{}
	for k := range 400 {
		i := g.Pick(&Query{Hash: uint64(k)})
		n[i]++
		h.Begin(loads[i])
	}
	for i := range 4 {
		if n[i] != 100 {
			t.Errorf("%v", n)
		}
	}
}
