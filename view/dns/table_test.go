package dns

import (
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"testing"
)

// TestTable holds the table against a map, growing and shrinking.
func TestTable(t *testing.T) {
	tab := newTable[string, int](maphash.String)
	model := map[string]int{}
	rnd := rand.New(rand.NewPCG(1, 1))
	for phase, puts := range []int{9, 2, 8, 0} { // of ten operations
		for i := range 20000 {
			k := fmt.Sprint(rnd.IntN(5000))
			if rnd.IntN(10) < puts {
				tab.put(k, i)
				model[k] = i
			} else {
				tab.del(k)
				delete(model, k)
			}
		}
		n := 0
		tab.all(func(k string, v *int) {
			n++
			if model[k] != *v {
				t.Fatalf("all gives %s=%d, want %d", k, *v, model[k])
			}
		})
		if n != len(model) || tab.live != n || tab.used*2 > len(*tab.slots.Load()) {
			t.Fatalf("phase %d: %d keys, live %d, used %d of %d, want %d", phase, n, tab.live, tab.used, len(*tab.slots.Load()), len(model))
		}
		for i := range 5000 {
			k := fmt.Sprint(i)
			v, ok := model[k]
			for _, p := range []*int{tab.get(k), lookup(tab, []byte(k))} {
				if (p != nil) != ok || ok && *p != v {
					t.Fatalf("phase %d: %s is %v, want %d %v", phase, k, p, v, ok)
				}
			}
		}
	}
	if n := len(*tab.slots.Load()); n > 1024 {
		t.Errorf("%d slots are left for %d keys", n, tab.live)
	}
}
