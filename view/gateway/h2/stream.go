package h2

import (
	"os"
	"sync"
	"time"

	"github.com/fingerpost/fingerpost/view/gateway/stream"
	wire "github.com/fingerpost/fingerpost/wire/http/h2"

	"github.com/fingerpost/fingerpost/wire/http"
)

// growLimit bounds what the windows of all streams of a connection grow by: a
// client could otherwise have many readers keep up, and then all stop.
const growLimit = 8 << 20

// chunkSize is how much of a body is kept in one piece.
const chunkSize = 16 << 10

type chunk struct {
	next *chunk
	r, w int
	b    [chunkSize]byte
}

var chunks = sync.Pool{New: func() any { return new(chunk) }}

// strm is a stream of either side: as a Downstream of a server, or an Upstream
// of a client. All is guarded by c.mu but what only the exchange uses.
type strm struct {
	c     *conn
	id    uint32 // 0: not opened yet
	index int    // among the open streams; -1: not among them

	req   http.Request
	arena []byte // of heads and trailers

	// What is received.
	first, last *chunk
	recvLeft    int64 // what the peer may send
	window      int64 // what that is meant to be
	toCredit    int64 // read and not given back yet
	expect      int64 // of Content-Length; -1: unknown
	recvEnd     bool
	recvErr     error
	trailers    http.Fields
	rd          waiter

	// What is sent.
	sendLeft     int64
	sentHead     bool // the final one
	sentEnd      bool
	bodiless     bool // what is written is left out
	sendErr      error
	sendResponse *http.Response
	sendStatus   int
	sendRequest  *http.Request
	sendTrailers http.Fields
	wr           waiter

	holders   int // who may still call: the exchange, a tunnel
	hijacked  bool
	slot      bool // it counts among the running ones
	onAbort   func(error)
	notifying chan struct{} // closed when onAbort has returned

	// Of a client.
	resp    http.Response
	infos   []http.Response
	final   bool // the head of the response has come
	given   bool // and was received
	fresh   bool
	head    bool // the method is HEAD
	upgrade []byte

	acceptText [28]byte // Sec-WebSocket-Accept, if accepts
	accepts    bool
}

// waiter is where one goroutine of an exchange waits.
type waiter struct {
	signal   chan struct{}
	waiting  bool
	deadline time.Time
	timer    *time.Timer
}

// wake ends the waiting; the connection's mutex is held, as in all methods.
func (w *waiter) wake() {
	if w.waiting {
		w.waiting = false
		w.signal <- struct{}{}
	}
}

// wait waits for wake, without the mutex.
func (w *waiter) wait(mu *sync.Mutex) error {
	if w.signal == nil {
		w.signal = make(chan struct{}, 1)
	}
	if w.deadline.IsZero() {
		w.waiting = true
		mu.Unlock()
		<-w.signal
		mu.Lock()
		return nil
	}
	d := time.Until(w.deadline)
	if d <= 0 {
		return os.ErrDeadlineExceeded
	}
	if w.timer == nil {
		w.timer = time.NewTimer(d)
	} else {
		w.timer.Reset(d)
	}
	w.waiting = true
	mu.Unlock()
	select {
	case <-w.signal:
		w.timer.Stop()
		mu.Lock()
		return nil
	case <-w.timer.C:
	}
	mu.Lock()
	if !w.waiting {
		<-w.signal // it came at the same moment
		return nil
	}
	w.waiting = false
	return os.ErrDeadlineExceeded
}

// set changes the deadline, also of a wait that is under way.
func (w *waiter) set(t time.Time) {
	w.deadline = t
	w.wake()
}

// newStream takes a stream from those that were used; they keep their memory.
func (c *conn) newStream() *strm {
	s, _ := c.cfg.Workers.streams.Get().(*strm)
	if s == nil {
		s = &strm{arena: make([]byte, 0, 2048)}
		s.req.Fields = make(http.Fields, 0, 16)
	}
	s.c, s.index = c, -1
	s.window, s.recvLeft = int64(c.cfg.Window), int64(c.cfg.Window)
	s.expect = -1
	return s
}

// recycle makes a stream ready for another request. Nobody knows of it any more.
func (s *strm) recycle() {
	w := s.c.cfg.Workers
	s.dropBody()
	s.req.Reset()
	s.resp.Reset()
	*s = strm{
		arena: s.arena[:0], trailers: s.trailers[:0], infos: s.infos[:0],
		req: http.Request{Fields: s.req.Fields}, resp: http.Response{Fields: s.resp.Fields},
		rd: waiter{signal: s.rd.signal, timer: s.rd.timer}, wr: waiter{signal: s.wr.signal, timer: s.wr.timer},
	}
	if cap(s.arena) <= 16<<10 {
		w.streams.Put(s)
	}
}

