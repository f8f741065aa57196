package cluster

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fingerpost/fingerpost/balance"
	"github.com/fingerpost/fingerpost/catalog"
)

// one is the only endpoint of a world's service.
func (w *world) one(k Key) (*Cluster, *Endpoint) {
	w.t.Helper()
	w.service()
	w.endpoints(1)
	k.Service, k.Port = webKey, "http"
	c := w.set.Get(k)
	return c, c.Endpoints()[0]
}

// run runs the Set until the end of the test.
func (w *world) run() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := w.set.Run(ctx); !errors.Is(err, context.Canceled) {
			w.t.Errorf("Run: %v", err)
		}
	}()
	return func() { cancel(); <-done }
}

func TestConnectionsAreUsedAgain(t *testing.T) {
	w := newWorld(t, Config{})
	_, e := w.one(Key{})
	a := w.connect(e)
	b := w.connect(e)
	if a == b || !a.Fresh() || !b.Fresh() {
		t.Fatal("two exchanges share a connection")
	}
	a.Release()
	b.Release()
	if c := w.connect(e); c != b || c.Fresh() {
		t.Error("the connection used last is not taken")
	}
	if s := e.Stats(); s.Idle != 1 || s.Open != 2 {
		t.Errorf("stats %+v", s)
	}
	b.Abort(nil)
	if s := e.Stats(); s.Idle != 1 || s.Open != 1 {
		t.Errorf("stats %+v", s)
	}
}

func TestPoolIsBounded(t *testing.T) {
	w := newWorld(t, Config{MaxIdle: 3, MaxConnections: 5})
	_, e := w.one(Key{})
	var open []*line
	for range 5 {
		open = append(open, w.connect(e))
	}
	if _, err := e.Connect(t.Context(), 0); !errors.Is(err, ErrFull) {
		t.Errorf("the sixth connection: %v", err)
	}
	closed := 0
	for _, l := range open {
		l.Release()
		if l.closed.Load() {
			closed++
		}
	}
	if s := e.Stats(); closed != 2 || s.Idle != 3 || s.Open != 3 {
		t.Errorf("%d closed, stats %+v", closed, s)
	}
}

func TestIdleConnectionsAreClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Config{IdleTimeout: time.Minute})
		_, e := w.one(Key{})
		defer w.run()()
		a, b := w.connect(e), w.connect(e)
		a.Release()
		time.Sleep(40 * time.Second)
		b.Release()
		if a.closed.Load() {
			t.Error("closed too early")
		}
		time.Sleep(26 * time.Second)
		if !a.closed.Load() || b.closed.Load() {
			t.Errorf("after 66s and 26s: closed %v, %v", a.closed.Load(), b.closed.Load())
		}
		time.Sleep(40 * time.Second)
		if s := e.Stats(); !b.closed.Load() || s.Open != 0 || w.pipes.gone() != 2 {
			t.Errorf("stats %+v, %d gone", s, w.pipes.gone())
		}
	})
}

func TestRunEndsWithAllIdleClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Config{})
		_, e := w.one(Key{})
		stop := w.run()
		l := w.connect(e)
		l.Release()
		stop()
		if !l.closed.Load() {
			t.Error("a connection is left")
		}
	})
}

// TestRemoved: idle connections go at once, those in use when they are done.
func TestRemoved(t *testing.T) {
	w := newWorld(t, Config{})
	c, e := w.one(Key{})
	idle, used := w.connect(e), w.connect(e)
	idle.Release()
	w.endpoints(2)
	if !idle.closed.Load() || used.closed.Load() {
		t.Errorf("closed: the idle one %v, the used one %v", idle.closed.Load(), used.closed.Load())
	}
	used.Release()
	if !used.closed.Load() {
		t.Error("the used one was kept")
	}
	if s := e.Stats(); s.Open != 0 || s.Idle != 0 {
		t.Errorf("stats %+v", s)
	}
	if p := w.pick(c, Query{}); p == e {
		t.Error("it is still picked")
	}
	if _, err := e.Connect(t.Context(), 0); !errors.Is(err, ErrRemoved) {
		t.Errorf("connecting to it: %v", err)
	}
}

// server answers lines over TCP.
type server struct {
	l        net.Listener
	mu       sync.Mutex
	conns    map[net.Conn]bool
	accepted atomic.Int32
}

func serve(t *testing.T) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{l: l, conns: map[net.Conn]bool{}}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.accepted.Add(1)
			s.mu.Lock()
			s.conns[c] = true
			s.mu.Unlock()
			wg.Go(func() {
				defer c.Close()
				r := bufio.NewReader(c)
				for {
					if _, err := r.ReadString('\n'); err != nil {
						return
					}
					if _, err := c.Write([]byte("ok\n")); err != nil {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() { l.Close(); s.drop(); wg.Wait() })
	return s
}

func (s *server) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.Close()
	}
	clear(s.conns)
}

