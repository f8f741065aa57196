package prober

import (
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fingerpost/fingerpost/health"
	"github.com/fingerpost/fingerpost/health/probe"
)

// rawServer answers connections, of which it tells the number; they are closed
// after that.
func rawServer(t *testing.T, answer func(n int, c net.Conn, req *http.Request)) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(func() {
		cancel()
		_ = l.Close()
		wg.Wait()
	})
	wg.Go(func() {
		for n := 1; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				defer context.AfterFunc(ctx, func() { _ = c.Close() })()
				if req, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
					answer(n, c, req)
				}
			})
		}
	})
	return netip.MustParseAddrPort(l.Addr().String()).Port()
}

func closedPort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return netip.MustParseAddrPort(l.Addr().String()).Port()
}

// ask asks once, the quick way, in a round.
func ask(t *testing.T, q *Quick, timeout time.Duration) probe.Result {
	t.Helper()
	told := make(chan probe.Result, 1)
	k := inRounds(t, NewRounds(), q, timeout, func(r Report) { told <- probe.Result{OK: r.OK, Output: r.Output} })
	defer k.group.Stop()
	return <-told
}

func inRounds(t *testing.T, r *Rounds, q *Quick, timeout time.Duration, report func(Report)) *task {
	g := &Group{cfg: Config{Rounds: r, Report: report}}
	g.ctx, g.cancel = context.WithCancel(t.Context())
	k := &task{group: g, state: health.NewThreshold(1, 1, time.Now()), Probe: Probe{
		Timeout: timeout, Period: time.Hour, Quick: q, Ask: func(context.Context) probe.Result { return probe.Result{Output: "not quick"} },
	}}
	g.tasks = []*task{k}
	g.mu.Lock()
	defer g.mu.Unlock()
	r.add(k, r.base.Add(2*grid)) // all at once
	return k
}

var addresses = regexp.MustCompile(`127\.0\.0\.1:\d+(->127\.0\.0\.1:\d+)?`)

