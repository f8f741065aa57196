package socket

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"
)

// pair gives both ends of a TCP connection, one wrapped.
func pair(t testing.TB) (*Conn, net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return New(a), b
}

func TestReadWrite(t *testing.T) {
	c, peer := pair(t)
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 10)
	if n, err := io.ReadAtLeast(peer, buf, 5); err != nil || string(buf[:n]) != "hello" {
		t.Fatalf("%q %v", buf[:n], err)
	}
	_, _ = peer.Write([]byte("back"))
	b, n, err := c.ReadBuffer(Small)
	if err != nil || string(b.B[:n]) != "back" || len(b.B) != Small.Len() {
		t.Fatalf("%d %v", n, err)
	}
	b.Put()
	peer.Close()
	if _, _, err := c.ReadBuffer(Small); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

// TestDeadlines: they end waiting calls, those set before and those set
// meanwhile, earlier ones and later ones.
func TestDeadlines(t *testing.T) {
	for name, wrap := range map[string]func(*Conn) *Conn{
		"direct": func(c *Conn) *Conn { return c },
		"plain":  func(c *Conn) *Conn { return New(struct{ net.Conn }{c.Conn}) },
	} {
		t.Run(name, func(t *testing.T) {
			c, peer := pair(t)
			c = wrap(c)
			buf := make([]byte, 10)
			read := func() error { _, err := c.Read(buf); return err }
			_ = c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
			if err := read(); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("before: %v", err)
			}
			// The one in the runtime strikes too early for what is wanted now.
			_ = c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
			_ = c.SetReadDeadline(time.Now().Add(time.Hour))
			go func() { <-time.After(50 * time.Millisecond); _, _ = peer.Write([]byte("x")) }()
			if err := read(); err != nil {
				t.Fatalf("moved: %v", err)
			}
			// Sooner than the one in the runtime.
			_ = c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
			if err := read(); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("sooner: %v", err)
			}
			_ = c.SetReadDeadline(time.Time{})
			done := make(chan error)
			go func() { done <- read() }()
			<-time.After(10 * time.Millisecond)
			_ = c.SetReadDeadline(time.Unix(1, 0))
			if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("meanwhile: %v", err)
			}
			_ = c.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
			_, err := c.Write(make([]byte, 64<<20))
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("write: %v", err)
			}
		})
	}
}

// TestLoop: each portion is given once, also what comes while the function runs.
func TestLoop(t *testing.T) {
	c, peer := pair(t)
	go func() {
		buf := make([]byte, 1)
		for i := range byte(200) {
			_, _ = peer.Write([]byte{i})
			if i%3 == 0 {
				continue // the next one comes before anybody asks for it
			}
			for got := byte(0); got != i; {
				if _, err := peer.Read(buf); err != nil {
					return
				}
				got = buf[0]
			}
		}
	}()
	next := byte(0)
	err := c.Loop(Small, func(b *Buffer, n int) bool {
		for _, x := range b.B[:n] {
			if x != next {
				t.Errorf("got %d, want %d", x, next)
			}
			next++
			_, _ = c.Write([]byte{x})
		}
		b.Put()
		return next < 200
	})
	if err != nil || next != 200 {
		t.Errorf("%d, %v", next, err)
	}
}

func TestLoopEnds(t *testing.T) {
	c, peer := pair(t)
	_, _ = peer.Write([]byte("x"))
	// Closing inside does not wait for itself.
	if err := c.Loop(Small, func(b *Buffer, _ int) bool { b.Put(); c.Close(); return true }); err != nil {
		t.Errorf("closed: %v", err)
	}
	c.Close()
	if _, err := peer.Read(make([]byte, 1)); err == nil {
		t.Error("the connection is open")
	}
	c, _ = pair(t)
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if err := c.Loop(Small, nil); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("deadline: %v", err)
	}
	c, peer = pair(t)
	peer.Close()
	if err := c.Loop(Small, nil); !errors.Is(err, io.EOF) {
		t.Errorf("end: %v", err)
	}
}

// TestAsk: an answer is seen whenever it comes, and so is an end that came before
// the question.
func TestAsk(t *testing.T) {
	c, peer := pair(t)
	go func(peer net.Conn) {
		buf := make([]byte, 100)
		for {
			n, err := peer.Read(buf)
			if err != nil {
				return
			}
			_, _ = peer.Write(buf[:n])
		}
	}(peer)
	for range 1000 {
		b, n, sent, err := c.Ask([]byte("pi"), []byte("ng"), Medium)
		if err != nil || sent != 4 || string(b.B[:n]) != "ping" {
			t.Fatalf("%d %d %v", n, sent, err)
		}
		b.Put()
	}
	c, peer = pair(t)
	_ = peer.(*net.TCPConn).CloseWrite() // and goes on reading
	_, _, _, err := c.Ask([]byte("pi"), []byte("ng"), Medium)
	if !errors.Is(err, io.EOF) {
		t.Errorf("half closed: %v", err)
	}
	// More than fits into the kernel's buffers.
	c, peer = pair(t)
	big := make([]byte, 16<<20)
	go func(peer net.Conn) {
		_, _ = io.ReadFull(peer, big)
		_, _ = peer.Write([]byte("thanks"))
	}(peer)
	b, n, sent, err := c.Ask(make([]byte, 1<<20), make([]byte, 15<<20), Medium)
	if err != nil || sent != len(big) || string(b.B[:n]) != "thanks" {
		t.Fatalf("large: %d %d %v", n, sent, err)
	}
	b.Put()
	c, _ = pair(t)
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if _, _, _, err := c.Ask([]byte("x"), nil, Medium); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("deadline: %v", err)
	}
}

// TestDirectIsUsed: TCP connections take the short way.
func TestDirectIsUsed(t *testing.T) {
	c, _ := pair(t)
	if c.Direct() != able {
		t.Error("TCP is not read directly")
	}
}

func BenchmarkAsk(b *testing.B) {
	c, peer := pair(b)
	var stop atomic.Bool
	go func() {
		buf := make([]byte, 100)
		for !stop.Load() {
			n, err := peer.Read(buf)
			if err != nil {
				return
			}
			_, _ = peer.Write(buf[:n])
		}
	}()
	p := []byte("ping")
	b.ReportAllocs()
	for b.Loop() {
		buf, _, _, err := c.Ask(p, nil, Medium)
		if err != nil {
			b.Fatal(err)
		}
		buf.Put()
	}
	stop.Store(true)
}
