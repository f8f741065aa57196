package ebpf

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/vip"
)

func backend(n int, weight uint16) vip.Backend {
	return vip.Backend{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}), 80), Weight: weight}
}

func TestShares(t *testing.T) {
	for _, c := range []struct {
		weights []uint16
		want    []int
	}{
		{[]uint16{100}, []int{1}},
		{[]uint16{100, 100, 100}, []int{1, 1, 1}},
		{[]uint16{100, 50}, []int{2, 1}},
		{[]uint16{100, 1}, []int{100, 1}},
		{[]uint16{65535, 1}, []int{1023, 1}},
		{nil, []int{}},
	} {
		var all []vip.Backend
		for i, w := range c.weights {
			all = append(all, backend(i, w))
		}
		if got := shares(all); fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%v: %v, want %v", c.weights, got, c.want)
		}
	}
}

// TestArrange changes backends at random. The slots must be those of the
// shares, and no more of them may change than had to.
func TestArrange(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var slots []slotValue
	for range 2000 {
		var all []vip.Backend
		for i := range rnd.IntN(12) {
			if rnd.IntN(3) > 0 {
				all = append(all, backend(i, []uint16{100, 100, 50, 7}[rnd.IntN(4)]))
			}
		}
		before := slots
		old := count(before)
		slots = arrange(before, all)
		want := map[netip.AddrPort]int{}
		for i, n := range shares(all) {
			want[all[i].Addr] = n
		}
		if got := count(slots); !maps.Equal(got, want) {
			t.Fatalf("%v: slots %v, want %v", all, got, want)
		}
		changed, least := 0, 0
		for i, v := range slots {
			if i >= len(before) || before[i] != v {
				changed++
			}
		}
		for a, n := range want {
			least += max(0, n-old[a])
		}
		// A shrinking table also moves slots from its end into the holes.
		if least += max(0, len(before)-len(slots)); changed > least {
			t.Fatalf("%d slots were written, %d suffice", changed, least)
		}
	}
}

func count(slots []slotValue) map[netip.AddrPort]int {
	out := map[netip.AddrPort]int{}
	for _, v := range slots {
		out[toAddrPort(v.Addr, v.Port)]++
	}
	return out
}

func TestIdentities(t *testing.T) {
	at := func(text, target string) vip.Backend {
		b := vip.Backend{Addr: netip.MustParseAddrPort(text), Weight: 1}
		if target != "" {
			b.Target = catalog.Ref{Kind: "Pod", Name: target}
		}
		return b
	}
	http := identities([]vip.Backend{at("10.0.0.1:80", "x"), at("10.0.0.2:80", "y"), at("10.0.0.1:81", "z")})
	dns := identities([]vip.Backend{at("10.0.0.1:53", "x"), at("10.0.0.2:53", "y")})
	if http[0] != dns[0] || http[1] != dns[1] {
		t.Error("an endpoint has another identity on another port")
	}
	typed := identities([]vip.Backend{at("10.0.0.1:80", ""), at("10.0.0.1:81", ""), at("10.0.0.2:80", "")})
	seen := map[uint64]bool{}
	for _, id := range append(http, typed...) {
		if seen[id] {
			t.Errorf("identity %x twice", id)
		}
		seen[id] = true
	}
}