// TestQuickIsHTTP: the quick way and the other say the same about all servers.
func TestQuickIsHTTP(t *testing.T) {
	text := func(parts ...string) func(int, net.Conn, *http.Request) {
		return func(_ int, c net.Conn, _ *http.Request) {
			for i, p := range parts {
				if i > 0 {
					<-time.After(30 * time.Millisecond) // longer than looks take, most of the time
				}
				_, _ = c.Write([]byte(p))
			}
		}
	}
	hang := func(c net.Conn) { _, _ = c.Read(make([]byte, 1)) }
	const redirect = "HTTP/1.1 302 Found\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n"
	for _, tc := range []struct {
		name   string
		answer func(int, net.Conn, *http.Request)
		ok     bool
	}{
		{"plain", text("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), true},
		{"no reason", text("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n"), true},
		{"to the end", text("HTTP/1.0 200 OK\r\n\r\nok"), true},
		{"bare newlines", text("HTTP/1.0 200 OK\n\nok"), true},
		{"chunks", text("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"), true},
		{"chunks that break off", text("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\no"), false},
		{"a body that breaks off", text("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nok"), false},
		{"a head that breaks off", text("HTTP/1.1 200 OK\r\nConte"), false},
		{"nothing", text(), false},
		{"another protocol", text("SSH-2.0-OpenSSH_9.2\r\n"), false},
		{"a hint before", text("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), true},
		{"hints for ever", text(strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 10)), false},
		{"no content", text("HTTP/1.1 204 No Content\r\n\r\n"), true},
		{"not found", text("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"), false},
		{"not modified", text("HTTP/1.1 304 Not Modified\r\n\r\n"), true},
		{"later", text("", "HTTP/1.1 200 OK\r\n", "Content-Length: 2\r\n\r\no", "k"), true},
		{"later and broken", text("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", "o"), false},
		{"elsewhere", text(fmt.Sprintf(redirect, "http://elsewhere.invalid/")), true},
		{"in a circle", text(fmt.Sprintf(redirect, "/x")), false},
		{"to a good page", func(n int, c net.Conn, req *http.Request) {
			if req.URL.Path == "/good" {
				text("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")(n, c, req)
			} else {
				text(fmt.Sprintf(redirect, "/good"))(n, c, req)
			}
		}, true},
		{"to a bad page, late", func(n int, c net.Conn, req *http.Request) {
			if req.URL.Path == "/bad" {
				text("HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n")(n, c, req)
			} else {
				text("", fmt.Sprintf(redirect, "/bad"))(n, c, req)
			}
		}, false},
		{"the request", func(n int, c net.Conn, req *http.Request) {
			dump, _ := httputil.DumpRequest(req, true)
			text(fmt.Sprintf("HTTP/1.1 200 %x\r\nContent-Length: 0\r\n\r\n", sha256.Sum256(dump)))(n, c, req)
		}, true},
		{"a long body that stays open", func(_ int, c net.Conn, _ *http.Request) {
			_, _ = c.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + strings.Repeat("x", 20000)))
			hang(c)
		}, true},
		{"a head without end", func(_ int, c net.Conn, _ *http.Request) {
			_, _ = c.Write([]byte("HTTP/1.1 200 OK\r\n"))
			for {
				if _, err := c.Write([]byte("X-More: " + strings.Repeat("x", 1000) + "\r\n")); err != nil {
					return
				}
			}
		}, false},
		{"reset", func(_ int, c net.Conn, _ *http.Request) { _ = c.(*net.TCPConn).SetLinger(0) }, false},
		{"silence", func(_ int, c net.Conn, _ *http.Request) { hang(c) }, false},
		{"silence in the middle", func(n int, c net.Conn, req *http.Request) {
			text("HTTP/1.1 200 OK\r\n")(n, c, req)
			hang(c)
		}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			patience := time.Minute
			if strings.HasPrefix(tc.name, "silence") {
				patience = 100 * time.Millisecond
			}
			h := HTTP{Addr: "127.0.0.1", Port: rawServer(t, tc.answer), Path: "/x?y=z", Headers: http.Header{"Host": {"web.example"}, "Accept": {""}, "X-A": {"b", "c"}}}
			q := QuickHTTP(h)
			if q == nil {
				t.Fatal("there is no quick way")
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			want, got := h.Get(ctx), ask(t, q, patience)
			if addresses.ReplaceAllString(got.Output, "ADDRESS") != addresses.ReplaceAllString(want.Output, "ADDRESS") || got.OK != want.OK || got.OK != tc.ok {
				t.Errorf("want %v\nquick: %v %s\nother: %v %s", tc.ok, got.OK, got.Output, want.OK, want.Output)
			}
		})
	}
}

func TestQuickConnection(t *testing.T) {
	open, closed := rawServer(t, nil), closedPort(t)
	if r := ask(t, QuickTCP("127.0.0.1", open), time.Minute); !r.OK || r.Output != fmt.Sprintf("connected to 127.0.0.1:%d", open) {
		t.Errorf("an open port: %+v", r)
	}
	want := probe.TCP(t.Context(), probe.Target{Addr: "127.0.0.1", Port: closed})
	if r := ask(t, QuickTCP("127.0.0.1", closed), time.Minute); r.OK || r.Output != want.Output {
		t.Errorf("a closed port: %+v, want %+v", r, want)
	}
	h := HTTP{Addr: "127.0.0.1", Port: closed}
	want = h.Get(t.Context())
	if r := ask(t, QuickHTTP(h), time.Minute); r.OK || r.Output != want.Output {
		t.Errorf("a closed port: %+v, want %+v", r, want)
	}
	for name, q := range map[string]*Quick{
		"a name": QuickHTTP(HTTP{Addr: "web.example", Port: 80}), "TLS": QuickHTTP(HTTP{Addr: "127.0.0.1", Port: 80, TLS: true}),
		"no port": QuickHTTP(HTTP{Addr: "127.0.0.1"}), "a bad path": QuickHTTP(HTTP{Addr: "127.0.0.1", Port: 80, Path: "/%"}), "a zone": QuickTCP("fe80::1%lo", 80),
	} {
		if q != nil {
			t.Errorf("%s has a quick way", name)
		}
	}
	if q := QuickTCP("::ffff:127.0.0.1", 80); q == nil || q.addr.String() != "127.0.0.1:80" {
		t.Errorf("an address of IPv4 in IPv6: %+v", q)
	}
}

// TestManyInARound: more than are asked at a time, some of which are answered
// when all others are through.
func TestManyInARound(t *testing.T) {
	const n = 3*most + 5
	const late = n / 7
	others := make(chan struct{})
	port := rawServer(t, func(i int, c net.Conn, _ *http.Request) {
		_, _ = c.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no"))
		if i%7 == 0 {
			<-others
		}
		_, _ = c.Write([]byte("k"))
	})
	rounds := NewRounds()
	var told atomic.Int32
	all := make(chan struct{})
	for i := range n {
		k := inRounds(t, rounds, QuickHTTP(HTTP{Addr: "127.0.0.1", Port: port}), time.Minute, func(r Report) {
			if !r.OK {
				t.Errorf("%d: %s", i, r.Output)
			}
			switch told.Add(1) {
			case n - late:
				close(others)
			case n:
				close(all)
			case n + 1:
				t.Error("told twice")
			}
		})
		defer k.group.Stop()
	}
	<-all
}

// TestQuickStops: a group that stops ends the wait for an answer, and no
// descriptor stays.
func TestQuickStops(t *testing.T) {
	asked, gone := make(chan struct{}), make(chan struct{})
	port := rawServer(t, func(_ int, c net.Conn, _ *http.Request) {
		close(asked)
		_, _ = c.Read(make([]byte, 1)) // until the other side goes
		close(gone)
	})
	k := inRounds(t, NewRounds(), QuickHTTP(HTTP{Addr: "127.0.0.1", Port: port}), time.Hour, func(r Report) { t.Errorf("told %+v", r) })
	<-asked
	k.group.Stop()
	<-gone
}

// BenchmarkRound: ten questions and the server that answers them; what counts
// is the memory, as the time is that of looks.
func BenchmarkRound(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), ReadHeaderTimeout: time.Minute}
	go func() { _ = s.Serve(l) }()
	defer s.Close()
	h := HTTP{Addr: "127.0.0.1", Port: netip.MustParseAddrPort(l.Addr().String()).Port()}
	r := NewRounds()
	b.ReportAllocs()
	for b.Loop() {
		var wg sync.WaitGroup
		for range 10 {
			wg.Add(1)
			g := &Group{cfg: Config{Rounds: r, Report: func(r Report) {
				if !r.OK {
					b.Error(r.Output)
				}
				wg.Done()
			}}}
			g.ctx, g.cancel = context.WithCancel(b.Context())
			defer g.Stop()
			k := &task{group: g, state: health.NewThreshold(1, 1, time.Now()), Probe: Probe{Timeout: time.Minute, Period: time.Hour, Quick: QuickHTTP(h), Ask: h.Get}}
			g.mu.Lock()
			g.tasks = []*task{k}
			r.add(k, r.base)
			g.mu.Unlock()
		}
		wg.Wait()
	}
}
