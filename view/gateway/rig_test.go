package gateway

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/gateway/route"
)

// patience is how long anything may take before a test gives up. It is long
// because machines that run tests are busy; nothing waits for it to pass.
const patience = 2 * time.Minute

// rig is an engine with one service, default/web, on real sockets.
type rig struct {
	t    testing.TB
	e    *Engine
	cat  *catalog.Catalog
	addr string
	stop func() // and wait
}

var web = catalog.Key{Namespace: "default", Name: "web"}

func policy() *route.Policy { return &route.Policy{Retry: route.Retry{Reset: true}} }

// everything sends all requests to default/web.
func everything(p *route.Policy) route.Update {
	return route.Update{Replace: true, Hosts: map[string]*route.Host{"": {Rules: []route.Rule{{
		Path: route.Path{Value: "/"}, Backends: []route.Backend{{Service: web, Port: "80"}}, Policy: p,
	}}}}}
}

func newRig(t testing.TB, cfg Config, p *route.Policy, endpoints ...*endpoint) *rig {
	t.Helper()
	if cfg.Listeners == nil {
		cfg.Listeners = []Listener{{Addr: "127.0.0.1:0"}}
	}
	if cfg.Timeouts.Drain == 0 {
		cfg.Timeouts.Drain = 5 * time.Second
	}
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, e: e, cat: catalog.New(nil)}
	r.endpoints(endpoints...)
	if p != nil {
		e.SetRoutes(everything(p))
	}
	if err := e.Listen(); err != nil {
		t.Fatal(err)
	}
	r.addr = e.Addrs()[0].String()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = e.Run(ctx) }()
	r.stop = func() { cancel(); <-done }
	t.Cleanup(r.stop)
	return r
}

// endpoints makes these the endpoints of default/web.
func (r *rig) endpoints(endpoints ...*endpoint) {
	r.t.Helper()
	before := r.cat.Snapshot()
	r.cat.Update(func(t *catalog.Txn) {
		t.PutService(&catalog.Service{Key: web, Type: catalog.ClusterIP, Ports: []catalog.Port{{Name: "http", Protocol: catalog.TCP, Port: 80, Target: "80"}}})
		var list []catalog.Endpoint
		for _, e := range endpoints {
			ap := e.addr()
			list = append(list, catalog.Endpoint{
				Addr: ap.Addr(), Ports: []catalog.EndpointPort{{Name: "http", Protocol: catalog.TCP, Port: ap.Port()}}, Ready: true, Serving: true, Weight: 100,
			})
		}
		t.PutEndpoints(web, list)
		t.SetFreshness(catalog.Freshness{Synced: true})
	})
	b := catalog.Batch{Snapshot: r.cat.Snapshot(), Changes: []catalog.Change{{Key: web, Old: before.Get(web), New: r.cat.Snapshot().Get(web)}}}
	if err := r.e.Apply(r.t.Context(), b); err != nil {
		r.t.Fatal(err)
	}
}

// client opens a raw connection to the gateway.
func (r *rig) client() *wire {
	r.t.Helper()
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	return newWire(r.t, c)
}

// wire is a connection that a test drives by hand.
type wire struct {
	t testing.TB
	net.Conn
	r *bufio.Reader
}

func newWire(t testing.TB, c net.Conn) *wire {
	_ = c.SetDeadline(time.Now().Add(patience))
	return &wire{t, c, bufio.NewReaderSize(c, 64<<10)}
}

func (w *wire) send(s string) *wire {
	w.t.Helper()
	if _, err := io.WriteString(w.Conn, s); err != nil {
		w.t.Fatalf("write: %v", err)
	}
	return w
}

// head reads up to the empty line, which it leaves out.
func (w *wire) head() string {
	w.t.Helper()
	h, err := w.tryHead()
	if err != nil {
		w.t.Fatalf("head: %v after %q", err, h)
	}
	return h
}

func (w *wire) tryHead() (string, error) {
	var b strings.Builder
	for {
		l, err := w.r.ReadString('\n')
		if err != nil {
			return b.String() + l, err
		}
		if l == "\r\n" {
			return b.String(), nil
		}
		b.WriteString(l)
	}
}