// keep stores a part of the body.
func (s *strm) keep(p []byte) {
	for len(p) > 0 {
		k := s.last
		if k == nil || k.w == chunkSize {
			k = chunks.Get().(*chunk)
			k.next, k.r, k.w = nil, 0, 0
			if s.last == nil {
				s.first = k
			} else {
				s.last.next = k
			}
			s.last = k
		}
		n := copy(k.b[k.w:], p)
		k.w += n
		p = p[n:]
	}
}

// trim gives back the chunks at the beginning that are read.
func (s *strm) trim() {
	for s.first != nil && s.first.r == s.first.w {
		k := s.first
		if s.first = k.next; s.first == nil {
			s.last = nil
		}
		chunks.Put(k)
	}
}

func (s *strm) dropBody() {
	for s.first != nil {
		s.first.r = s.first.w
		s.trim()
	}
}

// credit gives room back to the peer. The window grows while the reader has read
// all there was when half of it is used up.
func (s *strm) credit(n int) {
	if s.recvEnd || s.index < 0 {
		return
	}
	s.toCredit += int64(n)
	if s.toCredit < s.window/2 {
		return
	}
	add := s.toCredit
	if most := int64(s.c.cfg.MaxWindow); s.window < most && (s.first == nil || s.first == s.last && s.first.r == s.first.w) {
		grow := min(s.window, most-s.window, growLimit-s.c.grown)
		s.window += grow
		s.c.grown += grow
		add += grow
	}
	s.toCredit = 0
	s.recvLeft += add
	s.c.control(wire.AppendWindowUpdate(s.c.buffer(), s.id, uint32(add)))
}

// Next gives the next bytes of the body.
func (s *strm) Next() ([]byte, bool, error) {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	s.trim()
	for {
		if k := s.first; k != nil {
			p := k.b[k.r:k.w]
			k.r = k.w
			s.credit(len(p))
			if c.flushing {
				c.kick()
			}
			return p, s.recvEnd && k.next == nil, nil
		}
		if s.recvEnd {
			return nil, true, nil
		}
		if s.recvErr != nil {
			return nil, false, s.recvErr
		}
		if err := s.rd.wait(&c.mu); err != nil {
			return nil, false, err
		}
	}
}

// Ready says that Next would not wait.
func (s *strm) Ready() bool {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if k := s.first; k != nil && (k.r < k.w || k.next != nil) {
		return true
	}
	return s.recvEnd || s.recvErr != nil
}

// Trailers are the fields after the body.
func (s *strm) Trailers() http.Fields {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if !s.recvEnd {
		return nil
	}
	return s.trailers
}

// SetReadDeadline limits waiting for the peer's bytes.
func (s *strm) SetReadDeadline(t time.Time) {
	s.c.mu.Lock()
	s.rd.set(t)
	s.c.mu.Unlock()
}

// SetWriteDeadline limits waiting for the peer to take bytes.
func (s *strm) SetWriteDeadline(t time.Time) {
	s.c.mu.Lock()
	s.wr.set(t)
	s.c.mu.Unlock()
}

// broken tells whoever uses the stream that it has ended before its time.
func (s *strm) broken(err error) {
	if !s.recvEnd && s.recvErr == nil {
		s.recvErr = err
	}
	if s.sendErr == nil && !s.sentEnd {
		s.sendErr = err
	}
	s.rd.wake()
	s.wr.wake()
	if f := s.onAbort; f != nil {
		s.onAbort = nil
		done := make(chan struct{})
		s.notifying = done
		go func() {
			defer close(done)
			f(err)
		}()
	}
}

// ResetError is the end of a stream by the peer's RST_STREAM.
type ResetError struct{ Code wire.Code }

func (e *ResetError) Error() string { return "h2: the stream was reset: " + e.Code.Text() }

// Unwrap says which error of the contract it is.
func (e *ResetError) Unwrap() error {
	if e.Code == wire.RefusedStream {
		return stream.ErrRefused
	}
	return stream.ErrClosed
}

func (s *strm) brokenByPeer(code wire.Code) {
	if s.sentEnd && s.recvEnd {
		return
	}
	s.broken(&ResetError{code})
}

// Abort breaks the exchange.
func (s *strm) Abort(err error) {
	if err == nil {
		err = stream.ErrClosed
	}
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	s.onAbort = nil
	if s.index >= 0 {
		code := wire.InternalError
		if c.client {
			code = wire.Cancel
		}
		c.resetStream(s, code, err)
		c.kick()
	}
	s.broken(err)
	if c.client {
		c.free(s)
	}
}

// free gives back the place of a stream among those that run.
func (c *conn) free(s *strm) {
	if s.slot {
		s.slot = false
		c.running--
		if c.running == 0 && c.idle != nil {
			close(c.idle)
			c.idle = nil
		}
		c.drained()
	}
}
