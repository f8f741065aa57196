package nftables

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"syscall"
	"testing"
	"time"

	nft "github.com/google/nftables"

	"github.com/fingerpost/fingerpost/catalog"
)

// rig drives a driver in a namespace of its own.
type rig struct {
	t   *testing.T
	d   *Driver
	c   *catalog.Catalog
	sub *catalog.Subscription
	now time.Time
}

func newRig(t *testing.T, change func(*Config)) *rig {
	r := &rig{t: t, c: catalog.New(nil), now: time.Unix(1_700_000_000, 0)}
	r.d = newDriver(t, func(c *Config) {
		c.Node, c.Now = "n1", func() time.Time { return r.now }
		if change != nil {
			change(c)
		}
	})
	r.sub = r.c.Subscribe()
	t.Cleanup(r.sub.Close)
	return r
}

func (r *rig) apply(f func(*catalog.Txn)) error {
	r.c.Update(func(t *catalog.Txn) {
		t.SetFreshness(catalog.Freshness{Synced: true})
		f(t)
	})
	return r.d.Apply(r.t.Context(), r.sub.TryNext())
}

// agrees fails unless the kernel has exactly what it should.
func (r *rig) agrees() {
	r.t.Helper()
	want, got := r.d.desired(), map[place]content{}
	for i, f := range r.d.families {
		if f == nil {
			continue
		}
		if ok, err := r.d.k.intact(f, r.d.wanted(i == 1)...); err != nil || !ok {
			r.t.Fatalf("ipv6 %v: the rules are not whole: %v", f.v6, err)
		}
		if err := r.d.k.read(f, got); err != nil {
			r.t.Fatal(err)
		}
	}
	for p, c := range want {
		if got[p] != c {
			r.t.Errorf("%s %x: got %x, want %x", p.set, p.key, got[p], c)
		}
	}
	for p := range got {
		if _, ok := want[p]; !ok {
			r.t.Errorf("%s %x should not be there", p.set, p.key)
		}
	}
}

func randomService(rnd *rand.Rand, n int) *catalog.Service {
	s := &catalog.Service{
		Key: catalog.Key{Namespace: "ns", Name: fmt.Sprintf("s%d", n)}, Type: catalog.NodePort,
		ClusterIPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 96, 0, byte(n)}), netip.MustParseAddr(fmt.Sprintf("fd96::%d", n))},
		Ports: []catalog.Port{
			{Name: "a", Protocol: catalog.TCP, Port: 80, NodePort: uint16(30000 + rnd.IntN(4))},
			{Name: "b", Protocol: catalog.UDP, Port: 53},
		},
		ExternalLocal: rnd.IntN(2) == 0, InternalLocal: rnd.IntN(4) == 0,
	}
	if rnd.IntN(2) == 0 {
		s.Affinity = time.Duration(1+rnd.IntN(2)) * time.Hour
	}
	if rnd.IntN(2) == 0 {
		s.LoadBalancerIPs = []netip.Addr{netip.AddrFrom4([4]byte{203, 0, 113, byte(rnd.IntN(3))})}
		for range rnd.IntN(3) {
			s.SourceRanges = append(s.SourceRanges, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(rnd.IntN(3)), 0, 0}), 8*(1+rnd.IntN(3))))
		}
	}
	return s
}

func randomEndpoints(rnd *rand.Rand) (eps []catalog.Endpoint) {
	for i := range rnd.IntN(6) {
		e := catalog.Endpoint{
			Addr: netip.AddrFrom4([4]byte{10, 0, 0, byte(rnd.IntN(8))}), Ready: rnd.IntN(5) > 0, Serving: true,
			Weight: []uint16{100, 100, 100, 30, 7, 0}[rnd.IntN(6)], Node: fmt.Sprintf("n%d", rnd.IntN(3)),
			Ports: []catalog.EndpointPort{{Name: "a", Protocol: catalog.TCP, Port: uint16(8080 + rnd.IntN(2))}, {Name: "b", Protocol: catalog.UDP, Port: 53}},
		}
		e.Terminating = !e.Ready
		if i%2 == 0 {
			e.Addr = netip.MustParseAddr(fmt.Sprintf("fd00::%d", rnd.IntN(8)))
		}
		eps = append(eps, e)
	}
	return eps
}

