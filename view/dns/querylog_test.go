package dns

import (
	"bytes"
	"context"
	"io"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	miekg "github.com/miekg/dns"
)

// logBuffer is a writer that tests read.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logBuffer) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.b.Reset()
	return l.b.String()
}

func TestQueryLog(t *testing.T) {
	var out logBuffer
	all, err := ParseQueryLog("all")
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, Config{Addrs: []string{"127.0.0.1:0"}, QueryLog: all, QueryLogTo: &out, Upstreams: []string{upstream(t, good)}})
	w.must(t, "service a/web clusterip=10.96.0.1")
	stop := run(t, w.server)
	c := dialClients(t, w.server)
	ask := func(conn *miekg.Conn, m *miekg.Msg) {
		t.Helper()
		m.Id = 4711
		if err := conn.WriteMsg(m); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.ReadMsg(); err != nil {
			t.Fatal(err)
		}
	}
	ask(c.udp, new(miekg.Msg).SetQuestion("WEB.a.svc.cluster.local.", miekg.TypeA))
	ask(c.tcp, new(miekg.Msg).SetQuestion("www.example.com.", miekg.TypeA).SetEdns0(1232, true))
	ask(c.udp, new(miekg.Msg).SetQuestion(`a\"\010b.cluster.local.`, 999))
	if _, err := c.udp.Write([]byte{1, 2, 1, 0, 0, 7, 0, 0, 0, 0, 0, 0}); err != nil { // seven questions
		t.Fatal(err)
	}
	if _, err := c.udp.Read(make([]byte, 512)); err != nil {
		t.Fatal(err)
	}
	stop() // writes what waits
	got := regexp.MustCompile(`(?m)^\S+Z query 127\.0\.0\.1:\d+|0\.\d{9}s`).ReplaceAllString(out.take(), "*")
	lines := strings.Split(strings.TrimSpace(got), "\n")
	for _, want := range []string{
		`* - 4711 "A IN web.a.svc.cluster.local. udp 41 false 512" NOERROR qr,aa,rd,ra 57 *`,
		`* - 4711 "A IN www.example.com. tcp 44 true 65535" NOERROR qr,rd,ra 60 *`,
		`* - 4711 "TYPE999 IN a\"\010b.cluster.local. udp 36 false 512" NXDOMAIN qr,aa,rd,ra`,
		`* - 258 "`,
	} {
		found := false
		for _, l := range lines {
			found = found || strings.HasPrefix(l, want)
		}
		if !found {
			t.Errorf("no line %s in\n%s", want, got)
		}
	}
	if len(lines) != 4 || !strings.Contains(got, `udp 12 false 512" FORMERR qr,rd 12 *`) {
		t.Errorf("%s", got)
	}
}

func TestQueryLogSamples(t *testing.T) {
	for _, c := range []struct {
		what string
		want int
	}{{"off", 0}, {"all", 100}, {"1/10", 10}, {"1/1", 100}, {"errors", 34}} {
		l, err := ParseQueryLog(c.what)
		if err != nil || l.String() != c.what && c.what != "1/1" {
			t.Fatal(c.what, l, err)
		}
		q := newQueryLog(io.Discard, l)
		var counter atomic.Uint64
		n := 0
		for i := range 100 {
			if q.wants(l.mode, []int{rcodeServFail, rcodeOK, rcodeNXDomain}[i%3], &counter) {
				n++
			}
		}
		if n != c.want {
			t.Errorf("%s: %d of 100, want %d", c.what, n, c.want)
		}
	}
	for _, bad := range []string{"some", "1/0", "1/-3", "1/x", "2/3"} {
		if _, err := ParseQueryLog(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

// TestQueryLogNeverBlocks: nobody writes, and nobody waits.
func TestQueryLogNeverBlocks(t *testing.T) {
	l := newQueryLog(io.Discard, QueryLog{logAll})
	var q query
	for range queryLines + 10 {
		l.add(netip.AddrPort{}, "udp", &q, &finding{}, rcodeOK, 0, nil, 0)
	}
	if n := l.dropped.Load(); n != 10 {
		t.Errorf("%d lines dropped", n)
	}
	if n := testing.AllocsPerRun(100, func() { l.add(netip.AddrPort{}, "udp", &q, &finding{}, rcodeOK, 0, nil, 0) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	l.run(ctx) // writes what waits, then ends
	if len(l.lines) > 0 {
		t.Errorf("%d lines left", len(l.lines))
	}
}

// FuzzLogName: whatever a stranger asks for, it is one word of one line, and
// means the same name.
func FuzzLogName(f *testing.F) {
	f.Add([]byte("\x03web\x01a\x00"))
	f.Add([]byte("\x04\n \"\\\x01.\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var n name
		if _, ok := n.read(b, 0); !ok {
			return
		}
		s := string(appendName(nil, n.b[:n.n]))
		if strings.ContainsAny(s, " \n\t") || strings.Contains(strings.ReplaceAll(s, `\\`, ""), `"`) != strings.Contains(strings.ReplaceAll(s, `\\`, ""), `\"`) {
			t.Fatalf("%q", s)
		}
		wire := make([]byte, maxName+1)
		end, err := miekg.PackDomainName(s, wire, 0, nil, false)
		if err != nil || !bytes.Equal(wire[:end], n.b[:n.n]) {
			t.Fatalf("%q: %v", s, err)
		}
	})
}

func BenchmarkQueryLog(b *testing.B) {
	l := newQueryLog(io.Discard, QueryLog{logAll})
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.run(ctx)
	}()
	var q query
	q.set("\x03web\x01a\x03svc\x07cluster\x05local\x00")
	from := netip.MustParseAddrPort("127.0.0.1:1234")
	for b.Loop() {
		l.add(from, "udp", &q, &finding{}, rcodeOK, 40, nil, time.Microsecond)
	}
	cancel()
	<-done
	b.ReportMetric(float64(l.dropped.Load())/float64(b.N), "dropped/op")
}
