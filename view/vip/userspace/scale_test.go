package userspace

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fingerpost/fingerpost/catalog"
)

// many makes service number i of a fleet: one TCP port, an address of its own.
func many(i int, port uint16) *catalog.Service {
	return service(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 97, byte(i >> 8), byte(i)}), port), func(s *catalog.Service) {
		s.Name = fmt.Sprint("s", i)
		s.Ports = s.Ports[:1]
	})
}

// TestChurn changes a fleet at random while a client calls one service that
// stays: no call may fail, and in the end exactly what the catalog says is
// served.
func TestChurn(t *testing.T) {
	const fleet, rounds, changes = 10_000, 20, 1000
	r := newRig(t)
	port := free(t, "127.97.0.0").Port()
	b := newBackend(t, "a", "127.0.0.1")
	stay := free(t, "127.96.0.5")
	r.put(service(stay), b.ep())
	r.apply(func(txn *catalog.Txn) {
		for i := range fleet {
			s := many(i, port)
			txn.PutService(s)
			txn.PutEndpoints(s.Key, []catalog.Endpoint{b.ep()})
		}
	})

	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			c, err := dial(stay)
			if err != nil {
				t.Errorf("a service that stays: %v", err)
				return
			}
			_, err = c.ask("x")
			c.Close()
			if err != nil {
				t.Errorf("a service that stays: %v", err)
				return
			}
		}
	})
	rnd := rand.New(rand.NewPCG(9, 10))
	for range rounds {
		r.apply(func(txn *catalog.Txn) {
			for range changes {
				s := many(rnd.IntN(fleet), port)
				switch rnd.IntN(4) {
				case 0:
					txn.DeleteService(s.Key)
				case 1:
					txn.PutService(s)
					txn.PutEndpoints(s.Key, nil)
				default:
					txn.PutService(s)
					txn.PutEndpoints(s.Key, []catalog.Endpoint{b.ep()})
				}
			}
		})
	}
	close(stop)
	wg.Wait()
	snap := r.c.Snapshot()
	for range 200 {
		s := many(rnd.IntN(fleet), port)
		e := snap.Get(s.Key)
		c, err := dial(netip.AddrPortFrom(s.ClusterIPs[0], port))
		if up := e != nil && len(e.Endpoints) > 0; up != (err == nil) {
			t.Errorf("%s: served %v, want %v", s.Key, err == nil, up)
		}
		if err == nil {
			c.Close()
		}
	}
	if services, _ := snap.Len(); len(r.d.spots) != services+1 { // the one that stays has two ports
		t.Errorf("%d sockets for %d services", len(r.d.spots), services)
	}
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	r := newRig(t, func(c *Config) { c.Registerer = reg })
	at := free(t, "127.96.0.8")
	b := newBackend(t, "a", "127.0.0.1")
	r.put(service(at), b.ep())
	who(t, at)
	newPeer(t, at).who(t)
	r.put(service(at), b.ep(), dead(t, "127.0.0.1"))
	r.stop()
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range all {
		m := f.GetMetric()[0]
		switch {
		case m.Counter != nil:
			got[f.GetName()] = m.Counter.GetValue()
		case m.Gauge != nil:
			got[f.GetName()] = m.Gauge.GetValue()
		case m.Histogram != nil:
			got[f.GetName()] = float64(m.Histogram.GetSampleCount())
		}
	}
	for name, want := range map[string]float64{
		"fingerpost_vip_connections_total":               1,
		"fingerpost_vip_connections_active":              0,
		"fingerpost_vip_udp_flows_total":                 1,
		"fingerpost_vip_udp_flows_active":                0,
		"fingerpost_vip_listeners":                       0,
		"fingerpost_vip_listeners_failed":                0,
		"fingerpost_vip_frontends":                       2,
		"fingerpost_vip_programming_latency_seconds":     1,
		"kubeproxy_network_programming_duration_seconds": 1,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s = %v (there: %v), want %v", name, v, ok, want)
		}
	}
}

func rssMB() float64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	pages, _ := strconv.ParseFloat(strings.Fields(string(b))[1], 64)
	return pages * float64(os.Getpagesize()) / (1 << 20)
}