// TestRandomChanges: whatever happens, refusals by the kernel and changes by
// others included, it ends with what should be.
func TestRandomChanges(t *testing.T) {
	t.Parallel() // it mostly waits for the kernel
	for _, faults := range []bool{false, true} {
		t.Run(fmt.Sprintf("faults=%v", faults), func(t *testing.T) {
			t.Parallel()
			rnd := rand.New(rand.NewPCG(3, 4))
			r := newRig(t, nil)
			for round := range 200 {
				broken := 0
				if faults && rnd.IntN(3) == 0 {
					broken = 1 + rnd.IntN(3)
				}
				r.d.k.refuse = func() error {
					if broken--; broken >= 0 {
						return syscall.ENOBUFS
					}
					return nil
				}
				if faults && rnd.IntN(5) == 0 {
					r.vandalize(rnd)
				}
				err := r.apply(func(txn *catalog.Txn) {
					for range 1 + rnd.IntN(4) {
						n := rnd.IntN(6)
						switch rnd.IntN(4) {
						case 0:
							txn.PutService(randomService(rnd, n))
						case 1:
							txn.DeleteService(catalog.Key{Namespace: "ns", Name: fmt.Sprintf("s%d", n)})
						default:
							txn.PutEndpoints(catalog.Key{Namespace: "ns", Name: fmt.Sprintf("s%d", n)}, randomEndpoints(rnd))
						}
					}
				})
				if err != nil && !faults {
					t.Fatalf("round %d: %v", round, err)
				}
				for range 20 { // the retries of Run
					r.now = r.now.Add(time.Minute)
					r.d.look()
				}
				if r.d.broken != nil {
					t.Fatalf("round %d: still broken: %v", round, r.d.broken)
				}
				r.agrees()
				if t.Failed() {
					t.Fatalf("round %d", round)
				}
			}
		})
	}
}

// vandalize takes something away behind the driver's back.
func (r *rig) vandalize(rnd *rand.Rand) {
	f := r.d.families[rnd.IntN(2)]
	if ok, err := r.d.k.exists(f); err != nil || !ok {
		return
	}
	c, err := nft.New(nft.WithNetNSFd(r.d.cfg.netns))
	if err != nil {
		r.t.Fatal(err)
	}
	switch rnd.IntN(4) {
	case 0:
		c.DelTable(f.table)
	case 1:
		c.FlushChain(f.chains[rnd.IntN(len(f.chains))].Chain)
	default:
		s := f.sets[[]setName{setSvc, setSlots, setHairpin, setClusterIPs, setIDs, setSlots.node()}[rnd.IntN(6)]]
		c.FlushSet(s)
	}
	if err := c.Flush(); err != nil {
		r.t.Fatal(err)
	}
}

