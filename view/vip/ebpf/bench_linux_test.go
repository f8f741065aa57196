package ebpf

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/fingerpost/fingerpost/catalog"
)

// fill puts services 0 to n-1 with ten endpoints each, all of them nowhere.
func (r *rig) fill(n int) {
	r.c.Update(func(tx *catalog.Txn) {
		for i := range n {
			tx.PutService(nth(i))
			tx.PutEndpoints(nth(i).Key, tenOf(i, 0))
		}
	})
}

func nth(i int) *catalog.Service {
	return &catalog.Service{
		Key: catalog.Key{Namespace: "default", Name: fmt.Sprint("s", i)}, Type: catalog.ClusterIP,
		ClusterIPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 97, byte(i >> 8), byte(i)})},
		Ports:      []catalog.Port{{Name: "tcp", Protocol: catalog.TCP, Port: 80}},
	}
}

func tenOf(i, shift int) []catalog.Endpoint {
	var all []netip.AddrPort
	for e := range 10 {
		if e == 0 {
			e = 10 + shift%100
		}
		all = append(all, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(128 + e), byte(i >> 8), byte(i)}), 8080))
	}
	return endpoints(all...)
}

func (r *rig) follow() {
	if err := r.d.Apply(context.Background(), r.sub.TryNext()); err != nil {
		r.t.Fatal(err)
	}
}

func BenchmarkFullLoad(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		r := newRig(b, func(c *Config) { c.MaxSlots, c.MaxFrontends = 0, 0 })
		r.fill(10_000)
		b.StartTimer()
		r.follow()
		b.StopTimer()
		r.stop()
		b.StartTimer()
	}
}

// BenchmarkChange replaces one endpoint of one service. What is timed is Apply,
// from the change in the catalog to the kernel.
func BenchmarkChange(b *testing.B) {
	for _, n := range []int{1000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			r := newRig(b, func(c *Config) { c.MaxSlots, c.MaxFrontends = 0, 0 })
			r.fill(n)
			r.follow()
			var took []time.Duration
			for i := 0; b.Loop(); i++ {
				r.c.Update(func(tx *catalog.Txn) { tx.PutEndpoints(nth(i%n).Key, tenOf(i%n, 1+i/n)) })
				batch := r.sub.TryNext()
				if len(batch.Changes) != 1 {
					b.Fatal("nothing has changed")
				}
				start := time.Now()
				if err := r.d.Apply(context.Background(), batch); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(start))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2]), "p50-ns")
			b.ReportMetric(float64(took[len(took)*99/100]), "p99-ns")
		})
	}
}

// BenchmarkAudit compares everything with the kernel, as every Resync does.
func BenchmarkAudit(b *testing.B) {
	r := newRig(b, func(c *Config) { c.MaxSlots, c.MaxFrontends = 0, 0 })
	r.fill(10_000)
	r.follow()
	for b.Loop() {
		r.d.audit()
	}
}

// BenchmarkConnect makes connections and closes them, beside 10,000 services,
// in turns to the endpoint and to its virtual IPs, so that noise meets all. The
// ratio is that of the medians: 1 is as fast as direct.
func BenchmarkConnect(b *testing.B) {
	at := serve(b, "127.0.0.1")
	r := newRig(b, func(c *Config) { c.MaxSlots, c.MaxFrontends = 0, 0 })
	r.fill(10_000)
	r.follow()
	r.put(service("10.96.0.10"), at)
	ways := []struct{ name, to string }{{"direct", at.String()}, {"vip", "10.96.0.10:80"}, {"nodeport", "127.0.0.1:30080"}}
	took := make([][]time.Duration, len(ways))
	for b.Loop() {
		for i, w := range ways {
			start := time.Now()
			c, err := net.Dial("tcp", w.to)
			if err != nil {
				b.Fatal(err)
			}
			_ = c.(*net.TCPConn).SetLinger(0)
			_ = c.Close()
			took[i] = append(took[i], time.Since(start))
		}
	}
	median := func(i int) float64 {
		slices.Sort(took[i])
		return float64(took[i][len(took[i])/2])
	}
	for i, w := range ways {
		b.ReportMetric(median(i), w.name+"-ns")
		if i > 0 {
			b.ReportMetric(median(0)/median(i), w.name+"/direct")
		}
	}
}

// BenchmarkDatagram asks and answers once, on a socket with and without a peer.
func BenchmarkDatagram(b *testing.B) {
	at := serve(b, "127.0.0.1")
	r := newRig(b, nil)
	r.put(service("10.96.0.10"), at)
	for _, to := range []string{at.String(), "10.96.0.10:80"} {
		name := "vip"
		if to == at.String() {
			name = "direct"
		}
		b.Run(name+"/connected", func(b *testing.B) {
			c, err := net.Dial("udp", to)
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			for b.Loop() {
				if _, err := talk(c); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/free", func(b *testing.B) {
			pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			defer pc.Close()
			deadline(b, pc.(*net.UDPConn))
			dst, buf := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to)), make([]byte, 64)
			for b.Loop() {
				if _, err := pc.WriteTo([]byte("who"), dst); err != nil {
					b.Fatal(err)
				}
				if _, _, err := pc.ReadFrom(buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
