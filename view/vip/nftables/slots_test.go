package nftables

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/vip"
)

func weighted(weights ...uint16) (out []vip.Backend) {
	for i, w := range weights {
		out = append(out, vip.Backend{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 80), Weight: w})
	}
	return out
}

func TestShares(t *testing.T) {
	for _, tc := range []struct {
		weights []uint16
		want    []int
	}{
		{nil, []int{}},
		{[]uint16{100}, []int{1}},
		{[]uint16{100, 100, 100}, []int{1, 1, 1}},
		{[]uint16{100, 50}, []int{2, 1}},
		{[]uint16{30, 10, 20}, []int{3, 1, 2}},
		{[]uint16{65535, 1}, []int{256, 1}},
		{[]uint16{1000, 999}, []int{128, 128}},
		{[]uint16{900, 101}, []int{230, 26}},
	} {
		if got := shares(weighted(tc.weights...)); !slices.Equal(got, tc.want) {
			t.Errorf("%v: got %v, want %v", tc.weights, got, tc.want)
		}
	}
}

// TestArrange: the slots hold what they should after any change, and no more
// of them differ from before than must.
func TestArrange(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var before []slot
	for range 2000 {
		var all []vip.Backend
		for i := range 8 {
			if rnd.IntN(3) > 0 {
				b := weighted(0, 0, 0, 0, 0, 0, 0, 0)[i]
				b.Weight = []uint16{1, 1, 1, 2, 3}[rnd.IntN(5)]
				all = append(all, b)
			}
		}
		after := arrange(before, all)
		count := map[netip.AddrPort]int{}
		for _, s := range after {
			count[s.addr]++
		}
		total := 0
		for i, n := range shares(all) {
			total += n
			if count[all[i].Addr] != n {
				t.Fatalf("%v has %d slots, want %d", all[i].Addr, count[all[i].Addr], n)
			}
		}
		if total != len(after) {
			t.Fatalf("%d slots, want %d", len(after), total)
		}
		had, changed, newcomers, gone := map[netip.AddrPort]int{}, 0, 0, 0
		for i, s := range before {
			had[s.addr]++
			if i < len(after) && after[i] != s {
				changed++
			}
		}
		for a, n := range count {
			newcomers += max(0, n-had[a])
		}
		for a, n := range had {
			gone += max(0, n-count[a])
		}
		if changed > max(newcomers, gone) {
			t.Fatalf("%d slots changed for %d newcomers and %d that went", changed, newcomers, gone)
		}
		before = after
	}
}

// TestIdentities: the same for all ports, different for processes of a machine.
func TestIdentities(t *testing.T) {
	b := weighted(1, 1)
	other := slices.Clone(b)
	for i := range other {
		other[i].Addr = netip.AddrPortFrom(other[i].Addr.Addr(), 81)
	}
	if !slices.Equal(identities(b), identities(other)) {
		t.Error("another port gives other identities")
	}
	same := []vip.Backend{b[0], b[0], b[0]}
	for i := range same {
		same[i].Addr = netip.AddrPortFrom(b[0].Addr.Addr(), uint16(80+i))
	}
	ids := identities(same)
	slices.Sort(ids)
	if len(slices.Compact(ids)) != 3 {
		t.Errorf("processes of one machine have %v", identities(same))
	}
}

func TestDisjoint(t *testing.T) {
	var in []netip.Prefix
	for _, s := range []string{"10.1.2.0/24", "10.0.0.0/8", "10.1.0.0/16", "10.0.0.0/8", "192.0.2.5/24", "fd00::/8", "0.0.0.0/32"} {
		in = append(in, netip.MustParsePrefix(s))
	}
	if got := fmt.Sprint(disjoint(in, false)); got != "[10.0.0.0/8 192.0.2.0/24 0.0.0.0/32]" {
		t.Error(got)
	}
	if got := last(netip.MustParsePrefix("10.1.0.0/15")); got != netip.MustParseAddr("10.1.255.255") {
		t.Error(got)
	}
	if got := last(netip.MustParsePrefix("::/0")); got != netip.MustParseAddr("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff") {
		t.Error(got)
	}
}

// TestPlanNames: a plan is known by its name, so names must tell all apart.
func TestPlanNames(t *testing.T) {
	names, ids := map[string]plan{}, map[uint32]plan{}
	for _, node := range []bool{false, true} {
		for _, local := range []bool{false, true} {
			for m := masqNever; m <= masqAlways; m++ {
				if local && m != masqNever {
					continue
				}
				for n := 1; n < 2000; n++ {
					p := plan{what: "lb", node: node, local: local, masq: m, slots: n}
					if o, dup := names[p.String()]; dup {
						t.Fatalf("%+v and %+v are both %s", p, o, p)
					}
					if o, dup := ids[p.id()]; dup {
						t.Fatalf("%s and %s have one number", p, o)
					}
					names[p.String()], ids[p.id()] = p, p
				}
			}
		}
	}
}

func TestProtocols(t *testing.T) {
	for p, want := range map[catalog.Protocol]byte{catalog.TCP: 6, catalog.UDP: 17, catalog.SCTP: 132} {
		if got := protoNumber(p); got != want {
			t.Errorf("%s: got %d", p, got)
		}
	}
}
