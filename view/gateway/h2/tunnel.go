package h2

import (
	"io"
	"time"

	"github.com/fingerpost/fingerpost/view/gateway/stream"
	wire "github.com/fingerpost/fingerpost/wire/http/h2"
)

// tunnel is a stream that carries bytes.
type tunnel struct {
	s      *strm
	closed bool
}

// Hijack makes a tunnel of the stream, after a 101 or a 2xx to CONNECT. The
// exchange's end does not end it; Close does.
func (s *strm) Hijack() (stream.Tunnel, error) {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if !s.sentHead || s.sentEnd {
		return nil, errEnded
	}
	if s.sendErr != nil {
		return nil, s.sendErr
	}
	if !c.client {
		s.holders++
	}
	s.onAbort = nil
	c.kick()
	s.hijacked = true
	return &tunnel{s: s}, nil
}

func (t *tunnel) Read(p []byte) (int, error) {
	s := t.s
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		s.trim()
		if k := s.first; k != nil && len(p) > 0 {
			n := copy(p, k.b[k.r:k.w])
			k.r += n
			s.credit(n)
			if c.flushing {
				c.kick()
			}
			s.trim()
			return n, nil
		}
		switch {
		case len(p) == 0:
			return 0, nil
		case s.recvEnd:
			return 0, io.EOF
		case s.recvErr != nil:
			return 0, s.recvErr
		}
		if err := s.rd.wait(&c.mu); err != nil {
			return 0, err
		}
	}
}

func (t *tunnel) Write(p []byte) (int, error) {
	if err := t.s.Write(p, false); err != nil {
		return 0, err
	}
	return len(p), t.s.Flush()
}

func (t *tunnel) CloseWrite() error {
	if err := t.s.Write(nil, true); err != nil {
		return err
	}
	return t.s.Flush()
}

func (t *tunnel) Close() error {
	s := t.s
	c := s.c
	c.mu.Lock()
	if t.closed {
		c.mu.Unlock()
		return nil
	}
	t.closed = true
	if s.index >= 0 {
		if !s.sentEnd {
			c.endStream(s)
		}
		if s.index >= 0 {
			c.resetStream(s, wire.Cancel, stream.ErrClosed)
		}
	}
	s.broken(stream.ErrClosed)
	c.mu.Unlock()
	s.over()
	return nil
}

func (t *tunnel) SetReadDeadline(d time.Time) error {
	t.s.SetReadDeadline(d)
	return nil
}

func (t *tunnel) SetWriteDeadline(d time.Time) error {
	t.s.SetWriteDeadline(d)
	return nil
}
