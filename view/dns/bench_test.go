package dns

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	miekg "github.com/miekg/dns"

	"github.com/fingerpost/fingerpost/catalog"
)

const (
	benchSpaces   = 100
	benchServices = 100 // in each
	benchEps      = 10  // of each
)

// large is a catalog of 10,000 services with 10 endpoints each, 5 % headless.
func large(b testing.TB) *catalog.Catalog {
	b.Helper()
	c := catalog.New(nil)
	c.Update(func(tx *catalog.Txn) {
		tx.SetFreshness(catalog.Freshness{Synced: true})
		for n := range benchSpaces {
			tx.PutNamespace(fmt.Sprintf("ns%d", n))
			for i := range benchServices {
				s, eps := largeService(n, i, 0)
				tx.PutService(s)
				tx.PutEndpoints(s.Key, eps)
			}
		}
	})
	return c
}

// largeService is one of them; each version has another last endpoint.
func largeService(n, i, version int) (*catalog.Service, []catalog.Endpoint) {
	number := n*benchServices + i
	s := &catalog.Service{
		Key: catalog.Key{Namespace: fmt.Sprintf("ns%d", n), Name: fmt.Sprintf("svc%d", i)}, Type: catalog.ClusterIP,
		ClusterIPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 96, byte(number >> 8), byte(number)})},
		Ports:      []catalog.Port{{Name: "http", Protocol: catalog.TCP, Port: 80}},
	}
	if i%20 == 0 {
		s.Headless, s.ClusterIPs = true, nil
	}
	ports := []catalog.EndpointPort{{Name: "http", Protocol: catalog.TCP, Port: 8080}}
	eps := make([]catalog.Endpoint, benchEps)
	for e := range eps {
		a := number*benchEps + e
		if e == benchEps-1 {
			a += version * benchSpaces * benchServices * benchEps
		}
		eps[e] = catalog.Endpoint{Addr: netip.AddrFrom4([4]byte{byte(11 + a>>24), byte(a >> 16), byte(a >> 8), byte(a)}), Ports: ports, Ready: true, Serving: true, Weight: 100}
	}
	return s, eps
}

func largeServer(b testing.TB, cfg Config) (*Server, *catalog.Catalog, *catalog.Subscription) {
	b.Helper()
	s, err := New(cfg)
	if err != nil {
		b.Fatal(err)
	}
	c := large(b)
	sub := c.Subscribe()
	b.Cleanup(sub.Close)
	if err := s.Apply(context.Background(), sub.TryNext()); err != nil {
		b.Fatal(err)
	}
	return s, c, sub
}

var benchQuestions = []struct {
	name, question string
	typ            uint16
}{
	{"A", "svc%d.ns%d.svc.cluster.local.", miekg.TypeA},
	{"AAAA-nodata", "svc%d.ns%d.svc.cluster.local.", miekg.TypeAAAA},
	{"SRV", "_http._tcp.svc%d.ns%d.svc.cluster.local.", miekg.TypeSRV},
	{"nxdomain", "nope%d.ns%d.svc.cluster.local.", miekg.TypeA},
}

// TestNoAllocations: the way of a question through the view allocates nothing.
func TestNoAllocations(t *testing.T) {
	s, _, _ := largeServer(t, Config{Autopath: true, Pods: PodsVerified, Upstreams: []string{silent(t)}, Records: []string{
		"192.0.2.7 printer.example", "*.dev.example A 192.0.2.8", "txt.example TXT words", "alias.example CNAME svc1.ns1.svc.cluster.local",
	}})
	var q query
	q.client = netip.MustParseAddr("11.0.0.1") // of ns0
	buf := make([]byte, 0, udpMax)
	for _, c := range []struct {
		name string
		typ  uint16
	}{
		{"svc1.ns1.svc.cluster.local.", miekg.TypeA},
		{"svc1.ns1.svc.cluster.local.", miekg.TypeAAAA},
		{"svc0.ns1.svc.cluster.local.", miekg.TypeA},
		{"svc0.ns1.svc.cluster.local.", miekg.TypeANY},
		{"_http._tcp.svc1.ns1.svc.cluster.local.", miekg.TypeSRV},
		{"_http._tcp.svc0.ns1.svc.cluster.local.", miekg.TypeSRV},
		{"nope.ns1.svc.cluster.local.", miekg.TypeA},
		{"www.example.com.cluster.local.", miekg.TypeA},
		{"11-0-3-242.svc1.ns1.svc.cluster.local.", miekg.TypeA},
		{"1-2-3-4.ns1.pod.cluster.local.", miekg.TypeA},
		{"11-0-3-242.ns1.pod.cluster.local.", miekg.TypeA},
		{"printer.example.", miekg.TypeA},
		{"a.b.dev.example.", miekg.TypeA},
		{"txt.example.", miekg.TypeTXT},
		{"alias.example.", miekg.TypeA},
		{"7.2.0.192.in-addr.arpa.", miekg.TypePTR},
		{"svc1.ns1.ns0.svc.cluster.local.", miekg.TypeA},
		{"fd00--1.ns1.pod.cluster.local.", miekg.TypeAAAA},
		{"1.0.96.10.in-addr.arpa.", miekg.TypePTR},
		{"1.0.0.11.in-addr.arpa.", miekg.TypePTR},
		{"cluster.local.", miekg.TypeSOA},
		{"example.com.", miekg.TypeA},
	} {
		pkt := question(c.name, c.typ)
		if n := testing.AllocsPerRun(100, func() { s.immediate(&q, pkt, buf, false) }); n != 0 {
			t.Errorf("%s %s: %v allocations", c.name, miekg.TypeToString[c.typ], n)
		}
	}
}

