package h2

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"

	"github.com/fingerpost/fingerpost/view/gateway/stream"
	wirehttp "github.com/fingerpost/fingerpost/wire/http"
	wire "github.com/fingerpost/fingerpost/wire/http/h2"
)

// broken is a connection whose other side has closed it, with its last words
// not read yet: writing fails first.
type broken struct {
	net.Conn
	mu     sync.Mutex
	closed bool
	words  chan []byte // what reading gives; closed: the end
	rest   []byte
	failed chan struct{} // a write has failed
	once   sync.Once
}

func (b *broken) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		b.once.Do(func() { close(b.failed) })
		return 0, syscall.EPIPE
	}
	return len(p), nil
}

func (b *broken) Read(p []byte) (int, error) {
	for len(b.rest) == 0 {
		w, ok := <-b.words
		if !ok {
			return 0, io.EOF
		}
		b.rest = w
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

// TestGoAwayAfterBrokenWrite: a request to an endpoint that has said GOAWAY and
// closed may be sent again, although writing it failed before that was read.
func TestGoAwayAfterBrokenWrite(t *testing.T) {
	a, other := net.Pipe()
	defer other.Close()
	conn := &broken{Conn: a, words: make(chan []byte, 4), failed: make(chan struct{})}
	conn.words <- wire.AppendSettings(nil)
	c, err := NewClient(conn, Config{})
	if err != nil {
		t.Fatal(err)
	}
	up, err := c.Open()
	if err != nil {
		t.Fatal(err)
	}
	conn.mu.Lock()
	conn.closed = true
	conn.mu.Unlock()
	if err := errors.Join(up.Send(&wirehttp.Request{Method: []byte("POST"), Path: []byte("/"), Authority: []byte("a")}, true), up.Flush()); err != nil {
		t.Fatal(err)
	}
	<-conn.failed
	conn.words <- wire.AppendGoAway(nil, 0, wire.NoError, "")
	close(conn.words)
	var r wirehttp.Response
	if err := up.Receive(&r); !errors.Is(err, stream.ErrRefused) {
		t.Errorf("the request: %v", err)
	}
	up.Release()
	if _, err := c.Open(); !errors.Is(err, stream.ErrRefused) || !c.Gone() {
		t.Errorf("another one: %v", err)
	}
	c.Close()
}

// TestEndBeforePreface: an endpoint that ends before it has accepted a connection has
// seen nothing; one that has said its preface may have.
func TestEndBeforePreface(t *testing.T) {
	for _, said := range []bool{false, true} {
		a, other := net.Pipe()
		defer other.Close()
		conn := &broken{Conn: a, words: make(chan []byte, 4), failed: make(chan struct{})}
		if said {
			conn.words <- wire.AppendSettings(nil)
		}
		c, err := NewClient(conn, Config{})
		if err != nil {
			t.Fatal(err)
		}
		up, err := c.Open()
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(up.Send(&wirehttp.Request{Method: []byte("POST"), Path: []byte("/"), Authority: []byte("a")}, true), up.Flush()); err != nil {
			t.Fatal(err)
		}
		close(conn.words)
		want := stream.ErrRefused
		if said {
			want = stream.ErrClosed
		}
		var r wirehttp.Response
		if err := up.Receive(&r); !errors.Is(err, want) {
			t.Errorf("preface %v: %v", said, err)
		}
		up.Release()
		c.Close()
	}
}
