package dns

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	miekg "github.com/miekg/dns"
)

// heap is what lives, in bytes.
func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestOddPackets: whatever comes, the next question is answered.
func TestOddPackets(t *testing.T) {
	good := question("web.a.svc.cluster.local.", miekg.TypeA)
	huge := append(bytes.Clone(good), make([]byte, 65507-len(good))...)
	loop := append(bytes.Clone(good[:headerLen]), 0xC0, headerLen, 0, 1, 0, 1)
	many := append(bytes.Clone(good), make([]byte, 1000)...)
	binary.BigEndian.PutUint16(many[10:], 65535) // additional records, all of them the root with 0 bytes
	noise := make([]byte, 1200)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	noise[2] |= 0x80 // an answer: silence
	packets := map[string][]byte{
		"nothing": {}, "one byte": {0}, "64 KiB": huge, "a pointer to itself": loop, "too many records": many, "noise": noise,
		"labels without end": append(bytes.Clone(good[:headerLen]), bytes.Repeat([]byte("\x01a"), 600)...),
	}
	for _, plain := range []bool{false, true} {
		w := newWorld(t, Config{Addrs: []string{"127.0.0.1:0"}, PlainUDP: plain})
		w.must(t, "service a/web clusterip=10.96.0.1")
		c := newClients(t, w.server)
		for name, pkt := range packets {
			t.Run(fmt.Sprintf("%s, plain=%t", name, plain), func(t *testing.T) {
				if _, err := c.udp.Conn.Write(pkt); err != nil {
					t.Fatal(err)
				}
				var m miekg.Msg
				m.SetQuestion("web.a.svc.cluster.local.", miekg.TypeA)
				m.Id = 0x7777
				if err := c.udp.WriteMsg(&m); err != nil {
					t.Fatal(err)
				}
				buf := make([]byte, 65535)
				for { // what comes before is to the odd packet
					_ = c.udp.SetReadDeadline(time.Now().Add(time.Minute))
					n, err := c.udp.Conn.Read(buf)
					if err != nil {
						t.Fatal(err)
					}
					if n > udpPlain {
						t.Fatalf("%d bytes without EDNS", n)
					}
					if binary.BigEndian.Uint16(buf) == 0x7777 {
						return
					}
				}
			})
		}
		for name, pkt := range packets {
			t.Run(fmt.Sprintf("TCP, %s", name), func(t *testing.T) {
				conn, err := net.Dial("tcp", w.server.Addrs()[0].String())
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(pkt))), pkt...)); err != nil {
					t.Fatal(err)
				}
				_ = conn.(*net.TCPConn).CloseWrite()
				_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
				_, err = conn.Read(make([]byte, 65535)) // an answer or the end
				if err, ok := err.(net.Error); ok && err.Timeout() {
					t.Error("the connection hangs")
				}
			})
		}
	}
}

// TestFloodKeepsNothing: names that are asked for leave no trace.
func TestFloodKeepsNothing(t *testing.T) {
	w := newWorld(t, Config{Autopath: true, Pods: PodsVerified, Records: []string{"*.dev.example A 192.0.2.1"}})
	w.must(t, "service a/web clusterip=10.96.0.1 ports=http:80", "endpoint a/web 127.0.0.1 ports=http:80")
	buf := make([]byte, 0, udpMax)
	var q query
	flood := func(n int) {
		for i := range n {
			name := strings.Repeat(fmt.Sprintf("%x.", rand.Uint64()), 1+i%3)
			name += []string{"a.svc.cluster.local.", "svc.cluster.local.", "cluster.local.", "example.com.", "dev.example.", "a.pod.cluster.local.", "in-addr.arpa."}[i%7]
			q.client = netip.MustParseAddr("127.0.0.1")
			w.server.immediate(&q, question(name, miekg.TypeA), buf, false)
		}
	}
	flood(1000)
	before := heap()
	flood(100_000)
	if after := heap(); after > before+256<<10 {
		t.Errorf("the heap grew from %d to %d bytes", before, after)
	}
}

// TestMemory: 10,000 services with 10 endpoints each cost the view less than
// 25 MiB beside the catalog.
func TestMemory(t *testing.T) {
	c := large(t)
	before := heap()
	s, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	sub := c.Subscribe()
	if err := s.Apply(t.Context(), sub.TryNext()); err != nil {
		t.Fatal(err)
	}
	sub.Close()
	grew := float64(heap()-before) / (1 << 20)
	t.Logf("%.1f MiB", grew)
	if grew > 25 {
		t.Errorf("the view has %.1f MiB", grew)
	}
	runtime.KeepAlive(s)
	runtime.KeepAlive(c)
}
