package vip

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/fingerpost/fingerpost/catalog"
)

func TestTableSkipsWhatMattersToNobody(t *testing.T) {
	c := catalog.New(nil)
	sub := c.Subscribe()
	defer sub.Close()
	table := NewTable(Place{Node: "a"})
	put := func(e catalog.Endpoint, labels map[string]string) Diff {
		c.Update(func(t *catalog.Txn) {
			s := svc()
			s.Labels = labels
			t.PutService(s)
			t.PutEndpoints(s.Key, []catalog.Endpoint{e})
		})
		return table.Apply(sub.TryNext().Changes)
	}
	if d := put(ep("10.0.0.1"), nil); len(d.Put) != 1 || len(d.Removed) != 0 {
		t.Fatalf("first: %+v", d)
	}
	e := ep("10.0.0.1")
	e.Health.Reason = "got 200"
	if d := put(e, map[string]string{"a": "b"}); !d.Empty() {
		t.Errorf("a label and a reason give work: %+v", d)
	}
	e.Weight = 50
	if d := put(e, nil); len(d.Put) != 1 {
		t.Errorf("a weight gives no work: %+v", d)
	}
	c.Update(func(t *catalog.Txn) { t.DeleteService(svc().Key) })
	if d := table.Apply(sub.TryNext().Changes); len(d.Removed) != 1 || table.Len() != 0 {
		t.Errorf("removed: %+v", d)
	}
}

func TestTableConflict(t *testing.T) {
	at := time.Unix(1000, 0)
	entry := func(name string, age time.Duration, ips ...string) catalog.Change {
		s := svc(func(s *catalog.Service) {
			s.Name, s.ClusterIPs, s.ExternalIPs = name, addrs(ips[0]), addrs(ips[1:]...)
			s.Created = at.Add(-age)
		})
		return catalog.Change{Key: s.Key, New: &catalog.Entry{Service: s}}
	}
	shared := Front{netip.MustParseAddrPort("192.0.2.1:80"), catalog.TCP}
	table := NewTable(Place{})
	table.Apply([]catalog.Change{entry("young", time.Hour, "10.96.0.1", "192.0.2.1")})
	d := table.Apply([]catalog.Change{entry("old", 2*time.Hour, "10.96.0.2", "192.0.2.1")})
	if got := table.Get(shared); got == nil || got.Service.Name != "old" {
		t.Fatalf("owner %v, want the older service", got)
	}
	if len(d.Conflicts) != 1 || d.Conflicts[0].Loser.Name != "young" || len(d.Removed) != 0 {
		t.Errorf("diff %+v", d)
	}
	// CVE-2020-8554: however old, a service cannot name another's ClusterIP.
	d = table.Apply([]catalog.Change{entry("thief", 99*time.Hour, "10.96.0.3", "10.96.0.2")})
	if got := table.Get(Front{netip.MustParseAddrPort("10.96.0.2:80"), catalog.TCP}); got.Service.Name != "old" || len(d.Conflicts) != 1 {
		t.Errorf("a ClusterIP was taken by externalIPs: %+v", d)
	}
	d = table.Apply([]catalog.Change{{Key: catalog.Key{Namespace: "default", Name: "old"}}})
	if got := table.Get(shared); got == nil || got.Service.Name != "young" {
		t.Errorf("the next in line did not get it: %+v", d)
	}
}

