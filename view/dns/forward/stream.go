package forward

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxStreams   = 8   // connections to one upstream
	maxPipelined = 128 // questions on one connection
	idle         = 10 * time.Second
	// drip is how long the rest of a message may take after its length.
	drip     = 2 * time.Second
	maxStray = 16 // answers to no question, until a connection is given up
)

var (
	errRetired  = errors.New("the connection is not wanted any more")
	errStuck    = errors.New("the connection is stuck")
	errFull     = errors.New("all connections have as many questions as they take")
	errStray    = errors.New("it answers what nobody asked")
	errTooLong  = errors.New("the question is too long")
	errIDsTaken = errors.New("no number is free")
)

// stream is a connection with many questions under way, by TCP or TLS.
type stream struct {
	u     *upstream
	ready chan struct{} // closed when connected or failed
	load  atomic.Int32  // questions that have chosen it
	read  atomic.Int64  // answers so far

	write sync.Mutex // one writer at a time

	mu      sync.Mutex
	conn    net.Conn
	pending map[uint16]*call
	err     error // why it is closed
}

// call is a question on a stream.
type call struct {
	msg   []byte
	end   int
	reply chan []byte // closed without an answer: see stream.err
}

// stream gives a connection that has room, new or old. Its load counts the
// caller already.
func (u *upstream) stream(ctx context.Context) (s *stream, fresh bool, err error) {
	u.mu.Lock()
	u.streams = slices.DeleteFunc(u.streams, func(s *stream) bool { return s.why() != nil })
	for _, c := range u.streams {
		if l := c.load.Load(); l < maxPipelined && (s == nil || l < s.load.Load()) {
			s = c
		}
	}
	switch {
	case s != nil:
		s.load.Add(1)
		u.f.metrics.connHit(u)
	case len(u.streams) >= maxStreams:
		u.mu.Unlock()
		return nil, false, errFull
	default:
		s, fresh = &stream{u: u, ready: make(chan struct{}), pending: map[uint16]*call{}}, true
		s.load.Add(1)
		cfg := u.tls
		if !u.f.spawn(func() { s.run(cfg) }) {
			u.mu.Unlock()
			return nil, false, ErrClosed
		}
		u.streams = append(u.streams, s)
		u.f.metrics.connMiss(u)
	}
	u.mu.Unlock()
	select {
	case <-s.ready:
	case <-ctx.Done():
		s.load.Add(-1)
		return nil, false, ctx.Err()
	}
	if err := s.why(); err != nil {
		s.load.Add(-1)
		if fresh || ctx.Err() != nil {
			return nil, false, err
		}
		return u.stream(ctx)
	}
	return s, fresh, nil
}

func (s *stream) why() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// close ends the stream and every question on it.
func (s *stream) close(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	s.err = why
	if s.conn != nil {
		_ = s.conn.Close()
	}
	for _, c := range s.pending {
		close(c.reply)
	}
	clear(s.pending)
}

// run connects and reads until the end.
func (s *stream) run(cfg *tls.Config) {
	ctx, cancel := context.WithTimeout(s.u.life, s.u.f.routes.Load().cfg.Timeout)
	conn, err := s.dial(ctx, cfg)
	cancel()
	if err != nil {
		s.close(err)
		close(s.ready)
		return
	}
	s.mu.Lock()
	s.conn = conn
	err = s.err
	s.mu.Unlock()
	close(s.ready)
	if err != nil { // closed meanwhile
		_ = conn.Close()
		return
	}
	stop := context.AfterFunc(s.u.life, func() { s.close(errRetired) })
	defer stop()
	s.close(s.receive(conn))
}

func (s *stream) dial(ctx context.Context, cfg *tls.Config) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", s.u.addr.String())
	if err != nil || !s.u.target.tls {
		return conn, err
	}
	t := tls.Client(conn, cfg)
	if err := t.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return t, nil
}

func (s *stream) receive(conn net.Conn) error {
	var length [2]byte
	for stray := 0; stray < maxStray; {
		_ = conn.SetReadDeadline(time.Now().Add(idle))
		if _, err := io.ReadFull(conn, length[:1]); err != nil {
			return err
		}
		// From here on a whole message has to come soon.
		_ = conn.SetReadDeadline(time.Now().Add(drip))
		if _, err := io.ReadFull(conn, length[1:]); err != nil {
			return err
		}
		resp := make([]byte, binary.BigEndian.Uint16(length[:]))
		if _, err := io.ReadFull(conn, resp); err != nil {
			return err
		}
		if len(resp) < headerLen {
			return errStray
		}
		s.read.Add(1)
		id := binary.BigEndian.Uint16(resp)
		s.mu.Lock()
		c := s.pending[id]
		delete(s.pending, id)
		s.mu.Unlock()
		if c == nil {
			stray++ // often one that was given up
			continue
		}
		switch compare(c.msg, c.end, resp) {
		case matches, otherCase:
			c.reply <- resp
		case withoutWord:
			c.reply <- nil
		default:
			close(c.reply)
			return errStray
		}
		stray = 0
	}
	return errStray
}

// exchange sends a question, with a number of its own, and waits.
func (s *stream) exchange(ctx context.Context, msg []byte, end int) ([]byte, error) {
	defer s.load.Add(-1)
	if len(msg) > tcpMax {
		return nil, errTooLong
	}
	framed := append(binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(msg)), uint16(len(msg))), msg...)
	c := &call{msg: framed[2:], end: end, reply: make(chan []byte, 1)}
	id, err := s.add(c)
	if err != nil {
		return nil, err
	}
	before := s.read.Load()
	s.write.Lock()
	_ = s.conn.SetWriteDeadline(time.Now().Add(drip))
	_, err = s.conn.Write(framed)
	s.write.Unlock()
	if err != nil {
		s.close(err)
		return nil, err
	}
	select {
	case resp, ok := <-c.reply:
		switch {
		case !ok:
			return nil, s.gone()
		case resp == nil:
			return nil, errGarbled
		}
		return resp, nil
	case <-ctx.Done():
		s.mu.Lock()
		delete(s.pending, id)
		s.mu.Unlock()
		if s.read.Load() == before && ctx.Err() == context.DeadlineExceeded {
			s.close(errStuck) // nothing came at all: its way may be broken
		}
		return nil, ctx.Err()
	}
}

// gone says why a question got no answer.
func (s *stream) gone() error {
	if err := s.why(); err != nil {
		return err
	}
	return errStray
}

// add gives a call a number that is free and cannot be guessed.
func (s *stream) add(c *call) (uint16, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return 0, s.err
	}
	for range 64 {
		id := uint16(rand.Uint32())
		if _, taken := s.pending[id]; !taken {
			binary.BigEndian.PutUint16(c.msg, id)
			s.pending[id] = c
			return id, nil
		}
	}
	return 0, errIDsTaken
}
