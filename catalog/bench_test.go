package catalog

import (
	"fmt"
	"net/netip"
	"testing"
)

// big is a catalog of n services with 10 endpoints each.
func big(n int) (*Catalog, []Key) {
	c := New(nil)
	keys := make([]Key, n)
	c.Update(func(tx *Txn) {
		for i := range keys {
			s := service(fmt.Sprintf("svc-%05d", i), "")
			s.ClusterIPs = []netip.Addr{netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)})}
			keys[i] = s.Key
			tx.PutService(s)
			tx.PutEndpoints(s.Key, tenEndpoints(i))
		}
	})
	return c, keys
}

func tenEndpoints(i int) []Endpoint {
	eps := make([]Endpoint, 10)
	for j := range eps {
		eps[j] = Endpoint{Addr: netip.AddrFrom4([4]byte{10, byte(j), byte(i >> 8), byte(i)}), Ports: httpPort, Ready: true, Serving: true, Weight: 100}
	}
	return eps
}

// One endpoint of one service goes in and out, as a readiness probe does it.
func BenchmarkUpdate1of10000(b *testing.B) {
	c, keys := big(10000)
	sub := c.Subscribe()
	defer sub.Close()
	sub.TryNext()
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		i := n % len(keys)
		eps := tenEndpoints(i)
		eps[3].Ready = (n/len(keys))%2 == 1
		c.Update(func(tx *Txn) { tx.PutEndpoints(keys[i], eps) })
		if got := len(sub.TryNext().Changes); got != 1 {
			b.Fatalf("%d changes, want 1", got)
		}
		n++
	}
}

func BenchmarkSnapshotGet(b *testing.B) {
	c, keys := big(10000)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			if c.Snapshot().Get(keys[i%len(keys)]) == nil {
				b.Error("not there")
			}
		}
	})
}

// One change told to 10,000 subscribers: what the writer pays, then with what
// the readers pay.
func BenchmarkSubscribe10000(b *testing.B) {
	for _, read := range []bool{false, true} {
		name := "write"
		if read {
			name = "write+read"
		}
		b.Run(name, func(b *testing.B) {
			c, keys := big(10000)
			subs := make([]*Subscription, 10000)
			s := c.Snapshot()
			for i := range subs {
				subs[i] = c.Subscribe()
				subs[i].given, subs[i].wake = s, make(chan struct{}, 1) // as if the first batch was read
			}
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				eps := tenEndpoints(n)
				eps[3].Ready = false
				c.Update(func(tx *Txn) { tx.PutEndpoints(keys[n%len(keys)], eps) })
				if read {
					for _, s := range subs {
						s.TryNext()
					}
				}
				n++
			}
		})
	}
}