// TestTableAgainstWhole applies random batches and holds the table, and what a
// driver that follows the differences would have, against compiling everything
// anew.
func TestTableAgainstWhole(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 8))
	c := catalog.New(nil)
	sub := c.Subscribe()
	defer sub.Close()
	at := Place{"a", "z1"}
	table, driver := NewTable(at), map[Front]*Frontend{}
	for round := range 300 {
		c.Update(func(txn *catalog.Txn) {
			for range 1 + rnd.IntN(5) {
				n := rnd.IntN(12)
				k := catalog.Key{Namespace: "ns", Name: fmt.Sprintf("s%d", n)}
				if rnd.IntN(4) == 0 {
					txn.DeleteService(k)
					continue
				}
				s := svc(func(s *catalog.Service) {
					s.Key, s.ClusterIPs = k, addrs(fmt.Sprintf("10.96.0.%d", n))
					s.Created = time.Unix(int64(rnd.IntN(3)), 0)
					s.InternalLocal = rnd.IntN(2) == 0
					s.Headless = rnd.IntN(6) == 0
					if rnd.IntN(2) == 0 {
						s.ExternalIPs = addrs(fmt.Sprintf("192.0.2.%d", rnd.IntN(3)), fmt.Sprintf("10.96.0.%d", rnd.IntN(12)))
					}
				})
				var eps []catalog.Endpoint
				for i := range rnd.IntN(4) {
					eps = append(eps, ep(fmt.Sprintf("10.0.0.%d", 1+i), []string{"node=a", "node=b", "notready", "serving"}[rnd.IntN(4)]))
				}
				txn.PutService(s)
				txn.PutEndpoints(k, eps)
			}
		})
		b := sub.TryNext()
		d := table.Apply(b.Changes)
		for _, f := range d.Removed {
			delete(driver, f)
		}
		for _, f := range d.Put {
			driver[f.Front] = f
		}
		want := map[Front]*Frontend{}
		for e := range b.Snapshot.All() {
			for _, f := range Compile(e, at) {
				if have := want[f.Front]; have == nil || seniority(f, have) < 0 {
					want[f.Front] = f
				}
			}
		}
		if len(want) != table.Len() || len(want) != len(driver) {
			t.Fatalf("round %d: %d frontends, table %d, driver %d", round, len(want), table.Len(), len(driver))
		}
		for f, w := range want {
			if got := table.Get(f); got == nil || !got.Equal(w) || driver[f] != got {
				t.Fatalf("round %d: %s: table %+v, driver %+v, want %+v", round, f, got, driver[f], w)
			}
		}
	}
}

func BenchmarkTableOneEndpointOf100k(b *testing.B) {
	table := NewTable(Place{Node: "a"})
	entry := func(i, alive int) catalog.Change {
		s := svc(func(s *catalog.Service) {
			s.Name = fmt.Sprintf("s%d", i)
			s.ClusterIPs = []netip.Addr{netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)})}
		})
		e := &catalog.Entry{Service: s}
		for j := range alive {
			e.Endpoints = append(e.Endpoints, ep(fmt.Sprintf("10.%d.%d.%d", j, i>>8, i&255)))
		}
		return catalog.Change{Key: s.Key, New: e}
	}
	for i := range 10_000 {
		table.Apply([]catalog.Change{entry(i, 10)})
	}
	changes := [2]catalog.Change{entry(77, 9), entry(77, 10)}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		table.Apply(changes[i%2 : i%2+1])
		i++
	}
}

// TestNews: a conflict is told once, and again when it comes back.
func TestNews(t *testing.T) {
	service := func(name string, age int64, taken bool) catalog.Change {
		key := catalog.Key{Namespace: "default", Name: name}
		s := &catalog.Service{Key: key, ClusterIPs: []netip.Addr{netip.MustParseAddr("10.96.1." + strconv.Itoa(int(age)))},
			Created: time.Unix(age, 0), Ports: []catalog.Port{{Port: 80, Protocol: catalog.TCP}}}
		if taken {
			s.ExternalIPs = []netip.Addr{netip.MustParseAddr("203.0.113.7")}
		}
		return catalog.Change{Key: key, New: &catalog.Entry{Service: s}}
	}
	table := NewTable(Place{Node: "a"})
	step := func(want int, changes ...catalog.Change) {
		t.Helper()
		d := table.Apply(changes)
		if news := table.News(d.Conflicts); len(news) != want {
			t.Fatalf("news: %v, want %d", news, want)
		}
	}
	step(0, service("first", 1, true))
	step(1, service("second", 2, true))
	step(0, service("first", 1, true), service("second", 2, true))
	step(0, service("first", 1, false))
	step(1, service("first", 1, true))
}