func BenchmarkAnswer(b *testing.B) {
	s, _, _ := largeServer(b, Config{})
	bench := func(name string, pkts [][]byte) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			buf := make([]byte, 0, udpMax)
			for i := 0; b.Loop(); i++ {
				s.Answer(pkts[i%len(pkts)], buf, false)
			}
		})
	}
	many := func(question_ string, typ uint16, at func(i int) (svc, ns int)) (pkts [][]byte) {
		for i := range 4096 {
			svc, ns := at(i * 7919)
			pkts = append(pkts, question(fmt.Sprintf(question_, svc, ns), typ))
		}
		return pkts
	}
	virtual := func(i int) (int, int) { return 1 + i%19 + 20*(i/19%5), i % benchSpaces }
	for _, q := range benchQuestions {
		bench(q.name, many(q.question, q.typ, virtual))
	}
	head := func(i int) (int, int) { return 20 * (i % 5), i % benchSpaces }
	bench("A-headless", many(benchQuestions[0].question, miekg.TypeA, head))
	bench("SRV-headless", many(benchQuestions[2].question, miekg.TypeSRV, head))
}

// BenchmarkApply changes one endpoint of one service.
func BenchmarkApply(b *testing.B) {
	s, c, sub := largeServer(b, Config{})
	b.ReportAllocs()
	for i := 1; b.Loop(); i++ {
		b.StopTimer()
		svc, eps := largeService(i%benchSpaces, i/benchSpaces%benchServices, 1+i/(benchSpaces*benchServices)%100)
		c.Update(func(tx *catalog.Txn) { tx.PutEndpoints(svc.Key, eps) })
		batch := sub.TryNext()
		b.StartTimer()
		if err := s.Apply(context.Background(), batch); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkBuild is the first batch, and tells what the index weighs.
func BenchmarkBuild(b *testing.B) {
	c := large(b)
	for b.Loop() {
		b.StopTimer()
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		s, err := New(Config{})
		if err != nil {
			b.Fatal(err)
		}
		sub := c.Subscribe()
		batch := sub.TryNext()
		sub.Close()
		b.StartTimer()
		if err := s.Apply(context.Background(), batch); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		batch = catalog.Batch{}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/(1<<20), "MiB")
		runtime.KeepAlive(s)
		b.StartTimer()
	}
}

// BenchmarkUDP is one client at a time with a window of questions, over
// loopback; client and server share the processors.
func BenchmarkUDP(b *testing.B) {
	s, _, _ := largeServer(b, Config{Addrs: []string{"127.0.0.1:0"}})
	run(b, s)
	conn, err := net.Dial("udp", s.Addrs()[0].String())
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	pkt := question("svc1.ns1.svc.cluster.local.", miekg.TypeA)
	buf := make([]byte, udpMax)
	b.ReportAllocs()
	const window = 32
	sent := 0
	for b.Loop() {
		if sent < window {
			if _, err := conn.Write(pkt); err != nil {
				b.Fatal(err)
			}
			sent++
			continue
		}
		_ = conn.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := conn.Read(buf); err != nil {
			b.Fatal(err)
		}
		if _, err := conn.Write(pkt); err != nil {
			b.Fatal(err)
		}
	}
}
