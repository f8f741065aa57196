package cluster

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/fingerpost/fingerpost/balance"
	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/gateway/stream"
)

// line is a codec for tests: a request is a line, and so is a response.
type line struct {
	stream.Upstream
	conn   net.Conn
	r      *bufio.Reader
	slot   *Slot
	kept   bool
	closed atomic.Bool
}

func newLine(conn net.Conn, slot *Slot) HTTP1 {
	return &line{conn: conn, r: bufio.NewReader(conn), slot: slot}
}

func (l *line) Open(kept bool) stream.Upstream { l.kept = kept; return l }
func (l *line) Fresh() bool                    { return !l.kept }
func (l *line) Close() error                   { l.closed.Store(true); return l.conn.Close() }
func (l *line) Release()                       { l.slot.Keep() }
func (l *line) Abort(error)                    { l.Close(); l.slot.Drop() }

func (l *line) ask(text string) (string, error) {
	if _, err := l.conn.Write([]byte(text + "\n")); err != nil {
		return "", err
	}
	return l.r.ReadString('\n')
}

// pipes dials connections within the process.
type pipes struct {
	mu    sync.Mutex
	peers []net.Conn
	dials []netip.AddrPort
	err   error
}

func (p *pipes) dial(_ context.Context, addr netip.AddrPort, _ *TLS) (net.Conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dials = append(p.dials, addr)
	if p.err != nil {
		return nil, p.err
	}
	a, b := net.Pipe()
	p.peers = append(p.peers, b)
	return a, nil
}

func (p *pipes) refuse(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = err
}

func (p *pipes) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.dials)
}

// gone says how many connections the other side has seen closed.
func (p *pipes) gone() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.peers {
		c.SetReadDeadline(time.Now().Add(-time.Second))
		if _, err := c.Read(make([]byte, 1)); err != nil && !isTimeout(err) {
			n++
		}
	}
	return n
}

func isTimeout(err error) bool {
	e, ok := err.(net.Error)
	return ok && e.Timeout()
}

// world is a catalog with a Set that follows it.
type world struct {
	t       testing.TB
	catalog *catalog.Catalog
	sub     *catalog.Subscription
	set     *Set
	pipes   *pipes
}

func newWorld(t testing.TB, cfg Config) *world {
	t.Helper()
	w := &world{t: t, catalog: catalog.New(nil), pipes: &pipes{}}
	if cfg.HTTP1 == nil {
		cfg.HTTP1 = newLine
	}
	if cfg.Dial == nil {
		cfg.Dial = w.pipes.dial
	}
	var err error
	if w.set, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	w.catalog.Update(func(tx *catalog.Txn) { tx.SetFreshness(catalog.Freshness{Synced: true}) })
	w.sub = w.catalog.Subscribe()
	t.Cleanup(w.sub.Close)
	t.Cleanup(func() { w.set.Keep(func(Key) bool { return false }) })
	w.apply()
	return w
}

func (w *world) apply() {
	w.t.Helper()
	if err := w.set.Apply(context.Background(), w.sub.TryNext()); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) update(f func(*catalog.Txn)) {
	w.t.Helper()
	w.catalog.Update(f)
	w.apply()
}

var webKey = catalog.Key{Namespace: "default", Name: "web"}

func (w *world) service(ports ...catalog.Port) {
	w.t.Helper()
	if ports == nil {
		ports = []catalog.Port{{Name: "http", Protocol: catalog.TCP, Port: 80}}
	}
	w.update(func(tx *catalog.Txn) {
		tx.PutService(&catalog.Service{Key: webKey, Type: catalog.ClusterIP, Ports: ports})
	})
}

// endpoints makes the service's endpoints those at 10.0.0.N:8080.
func (w *world) endpoints(numbers ...int) {
	w.t.Helper()
	var eps []catalog.Endpoint
	for _, n := range numbers {
		eps = append(eps, ready(n))
	}
	w.update(func(tx *catalog.Txn) { tx.PutEndpoints(webKey, eps) })
}

func ready(n int) catalog.Endpoint {
	return catalog.Endpoint{
		Addr: netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}), Ready: true, Serving: true, Weight: 100,
		Ports: []catalog.EndpointPort{{Name: "http", Protocol: catalog.TCP, Port: 8080}},
	}
}

func (w *world) pick(c *Cluster, q Query) *Endpoint {
	w.t.Helper()
	e, problem := c.Pick(&q)
	if problem != "" {
		w.t.Fatalf("no endpoint: %s", problem)
	}
	return e
}

func (w *world) connect(e *Endpoint) *line {
	w.t.Helper()
	up, err := e.Connect(w.t.Context(), time.Minute)
	if err != nil {
		w.t.Fatal(err)
	}
	return up.(*line)
}

// fail lets a picked endpoint refuse a connection.
func (w *world) fail(e *Endpoint) {
	w.t.Helper()
	w.pipes.refuse(syscall.ECONNREFUSED)
	_, err := e.Connect(context.Background(), time.Minute)
	w.pipes.refuse(nil)
	if !errors.Is(err, syscall.ECONNREFUSED) {
		w.t.Fatalf("connecting: %v", err)
	}
	e.Done(Outcome{Result: balance.Failure})
}

func good(e *Endpoint) { e.Done(Outcome{Result: balance.Success, Status: 200}) }