// BenchmarkTenThousand reports what 10,000 services with 10 endpoints each cost
// to begin with, and a change of one afterwards.
func BenchmarkTenThousand(b *testing.B) {
	const fleet = 10_000
	port := free(b, "127.97.0.0").Port()
	c := catalog.New(nil)
	eps := func(i, n int) (out []catalog.Endpoint) {
		for j := range n {
			out = append(out, endpoint(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(j), byte(i >> 8), byte(i)}), 8080)))
		}
		return out
	}
	c.Update(func(txn *catalog.Txn) {
		for i := range fleet {
			s := many(i, port)
			txn.PutService(s)
			txn.PutEndpoints(s.Key, eps(i, 10))
		}
	})
	sub := c.Subscribe()
	defer sub.Close()
	debug.FreeOSMemory()
	before := rssMB()
	d, err := New(Config{Node: "a", Drain: -1})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	defer func() { cancel(); <-done }()
	goroutines := runtime.NumGoroutine()
	begin := time.Now()
	if err := d.Apply(ctx, sub.TryNext()); err != nil {
		b.Fatal(err)
	}
	first := time.Since(begin)
	if len(d.failing) > 0 {
		b.Fatalf("%d addresses failed", len(d.failing))
	}
	debug.FreeOSMemory()
	after := rssMB()
	changes := [2][]catalog.Endpoint{eps(77, 9), eps(77, 10)}
	key := many(77, port).Key
	i := 0
	for b.Loop() {
		c.Update(func(txn *catalog.Txn) { txn.PutEndpoints(key, changes[i%2]) })
		_ = d.Apply(ctx, sub.TryNext())
		i++
	}
	b.ReportMetric(first.Seconds(), "s-first-sync")
	b.ReportMetric(after-before, "MB-RSS")
	b.ReportMetric(float64(runtime.NumGoroutine()-goroutines), "goroutines")
}

// serveBench answers requests of 64 bytes until closed.
func serveBench(b *testing.B) netip.AddrPort {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				buf := make([]byte, 64<<10)
				for {
					n, err := c.Read(buf)
					if err != nil {
						return
					}
					if n <= 64 {
						c.Write(buf[:n])
					}
				}
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// BenchmarkPath compares the way through the proxy with the direct one.
func BenchmarkPath(b *testing.B) {
	direct := serveBench(b)
	r := newRig(b)
	at := free(b, "127.96.0.5")
	r.put(service(at), endpoint(direct))
	udp := newBackend(b, "a", "127.0.0.1")
	udpAt := free(b, "127.96.0.6")
	r.put(service(udpAt, func(s *catalog.Service) { s.Name = "udp" }), udp.ep())

	request := make([]byte, 64)
	ask := func(b *testing.B, c net.Conn) {
		if _, err := c.Write(request); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 64)); err != nil {
			b.Fatal(err)
		}
	}
	for _, way := range []struct {
		name    string
		to, udp netip.AddrPort
	}{{"direct", direct, udp.at}, {"proxy", at, udpAt}} {
		b.Run("connect+request/"+way.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				c, err := net.Dial("tcp", way.to.String())
				if err != nil {
					b.Fatal(err)
				}
				ask(b, c)
				c.(*net.TCPConn).SetLinger(0)
				c.Close()
			}
		})
		b.Run("request/"+way.name, func(b *testing.B) {
			c, err := net.Dial("tcp", way.to.String())
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			b.ReportAllocs()
			for b.Loop() {
				ask(b, c)
			}
		})
		b.Run("bulk/"+way.name, func(b *testing.B) {
			c, err := net.Dial("tcp", way.to.String())
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			chunk := make([]byte, 128<<10)
			b.SetBytes(int64(len(chunk)))
			for b.Loop() {
				c.Write(chunk)
			}
		})
		b.Run("udp/"+way.name, func(b *testing.B) {
			c, err := net.Dial("udp", way.udp.String())
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			buf := make([]byte, 100)
			b.ReportAllocs()
			for b.Loop() {
				c.Write(request[:8])
				if _, err := c.Read(buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