func (s *server) endpoint() catalog.Endpoint {
	addr := s.l.Addr().(*net.TCPAddr).AddrPort()
	e := ready(1)
	e.Addr, e.Ports[0].Port = addr.Addr(), addr.Port()
	return e
}

// TestClosedByTheEndpoint: a kept connection that the endpoint closed, or on
// which it sent something nobody asked for, is not used again.
func TestClosedByTheEndpoint(t *testing.T) {
	s := serve(t)
	w := newWorld(t, Config{Dial: dialPlain, CheckAfter: 1})
	w.service()
	w.update(func(tx *catalog.Txn) { tx.PutEndpoints(webKey, []catalog.Endpoint{s.endpoint()}) })
	e := w.set.Get(Key{Service: webKey}).Endpoints()[0]
	ask := func(l *line) {
		t.Helper()
		if got, err := l.ask("hello"); err != nil || got != "ok\n" {
			t.Fatalf("%q, %v", got, err)
		}
	}
	a := w.connect(e)
	ask(a)
	a.Release()
	b := w.connect(e)
	if b != a {
		t.Fatal("an idle connection that is alive was not used")
	}
	ask(b)
	s.drop()
	// The peer's close has arrived when reading says so.
	if _, err := b.r.Peek(1); err == nil {
		t.Fatal("not closed")
	}
	b.Release()
	c := w.connect(e)
	if c == b || !c.Fresh() || !b.closed.Load() {
		t.Error("a connection that the endpoint had closed was used")
	}
	ask(c)
	// An unasked answer: two requests, one read.
	if _, err := c.conn.Write([]byte("one\ntwo\n")); err != nil {
		t.Fatal(err)
	}
	one := make([]byte, 3)
	if _, err := c.conn.Read(one); err != nil {
		t.Fatal(err)
	}
	waitReadable(t, c.conn)
	c.Release()
	if d := w.connect(e); d == c {
		t.Error("a connection with an unasked answer was used")
	} else {
		ask(d)
		d.Abort(nil)
	}
	if st := e.Stats(); st.Open != 0 || s.accepted.Load() != 3 {
		t.Errorf("stats %+v, %d accepted", st, s.accepted.Load())
	}
	// The sweep finds dead ones too.
	f := w.connect(e)
	ask(f)
	s.drop()
	if _, err := f.r.Peek(1); err == nil {
		t.Fatal("not closed")
	}
	f.Release()
	e.sweep(w.set.now() + time.Second)
	if st := e.Stats(); st.Open != 0 || !f.closed.Load() {
		t.Errorf("after the sweep: %+v", st)
	}
}

// waitReadable waits until there is something to read, without reading it.
func waitReadable(t *testing.T, c net.Conn) {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	p := newProbe(c)
	if err := raw.Read(func(uintptr) bool { return !p.alive() }); err != nil {
		t.Fatal(err)
	}
}

func TestAlert(t *testing.T) {
	for _, tc := range []struct {
		head []byte
		want bool
	}{
		{[]byte{21, 3, 3, 0, 2}, true},    // an alert in the clear, or of TLS 1.2
		{[]byte{21}, true},                //
		{[]byte{23, 3, 3, 0, 19}, true},   // one of TLS 1.3
		{[]byte{23, 3, 3, 0, 150}, false}, // a ticket
		{[]byte{23, 3, 3, 1, 10}, false},  //
		{[]byte{22, 3, 3, 0, 4}, false},   // a handshake message
	} {
		if got := alert(tc.head); got != tc.want {
			t.Errorf("% x: %v", tc.head, got)
		}
	}
}

// TestChurn: endpoints come and go while many pick and connect. Nobody gets one
// that was gone before the pick began, and in the end nothing is left open.
func TestChurn(t *testing.T) {
	for _, a := range []balance.Algorithm{balance.TwoRandom, balance.InTurn, balance.LeastRequest, balance.EWMA, balance.RingHash, balance.Maglev} {
		t.Run(a.String(), func(t *testing.T) { churn(t, a) })
	}
}

