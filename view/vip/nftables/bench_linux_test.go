package nftables

import (
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fingerpost/fingerpost/catalog"
)

// load is a catalog of n services with 10 endpoints each, the 64th part of
// which are on this node.
type load struct {
	c   *catalog.Catalog
	sub *catalog.Subscription
}

func benchKey(i int) catalog.Key {
	return catalog.Key{Namespace: "default", Name: fmt.Sprintf("svc-%05d", i)}
}

func benchEndpoints(i, n int) []catalog.Endpoint {
	eps := make([]catalog.Endpoint, n)
	for j := range eps {
		eps[j] = catalog.Endpoint{
			Addr:  netip.AddrFrom4([4]byte{10, byte(100 + j), byte(i >> 8), byte(i)}),
			Ports: []catalog.EndpointPort{{Name: "http", Protocol: catalog.TCP, Port: 8080}},
			Ready: true, Serving: true, Weight: 100, Node: fmt.Sprintf("n%d", (i*10+j)%64),
		}
	}
	return eps
}

func newLoad(b *testing.B, n int) *load {
	l := &load{c: catalog.New(nil)}
	l.c.Update(func(t *catalog.Txn) {
		t.SetFreshness(catalog.Freshness{Synced: true})
		for i := range n {
			t.PutService(&catalog.Service{
				Key: benchKey(i), Type: catalog.ClusterIP, Ports: []catalog.Port{{Name: "http", Protocol: catalog.TCP, Port: 80}},
				ClusterIPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)})},
			})
			t.PutEndpoints(benchKey(i), benchEndpoints(i, 10))
		}
	})
	l.sub = l.c.Subscribe()
	b.Cleanup(l.sub.Close)
	return l
}

func benchDriver(b *testing.B) *Driver {
	return newDriver(b, func(c *Config) { c.Node = "n1" })
}

func cpu(b *testing.B) float64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

// BenchmarkFirstSync loads everything into an empty kernel.
func BenchmarkFirstSync(b *testing.B) {
	for _, n := range []int{1_000, 10_000} {
		b.Run(fmt.Sprintf("%dx10", n), func(b *testing.B) {
			l := newLoad(b, n)
			batch := l.sub.TryNext()
			for b.Loop() {
				b.StopTimer()
				d := benchDriver(b)
				b.StartTimer()
				if err := d.Apply(b.Context(), batch); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkAdopt starts again on rules that are as they should be.
func BenchmarkAdopt(b *testing.B) {
	l := newLoad(b, 10_000)
	batch := l.sub.TryNext()
	d := benchDriver(b)
	if err := d.Apply(b.Context(), batch); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		again, err := New(d.cfg)
		if err != nil {
			b.Fatal(err)
		}
		if err := again.Apply(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
		again.k.close()
	}
}

// BenchmarkChange is one change of the catalog, from there to the kernel.
func BenchmarkChange(b *testing.B) {
	for _, n := range []int{1_000, 10_000} {
		for what, sizes := range map[string][2]int{"replace": {10, 10}, "scale": {10, 9}} {
			b.Run(fmt.Sprintf("%s/%dx10", what, n), func(b *testing.B) {
				l := newLoad(b, n)
				d := benchDriver(b)
				if err := d.Apply(b.Context(), l.sub.TryNext()); err != nil {
					b.Fatal(err)
				}
				i := 0
				used := cpu(b)
				for b.Loop() {
					eps := benchEndpoints(i%n, sizes[i/n%2])
					eps[3].Addr = netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)})
					l.c.Update(func(t *catalog.Txn) { t.PutEndpoints(benchKey(i%n), eps) })
					if err := d.Apply(b.Context(), l.sub.TryNext()); err != nil {
						b.Fatal(err)
					}
					i++
				}
				b.ReportMetric((cpu(b)-used)*1e6/float64(i), "cpu-µs/op")
			})
		}
	}
}