func (w *wire) body(n int) string {
	w.t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(w.r, b); err != nil {
		w.t.Fatalf("body: %v", err)
	}
	return string(b)
}

// response reads a head and a counted body.
func (w *wire) response() (head, body string) {
	w.t.Helper()
	head = w.head()
	n := 0
	for _, l := range strings.Split(head, "\r\n") {
		if v, ok := strings.CutPrefix(strings.ToLower(l), "content-length: "); ok {
			fmt.Sscan(v, &n)
		}
	}
	return head, w.body(n)
}

// want checks that a response has a status.
func (w *wire) want(status int) (head, body string) {
	w.t.Helper()
	head, body = w.response()
	if !strings.HasPrefix(head, fmt.Sprintf("HTTP/1.1 %d ", status)) {
		w.t.Fatalf("status: want %d, got %q", status, head)
	}
	return head, body
}

// closed checks that nothing follows. how: the error at the end, io.EOF or another.
func (w *wire) closed() error {
	w.t.Helper()
	b, err := io.ReadAll(w.r)
	if len(b) > 0 {
		w.t.Fatalf("more came: %q", b)
	}
	if err != nil && errors.Is(err, context.DeadlineExceeded) {
		w.t.Fatal("the connection stays open")
	}
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		w.t.Fatal("the connection stays open")
	}
	return err
}

// endpoint is a server that a test scripts: each connection runs the handler
// with its number.
type endpoint struct {
	l      net.Listener
	conns  atomic.Int32
	wg     sync.WaitGroup
	mu     sync.Mutex
	open   map[net.Conn]bool
	ended  bool
	handle func(w *wire, n int)
}

func newEndpoint(t testing.TB, handle func(w *wire, n int)) *endpoint {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := &endpoint{l: l, handle: handle, open: map[net.Conn]bool{}}
	e.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			e.mu.Lock()
			if e.ended {
				e.mu.Unlock()
				c.Close()
				return
			}
			e.open[c] = true
			e.mu.Unlock()
			n := int(e.conns.Add(1))
			e.wg.Go(func() {
				defer c.Close()
				handle(newWire(t, c), n)
			})
		}
	})
	t.Cleanup(e.kill)
	return e
}

// kill ends the endpoint as SIGKILL would.
func (e *endpoint) kill() {
	e.l.Close()
	e.mu.Lock()
	e.ended = true
	for c := range e.open {
		c.(*net.TCPConn).SetLinger(0)
		c.Close()
	}
	e.mu.Unlock()
	e.wg.Wait()
}

// deadEndpoint has an address that refuses connections, and that nobody else gets
// meanwhile: the local end of a connection.
func deadEndpoint(t testing.TB) *endpoint {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); l.Close() })
	return &endpoint{l: elsewhere{l, c.LocalAddr()}}
}

type elsewhere struct {
	net.Listener
	at net.Addr
}

func (e elsewhere) Addr() net.Addr { return e.at }

func (e *endpoint) addr() netip.AddrPort { return e.l.Addr().(*net.TCPAddr).AddrPort() }

// hello answers every request with its text and the endpoint's name.
func hello(name string) func(w *wire, n int) {
	return func(w *wire, _ int) {
		for {
			h, err := w.tryHead()
			if err != nil {
				return
			}
			if n := lengthOf(h); n > 0 {
				if _, err := io.CopyN(io.Discard, w.r, int64(n)); err != nil {
					return
				}
			}
			if _, err := fmt.Fprintf(w.Conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(name), name); err != nil {
				return
			}
		}
	}
}

func lengthOf(head string) (n int) {
	for _, l := range strings.Split(head, "\r\n") {
		if v, ok := strings.CutPrefix(strings.ToLower(l), "content-length: "); ok {
			fmt.Sscan(v, &n)
		}
	}
	return n
}

// settled waits until no goroutine beyond these is left.
func settled(t *testing.T, before int) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for runtime.NumGoroutine() > before {
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
		}
		runtime.Gosched()
	}
}
