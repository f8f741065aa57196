package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fingerpost/fingerpost/view/gateway/route"
	"github.com/fingerpost/fingerpost/view/gateway/stream"
)

// many is a codec for tests that carries up to two exchanges at once.
type many struct {
	conn    net.Conn
	mu      sync.Mutex
	streams int
	gone    bool
}

type oneOfMany struct {
	stream.Upstream
	m *many
}

func (m *many) Open() (stream.Upstream, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.gone || m.streams == 2 {
		return nil, stream.ErrRefused
	}
	m.streams++
	return &oneOfMany{m: m}, nil
}

func (m *many) Full() bool { m.mu.Lock(); defer m.mu.Unlock(); return m.streams == 2 }
func (m *many) Gone() bool { m.mu.Lock(); defer m.mu.Unlock(); return m.gone }
func (m *many) Drain() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gone = true
	if m.streams == 0 {
		m.conn.Close()
	}
}

func (o *oneOfMany) Release() {
	o.m.mu.Lock()
	defer o.m.mu.Unlock()
	if o.m.streams--; o.m.gone && o.m.streams == 0 {
		o.m.conn.Close()
	}
}

func newMany(conn net.Conn) (HTTP2, error) { return &many{conn: conn}, nil }

func (w *world) open(e *Endpoint) *oneOfMany {
	w.t.Helper()
	up, err := e.Connect(w.t.Context(), time.Minute)
	if err != nil {
		w.t.Fatal(err)
	}
	return up.(*oneOfMany)
}

func TestSharedConnections(t *testing.T) {
	w := newWorld(t, Config{HTTP2: newMany})
	_, e := w.one(Key{Protocol: route.H2C})
	a, b, c := w.open(e), w.open(e), w.open(e)
	if a.m != b.m || a.m == c.m {
		t.Error("two fit on a connection, and not three")
	}
	a.Release()
	c.m.gone = true // GOAWAY
	if d := w.open(e); d.m != a.m {
		t.Error("the room on the first connection is not used")
	}
	if s := e.Stats(); s.Open != 1 || s.Connections != 1 {
		t.Errorf("stats %+v", s)
	}
}

// TestOneOpensForAll: many exchanges that begin at once do not open a
// connection each.
func TestOneOpensForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Config{HTTP2: newMany})
		dial := w.set.cfg.Dial
		w.set.cfg.Dial = func(ctx context.Context, a netip.AddrPort, x *TLS) (net.Conn, error) {
			time.Sleep(time.Second)
			return dial(ctx, a, x)
		}
		_, e := w.one(Key{Protocol: route.H2C})
		var wg sync.WaitGroup
		for range 6 {
			wg.Go(func() {
				if _, err := e.Connect(t.Context(), 10*time.Second); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := w.pipes.count(); n != 3 {
			t.Errorf("%d connections for 6 exchanges of which two fit on each", n)
		}
		if _, err := e.Connect(t.Context(), time.Millisecond); err != nil {
			t.Error(err) // the fake dialer does not look at the time
		}
	})
}

// TestWaitingEnds: those who wait for another's connection have their own time,
// and one that gives up takes nobody with it.
func TestWaitingEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Config{HTTP2: newMany, Dial: func(ctx context.Context, _ netip.AddrPort, _ *TLS) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}})
		_, e := w.one(Key{Protocol: route.H2C})
		left, leave := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		try := func(ctx context.Context, within, want time.Duration, why error) {
			wg.Go(func() {
				start := time.Now()
				_, err := e.Connect(ctx, within)
				if d := time.Since(start); !errors.Is(err, why) || d != want {
					t.Errorf("within %v: %v after %v, want after %v", within, err, d, want)
				}
			})
			synctest.Wait()
		}
		try(left, 10*time.Second, time.Second, context.Canceled)
		try(context.Background(), 12*time.Second, 12*time.Second, context.DeadlineExceeded)
		try(context.Background(), 2*time.Second, 2*time.Second, context.DeadlineExceeded)
		time.Sleep(time.Second)
		leave()
		synctest.Wait()
		try(context.Background(), 20*time.Second, 20*time.Second, context.DeadlineExceeded)
		wg.Wait()
		if s := e.Stats(); s.Open != 0 {
			t.Errorf("stats %+v", s)
		}
	})
}

// TestRefusalIsShared: who waits for a connection that is refused learns it at
// once, and does not ask the endpoint again.
func TestRefusalIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dials := 0
		w := newWorld(t, Config{HTTP2: newMany, Dial: func(context.Context, netip.AddrPort, *TLS) (net.Conn, error) {
			dials++
			time.Sleep(time.Second)
			return nil, syscall.ECONNREFUSED
		}})
		_, e := w.one(Key{Protocol: route.H2C})
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if _, err := e.Connect(context.Background(), time.Minute); !errors.Is(err, syscall.ECONNREFUSED) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if dials != 1 {
			t.Errorf("%d connections were tried", dials)
		}
	})
}

func TestSharedAreDrained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Config{HTTP2: newMany})
		_, e := w.one(Key{Protocol: route.H2C})
		a := w.open(e)
		w.endpoints(2)
		if w.pipes.gone() != 0 {
			t.Error("the exchange under way was broken")
		}
		a.Release()
		if w.pipes.gone() != 1 {
			t.Error("its connection stays")
		}
		_, e = w.one(Key{Protocol: route.H2C})
		defer w.run()()
		w.open(e).Release()
		time.Sleep(70 * time.Second)
		if s := e.Stats(); w.pipes.gone() != 2 || s.Open != 0 {
			t.Errorf("an idle connection stays: %+v", s)
		}
	})
}

// agreeing is a connection whose TLS agreed on a protocol.
type agreeing struct {
	net.Conn
	protocol string
}

func (a agreeing) ConnectionState() tls.ConnectionState {
	return tls.ConnectionState{NegotiatedProtocol: a.protocol}
}

func TestAgreedProtocol(t *testing.T) {
	w := newWorld(t, Config{HTTP2: newMany})
	var asked *TLS
	protocol := "h2"
	dial := w.set.cfg.Dial
	w.set.cfg.Dial = func(ctx context.Context, a netip.AddrPort, x *TLS) (net.Conn, error) {
		asked = x
		c, err := dial(ctx, a, x)
		return agreeing{c, protocol}, err
	}
	params := &route.EndpointTLS{ServerName: "web"}
	_, e := w.one(Key{Protocol: route.HTTPS, TLS: params})
	a, b := w.open(e), w.open(e)
	if a.m != b.m {
		t.Error("HTTP/2 was agreed on, and the connection is not shared")
	}
	if asked == nil || asked.Endpoint != params || len(asked.Protocols) != 2 {
		t.Errorf("asked for %+v", asked)
	}
	protocol = "http/1.1"
	l := w.connect(e)
	l.Release()
	if m := w.connect(e); m != l {
		t.Error("after it was agreed on HTTP/1.1, a kept connection is not used")
	}

	_, e = w.one(Key{Protocol: route.H2})
	if _, err := e.Connect(t.Context(), 0); err == nil || e.Stats().Open != 0 {
		t.Errorf("HTTP/2 was not agreed on: %v, %+v", err, e.Stats())
	}
}
