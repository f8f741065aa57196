package h2

import (
	"errors"
	"runtime"
	"slices"
	"sync"
	"time"

	wire "github.com/fingerpost/fingerpost/wire/http/h2"

	"github.com/fingerpost/fingerpost/wire/http"
)

// What collects for writing begins in a small buffer and moves to a large one.
const (
	outSmall = 8 << 10
	outLarge = outLimit + 16<<10
)

var (
	smallOut = sync.Pool{New: func() any { return new([outSmall]byte) }}
	largeOut = sync.Pool{New: func() any { return new([outLarge]byte) }}
)

// buffer gives out for appending.
func (c *conn) buffer() []byte {
	if c.out == nil {
		c.out = smallOut.Get().(*[outSmall]byte)[:0]
	}
	return c.out
}

// room makes sure that n bytes fit out without allocating.
func (c *conn) room(n int) {
	b := c.buffer()
	if cap(b)-len(b) >= n || cap(b) >= outLarge {
		return
	}
	c.out = append(largeOut.Get().(*[outLarge]byte)[:0], b...)
	giveBack(b)
}

func giveBack(b []byte) {
	switch cap(b) {
	case outSmall:
		smallOut.Put((*[outSmall]byte)(b[:outSmall]))
	case outLarge:
		largeOut.Put((*[outLarge]byte)(b[:outLarge]))
	}
}

// control sets out to what a frame was appended to that is to be sent soon. The
// reader kicks before it waits, everyone else at once.
func (c *conn) control(b []byte) {
	c.out = b
	c.lastData = -1
	c.flushing = true
}

// kick lets out be written, by someone else.
func (c *conn) kick() {
	c.flushing = true
	if !c.writing && c.err == nil && (len(c.out) > 0 || c.quitting) {
		c.writing = true
		c.cfg.Workers.do((*writer)(c))
	}
}

// writer is a connection as the task of writing what has collected.
type writer conn

func (w *writer) run() {
	c := (*conn)(w)
	for {
		// Everyone who can run may add something first.
		runtime.Gosched()
		c.mu.Lock()
		if c.err != nil || len(c.out) == 0 || !c.flushing {
			break
		}
		b := c.out
		c.out, c.lastData, c.flushing = nil, -1, false
		if len(c.waiting) > 0 {
			c.wakeWriters()
		}
		c.mu.Unlock()
		_, err := c.net.Write(b)
		giveBack(b)
		c.mu.Lock()
		c.written++
		if err != nil && c.client && c.err == nil {
			// The endpoint has closed the connection. What it said before may not have
			// been read yet, and a GOAWAY tells which requests it never saw: the
			// reader comes to the end at once, and fails what is left. Nobody writes
			// any more, as writing stays set.
			c.peerGone, c.out = true, nil
			c.net.SetReadDeadline(time.Now().Add(lingering))
			c.mu.Unlock()
			return
		}
		if err != nil {
			c.fail(err)
			break
		}
		if !c.flushing {
			break
		}
		c.mu.Unlock()
	}
	c.writing = false
	if c.quitting && c.err == nil {
		c.hangUp()
	}
	c.mu.Unlock()
}

// hangUp ends our side after the last words. The reader ends when the peer
// does, or soon after: closing over unread bytes would destroy what was written.
func (c *conn) hangUp() {
	k, ok := c.net.(interface{ CloseWrite() error })
	if !ok || k.CloseWrite() != nil {
		c.fail(nil)
		return
	}
	c.net.SetReadDeadline(time.Now().Add(lingering))
}

// lingering is how long the peer has to read our last words.
const lingering = 500 * time.Millisecond

// wakeWriters lets everyone who waits to send look again.
func (c *conn) wakeWriters() {
	for i, s := range c.waiting {
		s.wr.wake()
		c.waiting[i] = nil
	}
	c.waiting = c.waiting[:0]
}

// respond, send: head appends a head of this stream. More than one frame of it
// go together.
func (c *conn) appendHead(s *strm, end bool, encode func(s *strm, dst []byte) []byte) {
	c.room(2 << 10)
	b := c.buffer()
	at := len(b)
	flags := wire.EndHeaders
	if end {
		flags |= wire.EndStream
	}
	b = wire.AppendHeader(b, wire.Header{Type: wire.Headers, Flags: flags, Stream: s.id})
	b = encode(s, b)
	if n := len(b) - at - wire.HeaderLen; n <= c.maxFrame {
		wire.PutLength(b[at:], n)
	} else {
		b = c.split(b, at, n, s.id)
	}
	c.out = b
	c.lastData = -1
}

// split cuts a block that is too large for one frame.
func (c *conn) split(b []byte, at, n int, id uint32) []byte {
	rest := append([]byte(nil), b[at+wire.HeaderLen+c.maxFrame:]...)
	b = b[:at+wire.HeaderLen+c.maxFrame]
	wire.PutLength(b[at:], c.maxFrame)
	b[at+4] &^= byte(wire.EndHeaders)
	for len(rest) > 0 {
		k := min(len(rest), c.maxFrame)
		flags := wire.Flags(0)
		if k == len(rest) {
			flags = wire.EndHeaders
		}
		b = wire.AppendHeader(b, wire.Header{Length: uint32(k), Type: wire.Continuation, Flags: flags, Stream: id})
		b = append(b, rest[:k]...)
		rest = rest[k:]
	}
	return b
}