// TestSmallBuffers: what does not fit one message goes in pieces.
func TestSmallBuffers(t *testing.T) {
	r := newRig(t, nil)
	r.d.k.close()
	r.d.k.buffer = 64 << 10
	rnd := rand.New(rand.NewPCG(1, 2))
	err := r.apply(func(txn *catalog.Txn) {
		for n := range 250 {
			s := randomService(rnd, n)
			s.Ports[0].NodePort, s.LoadBalancerIPs = 0, nil
			txn.PutService(s)
			txn.PutEndpoints(s.Key, randomEndpoints(rnd))
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	r.agrees()
}

func TestRefusalIsAnError(t *testing.T) {
	r := newRig(t, nil)
	r.d.k.refuse = func() error { return syscall.ENOBUFS }
	rnd := rand.New(rand.NewPCG(1, 2))
	if err := r.apply(func(txn *catalog.Txn) { txn.PutService(randomService(rnd, 1)) }); !errors.Is(err, syscall.ENOBUFS) {
		t.Errorf("got %v, want ENOBUFS", err)
	}
	r.d.k.refuse = nil
	r.now = r.now.Add(retryEvery)
	r.d.look()
	r.agrees()
}

// TestAdoptWaits: what an earlier process left stays until the catalog is
// complete, or long enough has passed.
func TestAdoptWaits(t *testing.T) {
	r := newRig(t, nil)
	rnd := rand.New(rand.NewPCG(5, 6))
	if err := r.apply(func(txn *catalog.Txn) {
		for n := range 5 {
			txn.PutService(randomService(rnd, n))
			txn.PutEndpoints(catalog.Key{Namespace: "ns", Name: fmt.Sprintf("s%d", n)}, randomEndpoints(rnd))
		}
	}); err != nil {
		t.Fatal(err)
	}
	left := len(r.d.desired())
	for _, how := range []string{"time", "synced"} {
		again, err := New(r.d.cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer again.k.close()
		next := &rig{t: t, d: again, c: catalog.New(nil), now: r.now}
		next.sub = next.c.Subscribe()
		defer next.sub.Close()
		next.c.Update(func(txn *catalog.Txn) { txn.PutService(randomService(rnd, 1)) })
		if err := again.Apply(t.Context(), next.sub.TryNext()); err != nil {
			t.Fatal(err)
		}
		if len(again.adopted) == 0 {
			t.Fatalf("%s: nothing of %d elements was kept", how, left)
		}
		if how == "synced" {
			if err := next.apply(func(txn *catalog.Txn) { txn.DeleteService(catalog.Key{Namespace: "ns", Name: "s1"}) }); err != nil {
				t.Fatal(err)
			}
		} else {
			r.now = r.now.Add(forgetAfter)
			again.look()
		}
		next.agrees()
		if how == "time" { // fill again for the next one
			r.d.broken = errors.New("another wrote")
			r.d.look()
			r.agrees()
		}
	}
}

func TestProbeAndCleanup(t *testing.T) {
	r := newRig(t, nil)
	if err := Probe(r.d.cfg); err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	if err := r.apply(func(txn *catalog.Txn) { txn.PutService(randomService(rnd, 1)) }); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time there is nothing
		if err := Cleanup(r.d.cfg); err != nil {
			t.Fatal(err)
		}
	}
	c, err := nft.New(nft.WithNetNSFd(r.d.cfg.netns))
	if err != nil {
		t.Fatal(err)
	}
	if tables, err := c.ListTables(); err != nil || len(tables) > 0 {
		t.Errorf("tables are left: %v, %v", tables, err)
	}
}

// TestEventsOnce: the loser of a conflict is told once.
func TestEventsOnce(t *testing.T) {
	var told []string
	r := newRig(t, func(c *Config) {
		c.Events = func(k catalog.Key, reason, _ string) { told = append(told, k.Name+" "+reason) }
	})
	service := func(n int) *catalog.Service {
		s := randomService(rand.New(rand.NewPCG(1, 2)), n)
		s.Ports[0].NodePort, s.LoadBalancerIPs = 30001, nil
		s.Created = time.Unix(int64(n), 0)
		return s
	}
	for range 2 {
		if err := r.apply(func(txn *catalog.Txn) { txn.PutService(service(1)); txn.PutService(service(2)) }); err != nil {
			t.Fatal(err)
		}
		s := service(2)
		s.Labels = map[string]string{"x": "y"}
		if err := r.apply(func(txn *catalog.Txn) { txn.PutService(s) }); err != nil {
			t.Fatal(err)
		}
	}
	if len(told) != 2 || told[0] != "s2 "+ReasonConflict { // one per family
		t.Errorf("told %v", told)
	}
}