func churn(t *testing.T, a balance.Algorithm) {
	w := newWorld(t, Config{CheckAfter: 1, SlowStart: 20 * time.Millisecond})
	w.service()
	w.endpoints(0, 1)
	c := w.set.Get(Key{Service: webKey, Port: "http", Balance: Balance{Algorithm: a}})
	const n = 16
	var clock atomic.Int64
	var gone [n]atomic.Int64 // when it went; 0: it is there
	for i := 2; i < n; i++ {
		gone[i].Store(1)
	}
	clock.Store(2)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for g := range 4 {
		wg.Go(func() {
			for k := uint64(0); ; k++ {
				select {
				case <-stop:
					return
				default:
				}
				began := clock.Load()
				e, problem := c.Pick(&Query{Hash: k * 7919})
				if problem != "" {
					t.Errorf("problem %q, though there is always one endpoint", problem)
					return
				}
				i := e.Addr().Addr().As4()[3]
				if at := gone[i].Load(); at != 0 && at < began {
					t.Errorf("endpoint %d went at %d, and was picked after %d", i, at, began)
					e.Done(Outcome{})
					return
				}
				up, err := e.Connect(context.Background(), 0)
				if errors.Is(err, ErrRemoved) {
					e.Done(Outcome{})
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				switch k % 16 {
				case 0:
					up.Abort(nil)
					e.Done(Outcome{Result: balance.Failure})
				case 1:
					up.Release()
					e.Done(Outcome{Result: balance.Success, Status: 503})
				default:
					up.Release()
					e.Done(Outcome{Result: balance.Success, Status: 200, Latency: time.Duration(g) * time.Millisecond})
				}
			}
		})
	}
	state := uint64(12345)
	for range 300 {
		state = state*6364136223846793005 + 1442695040888963407
		var numbers []int
		for i := range n {
			if i == 0 || state>>(20+i)&1 == 1 {
				numbers = append(numbers, i)
				gone[i].Store(0) // may be picked from the Apply on
			}
		}
		w.endpoints(numbers...)
		now := clock.Add(1)
		for i := range n {
			if i != 0 && state>>(20+i)&1 == 0 && gone[i].Load() == 0 {
				gone[i].Store(now) // may not be picked by whoever reads a later time
			}
		}
		clock.Add(1)
	}
	close(stop)
	wg.Wait()
	last := c.Endpoints()
	w.set.Keep(func(Key) bool { return false })
	for _, e := range last {
		if s := e.Stats(); s.Open != 0 || s.Idle != 0 || s.Active != 0 {
			t.Errorf("%v: %+v is left", e.Addr(), s)
		}
	}
	if dials, gone := w.pipes.count(), w.pipes.gone(); dials != gone {
		t.Errorf("%d connections were opened, %d closed", dials, gone)
	}
}

func TestConnectFails(t *testing.T) {
	w := newWorld(t, Config{})
	_, e := w.one(Key{})
	w.pipes.err = errors.New("connection refused")
	if _, err := e.Connect(t.Context(), time.Minute); err == nil || e.Stats().Open != 0 || e.Stats().Ejected == 0 {
		t.Errorf("%v, stats %+v", err, e.Stats())
	}
	if _, err := e.Dial(t.Context(), time.Minute); err == nil || e.Stats().Open != 0 {
		t.Errorf("%v, stats %+v", err, e.Stats())
	}
	w.pipes.err = nil
	c, err := e.Dial(t.Context(), time.Minute)
	if err != nil || e.Stats().Open != 0 || e.Stats().Ejected != 0 {
		t.Errorf("%v, stats %+v", err, e.Stats())
	}
	c.Close()
}

// TestConnectTimeOut: the time given is that of opening, not of the exchange.
func TestConnectTimeOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Config{Dial: func(ctx context.Context, _ netip.AddrPort, _ *TLS) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}})
		_, e := w.one(Key{})
		start := time.Now()
		_, err := e.Connect(context.Background(), 3*time.Second)
		if d := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || d != 3*time.Second {
			t.Errorf("%v after %v", err, d)
		}
	})
}

func BenchmarkKept(b *testing.B) {
	for _, check := range []struct {
		name  string
		after time.Duration
	}{{"fast", time.Hour}, {"looked at", 1}} {
		b.Run(check.name, func(b *testing.B) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			set, err := New(Config{HTTP1: newLine, CheckAfter: check.after})
			if err != nil {
				b.Fatal(err)
			}
			c := set.Get(Key{External: l.Addr().String()})
			defer set.Keep(func(Key) bool { return false })
			e := c.Endpoints()[0]
			ctx := context.Background()
			up, err := e.Connect(ctx, time.Second)
			if err != nil {
				b.Fatal(err)
			}
			up.Release()
			b.ReportAllocs()
			for b.Loop() {
				up, err := e.Connect(ctx, time.Second)
				if err != nil {
					b.Fatal(err)
				}
				up.Release()
			}
		})
	}
}