// roomForHead waits until out takes another head; c.mu is held.
func (s *strm) roomForHead() error {
	for s.sendErr == nil && s.c.err == nil && len(s.c.out) >= outLimit {
		if err := s.waitWrite(); err != nil {
			return err
		}
	}
	if s.sendErr != nil {
		return s.sendErr
	}
	return s.c.err
}

// waitWrite waits until more can be sent; what has collected is sent meanwhile.
func (s *strm) waitWrite() error {
	c := s.c
	c.kick()
	c.waiting = append(c.waiting, s)
	err := s.wr.wait(&c.mu)
	if i := slices.Index(c.waiting, s); i >= 0 {
		c.waiting = slices.Delete(c.waiting, i, i+1)
	}
	return err
}

// Write sends a part of the body.
func (s *strm) Write(p []byte, end bool) error {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case s.sendErr != nil:
			return s.sendErr
		case s.sentEnd:
			if s.bodiless || len(p) == 0 && end {
				return nil
			}
			return errEnded
		}
		if len(p) == 0 {
			if end {
				c.endStream(s)
			}
			return nil
		}
		n := min(int64(len(p)), s.sendLeft, c.sendLeft, int64(c.maxFrame))
		// A frame that fills the last few bytes of the buffer is not worth it.
		if free := int64(outLimit - len(c.out)); n > free {
			n = free
			if free < 1024 {
				n = 0
			}
		}
		if n <= 0 {
			if err := s.waitWrite(); err != nil {
				return err
			}
			continue
		}
		c.appendData(s, p[:n], end && int(n) == len(p))
		if p = p[n:]; len(p) == 0 {
			return nil
		}
	}
}

var errEnded = errors.New("h2: the body has ended already")

// appendData queues a DATA frame, or makes the last one longer.
func (c *conn) appendData(s *strm, p []byte, end bool) {
	n := len(p)
	s.sendLeft -= int64(n)
	c.sendLeft -= int64(n)
	c.calm.earn()
	c.calm.earn() // a client may acknowledge it twice: on the stream and the connection
	c.room(n + wire.HeaderLen)
	b := c.buffer()
	if c.lastData >= 0 {
		h := wire.ParseHeader(b[c.lastData:])
		if h.Stream == s.id && int(h.Length)+n <= c.maxFrame {
			c.out = append(b, p...)
			wire.PutLength(c.out[c.lastData:], int(h.Length)+n)
			if end {
				c.out[c.lastData+4] |= byte(wire.EndStream)
				c.ended(s)
			}
			return
		}
	}
	h := wire.Header{Length: uint32(n), Type: wire.Data, Stream: s.id}
	if end {
		h.Flags = wire.EndStream
	}
	c.lastData = len(b)
	c.out = append(wire.AppendHeader(b, h), p...)
	if end {
		c.ended(s)
	}
}

// endStream queues an end without more bytes.
func (c *conn) endStream(s *strm) {
	b := c.buffer()
	if c.lastData >= 0 && wire.ParseHeader(b[c.lastData:]).Stream == s.id {
		b[c.lastData+4] |= byte(wire.EndStream)
	} else {
		c.out = wire.AppendHeader(b, wire.Header{Type: wire.Data, Flags: wire.EndStream, Stream: s.id})
		c.lastData = -1
	}
	c.ended(s)
}

// ended is called when the end of our side is queued.
func (c *conn) ended(s *strm) {
	s.sentEnd = true
	if s.recvEnd {
		c.remove(s)
	}
}

// End ends the body with trailers.
func (s *strm) End(trailers http.Fields) error {
	if len(trailers) == 0 {
		return s.Write(nil, true)
	}
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.sentEnd {
		if s.bodiless {
			return nil
		}
		return errEnded
	}
	if err := s.roomForHead(); err != nil {
		return err
	}
	s.sendTrailers = trailers
	c.appendHead(s, true, (*strm).encodeTrailers)
	s.sendTrailers = nil
	c.ended(s)
	return nil
}

func (s *strm) encodeTrailers(dst []byte) []byte { return s.c.enc.AppendTrailers(dst, s.sendTrailers) }

// Flush sends what is buffered.
func (s *strm) Flush() error {
	c := s.c
	c.mu.Lock()
	if len(c.out) > 0 {
		c.kick()
	}
	err := c.err
	c.mu.Unlock()
	return err
}

// resetStream ends a stream by RST_STREAM. Whoever uses it is told err.
func (c *conn) resetStream(s *strm, code wire.Code, err error) {
	if s.index < 0 {
		return
	}
	c.control(wire.AppendReset(c.buffer(), s.id, code))
	c.resets.add(s.id)
	s.broken(err)
	c.remove(s)
}
