//go:build linux

package socket

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// polled gives both ends of a TCP connection, one of a Poller.
func polled(t testing.TB) (*Poller, *Conn, net.Conn) {
	t.Helper()
	p, err := NewPoller()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := p.Dial(t.Context(), l.Addr().(*net.TCPAddr).AddrPort())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); b.Close() })
	return p, c, b
}

func TestPolledWaits(t *testing.T) {
	_, c, peer := polled(t)
	go func() { _, _ = peer.Write([]byte("hello")) }()
	b, n, err := c.ReadBuffer(Small)
	if err != nil || string(b.B[:n]) != "hello" {
		t.Fatalf("%d %v", n, err)
	}
	b.Put()
	buf := make([]byte, 10)
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := c.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("deadline: %v", err)
	}
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	_ = c.SetReadDeadline(time.Now().Add(time.Hour))
	go func() { <-time.After(30 * time.Millisecond); _, _ = peer.Write([]byte("x")) }()
	if _, err := c.Read(buf); err != nil {
		t.Fatalf("moved: %v", err)
	}
	go func() { <-time.After(10 * time.Millisecond); _ = c.SetReadDeadline(time.Unix(1, 0)) }()
	if _, err := c.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("meanwhile: %v", err)
	}
	_ = c.SetReadDeadline(time.Time{})
	// More than the kernel takes at once.
	big := bytes.Repeat([]byte("abcdefgh"), 1<<20)
	got := make(chan []byte)
	go func() { b, _ := io.ReadAll(peer); got <- b }()
	if n, err := c.WriteBoth(big[:100], big[100:]); n != len(big) || err != nil {
		t.Fatalf("%d %v", n, err)
	}
	_ = c.CloseWrite()
	if !bytes.Equal(<-got, big) {
		t.Error("what came is not what was written")
	}
	go func() { <-time.After(10 * time.Millisecond); c.Close() }()
	if _, err := c.Read(buf); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed meanwhile: %v", err)
	}
}

// TestAskAfterEnd: the end that came while nobody waited is seen at once.
func TestAskAfterEnd(t *testing.T) {
	_, c, peer := polled(t)
	for range 3 { // kept connections
		go func() { b := make([]byte, 4); _, _ = io.ReadFull(peer, b); _, _ = peer.Write(b) }()
		b, n, _, err := c.Ask([]byte("as"), []byte("k!"), Small)
		if err != nil || string(b.B[:n]) != "ask!" {
			t.Fatalf("%d %v", n, err)
		}
		b.Put()
	}
	peer.(*net.TCPConn).CloseWrite()
	for !c.d.news() {
		<-time.After(time.Millisecond)
	}
	_ = c.SetReadDeadline(time.Now().Add(time.Hour))
	if _, _, _, err := c.Ask([]byte("ask"), nil, Small); !errors.Is(err, io.EOF) {
		t.Errorf("%v", err)
	}
}

func TestDialErrors(t *testing.T) {
	p, _, _ := polled(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().(*net.TCPAddr).AddrPort()
	l.Close()
	if _, err := p.Dial(t.Context(), addr); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("nobody listens: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.Dial(ctx, addr); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// echoer is a Handler that sends back what comes.
type echoer struct {
	Polled
	ended chan error
	left  atomic.Bool
}

func (e *echoer) Readable(left bool) {
	if left {
		e.left.Store(true)
	}
	for {
		b, n, err := e.Take(Small)
		if err != nil {
			e.Wait()
			e.Close()
			e.ended <- err
			return
		}
		if b == nil {
			return
		}
		_, _ = e.Write(b.B[:n])
		b.Put()
	}
}

// TestHandler: it is told of what comes, of its deadline and of Close.
func TestHandler(t *testing.T) {
	p, err := NewPoller()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	all := make(chan *echoer, 10)
	s, err := p.Listen(l.(*net.TCPListener), func(a *Accepted) {
		e := &echoer{ended: make(chan error, 1)}
		e.Open(a, nil)
		e.Watch(e)
		all <- e
	}, func(error) time.Duration { return time.Millisecond })
	if err != nil {
		t.Fatal(err)
	}
	dial := func() (net.Conn, *echoer) {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		e := <-all
		if e.RemoteAddr().String() != c.LocalAddr().String() || e.LocalAddr().String() != addr {
			t.Errorf("addresses: %s %s", e.RemoteAddr(), e.LocalAddr())
		}
		buf := make([]byte, 5)
		for range 3 {
			_, _ = c.Write([]byte("hello"))
			if _, err := io.ReadFull(c, buf); err != nil || string(buf) != "hello" {
				t.Fatalf("%q %v", buf, err)
			}
		}
		return c, e
	}
	c, e := dial()
	c.Close()
	if err := <-e.ended; err != io.EOF || !e.left.Load() {
		t.Errorf("the peer's end: %v", err)
	}
	c, e = dial()
	_ = e.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if err := <-e.ended; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("deadline: %v", err)
	}
	c.Close()
	c, e = dial()
	e.Close()
	if err := <-e.ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	c.Close()
	_ = s.Close()
	// The address is free again, once the descriptor is closed.
	for {
		l, err := net.Listen("tcp", addr)
		if err == nil {
			l.Close()
			break
		}
		<-time.After(time.Millisecond)
	}
}

// TestBacklog: what the kernel does not take is written by whoever can wait.
func TestBacklog(t *testing.T) {
	_, c, peer := polled(t)
	big := bytes.Repeat([]byte("abcdefgh"), 1<<20)
	c.told = true
	if n, err := c.WriteBoth(big[:100], big[100:]); n != len(big) || err != nil || !c.Backlog() {
		t.Fatalf("%d %v", n, err)
	}
	c.told = false
	got := make(chan []byte)
	go func() { b, _ := io.ReadAll(peer); got <- b }()
	if err := c.Settle(); err != nil || c.Backlog() {
		t.Fatal(err)
	}
	_ = c.Close()
	if !bytes.Equal(<-got, big) {
		t.Error("what came is not what was written")
	}
}

// TestJoin: a connection is told of by another goroutine than before.
func TestJoin(t *testing.T) {
	p, c, peer := polled(t)
	q, err := NewPoller()
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	other, err := q.Dial(t.Context(), netip.MustParseAddrPort(peerOf(t)))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	for range 3 {
		if err := c.Join(other); err != nil || c.d.reactor != other.d.reactor {
			t.Fatal(err)
		}
		go func() { _, _ = peer.Write([]byte("x")) }()
		b, _, err := c.ReadBuffer(Small)
		if err != nil {
			t.Fatal(err)
		}
		b.Put()
	}
	_ = p
}

func peerOf(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}
