package gateway

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/fingerpost/fingerpost/view/gateway/cluster"
	"github.com/fingerpost/fingerpost/view/gateway/route"
)

// mischief is what an endpoint does instead of answering.
type mischief int

const (
	honest      mischief = iota
	atAccept             // ends the connection before a byte was read
	resetAccept          // the same, with a reset
	afterRead            // reads the request and ends the connection
	resetRead            // the same, with a reset
	halfHead             // breaks off in the head of the response
	resetHead            // the same, with a reset
	idleClose            // answers, and closes the connection that was to be kept
	idleReset
)

// hostile are endpoints that misbehave when they are told to.
type hostile struct {
	mu   sync.Mutex
	rnd  *rand.Rand
	left int            // how often one request may yet be lost
	read map[string]int // how often a request was read, by its path
}

// next chooses the mischief of a moment: which ones are possible then. One that
// loses a request is counted.
func (h *hostile) next(of ...mischief) mischief {
	h.mu.Lock()
	defer h.mu.Unlock()
	m := of[h.rnd.IntN(len(of))]
	if m == honest || m == idleClose || m == idleReset {
		return m
	}
	if h.left == 0 {
		return honest
	}
	h.left--
	return m
}

func (h *hostile) serve(w *wire, _ int) {
	reset := func() {
		_ = w.Conn.(*net.TCPConn).SetLinger(0)
		w.Conn.Close()
	}
	switch h.next(honest, honest, atAccept, resetAccept) {
	case atAccept:
		return
	case resetAccept:
		reset()
		return
	}
	for {
		req, err := http.ReadRequest(w.r)
		if err != nil {
			return
		}
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			return
		}
		h.mu.Lock()
		h.read[req.URL.Path]++
		h.mu.Unlock()
		m := h.next(honest, honest, honest, afterRead, resetRead, halfHead, resetHead, idleClose, idleReset)
		switch m {
		case afterRead:
			return
		case resetRead:
			reset()
			return
		case halfHead, resetHead:
			_, _ = io.WriteString(w.Conn, "HTTP/1.1 200 OK\r\nContent-Le")
			if m == resetHead {
				reset()
			}
			return
		}
		if _, err := fmt.Fprint(w.Conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"); err != nil {
			return
		}
		switch m {
		case idleClose:
			return
		case idleReset:
			reset()
			return
		}
	}
}

// TestHostile: endpoints end connections at every moment. A GET that is lost twice
// at most is answered, as it would be by nginx, which asks three times; and no POST
// is read twice.
func TestHostile(t *testing.T) {
	for _, n := range []int{1, 3} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			h := &hostile{rnd: rand.New(rand.NewPCG(7, uint64(n))), read: map[string]int{}}
			var eps []*endpoint
			for range n {
				eps = append(eps, newEndpoint(t, h.serve))
			}
			// Each request is lost on purpose: no budget would allow for that.
			cfg := Config{Cluster: cluster.Config{RetryPercent: 100_000, RetryPerSecond: 100_000}}
			r := newRig(t, cfg, policy(), eps...)
			c := r.client()
			lost := 0
			for i := range 1500 {
				h.mu.Lock()
				h.left = 2
				h.mu.Unlock()
				path := fmt.Sprintf("/%d", i)
				switch i % 3 {
				case 0:
					c.send("POST " + path + " HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
				case 1:
					c.send("PUT " + path + " HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
				default:
					c.send("GET " + path + " HTTP/1.1\r\nHost: a\r\n\r\n")
				}
				head, _ := c.response()
				ok := strings.HasPrefix(head, "HTTP/1.1 200 ")
				if !ok && (i%3 != 0 || !strings.HasPrefix(head, "HTTP/1.1 502 ")) {
					t.Fatalf("request %d: %s", i, head)
				}
				h.mu.Lock()
				times := h.read[path]
				h.mu.Unlock()
				if i%3 == 0 {
					if !ok {
						lost++
					}
					if times > 1 || ok && times == 0 {
						t.Errorf("a POST was read %d times", times)
					}
				}
			}
			t.Logf("%d of 500 POSTs were lost", lost)
		})
	}
}

// refusing refuses the first connections.
func refusing(first *atomic.Int64) func(context.Context, netip.AddrPort, *cluster.TLS) (net.Conn, error) {
	return func(ctx context.Context, addr netip.AddrPort, _ *cluster.TLS) (net.Conn, error) {
		if first.Add(-1) >= 0 {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
		}
		var d net.Dialer
		return d.DialContext(ctx, "tcp", addr.String())
	}
}

// TestNotYetListening: pods that are called ready before they listen. Requests
// wait for them, whatever their method, and honest fails.
func TestNotYetListening(t *testing.T) {
	for _, n := range []int{1, 3, 20} {
		var eps []*endpoint
		for range n {
			eps = append(eps, newEndpoint(t, hello("there")))
		}
		var refuse atomic.Int64
		// The wait is bounded by the time to connect; here that must not be what ends it.
		r := newRig(t, Config{Timeouts: Timeouts{Connect: time.Minute}, Cluster: cluster.Config{Dial: refusing(&refuse)}}, policy(), eps...)
		for range 3 {
			refuse.Store(24)
			var wg sync.WaitGroup
			for i := range 4 {
				c := r.client()
				wg.Go(func() {
					if i%2 == 0 {
						c.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
					} else {
						c.send("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc")
					}
					if h, err := c.tryHead(); err != nil || !strings.HasPrefix(h, "HTTP/1.1 200 ") {
						t.Errorf("%d endpoints: %q %v", n, h, err)
					}
				})
			}
			wg.Wait()
			r.endpoints() // what was kept is closed
			r.endpoints(eps...)
		}
	}
}

// TestNobodyListens: who has been away for longer than connecting may take is not
// waited for: the answer comes at once, until somebody is there again.
func TestNobodyListens(t *testing.T) {
	var refuse atomic.Int64
	refuse.Store(1 << 40)
	p := policy()
	p.ConnectTimeout = 50 * time.Millisecond
	ep := newEndpoint(t, hello("there"))
	r := newRig(t, Config{Cluster: cluster.Config{Dial: refusing(&refuse)}}, p, ep)
	c := r.client()
	c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").want(502)
	if n := 1<<40 - refuse.Load(); n < 2 {
		t.Errorf("asked %d times, and did not wait", n)
	}
	for range 5 {
		before := refuse.Load()
		c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").want(502)
		if n := before - refuse.Load(); n != 1 {
			t.Errorf("asked %d times", n)
		}
	}
	refuse.Store(0)
	c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").want(200)
	// Endpoints that fail in another way are not waited for.
	broken := func(context.Context, netip.AddrPort, *cluster.TLS) (net.Conn, error) {
		refuse.Add(1)
		return nil, io.ErrUnexpectedEOF
	}
	refuse.Store(0)
	r = newRig(t, Config{Timeouts: Timeouts{Connect: time.Minute}, Cluster: cluster.Config{Dial: broken}}, policy(), ep)
	r.client().send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").want(502)
	if n := refuse.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

// TestStreamReset: an endpoint of HTTP/2 that resets a stream has looked at it, on
// whatever connection.
func TestStreamReset(t *testing.T) {
	var asked, lose atomic.Int32
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		if lose.Add(-1) >= 0 {
			panic(http.ErrAbortHandler)
		}
		_, _ = io.WriteString(w, "ok")
	}), Protocols: new(http.Protocols)}
	srv.Protocols.SetUnencryptedHTTP2(true)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = srv.Serve(l) }()
	defer srv.Close()
	p := policy()
	p.Protocol = route.H2C
	r := newRig(t, Config{}, p, &endpoint{l: l})
	c := r.client()
	c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").want(200)
	for _, x := range []struct {
		method     string
		lost, want int
		asked      int32
	}{{"GET", 2, 200, 3}, {"GET", 9, 502, 3}, {"POST", 1, 502, 1}} {
		asked.Store(0)
		lose.Store(int32(x.lost))
		c.send(x.method + " / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx").want(x.want)
		if n := asked.Load(); n != x.asked {
			t.Errorf("%s, lost %d times: asked %d times, want %d", x.method, x.lost, n, x.asked)
		}
		lose.Store(0)
	}
}
