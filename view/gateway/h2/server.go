package h2

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"time"

	"github.com/fingerpost/fingerpost/view/gateway/stream"
	"github.com/fingerpost/fingerpost/wire/http"
	wire "github.com/fingerpost/fingerpost/wire/http/h2"
)

// Serve serves a connection of a client, from its preface on, and calls handle for
// each request in a goroutine of cfg.Workers. It returns when the connection is
// closed and all calls of handle have returned. When ctx ends, the connection is
// drained: the client is told, and requests that are under way are served.
// peer is not looked at: it is of use to handle alone.
//
// The stream that handle gets is valid until it returns, or, after Hijack, until
// the tunnel is closed, too.
func Serve(ctx context.Context, nc net.Conn, peer *stream.Peer, cfg Config, handle func(stream.Downstream)) error {
	_ = peer
	c := newConn(nc, cfg, false)
	c.handle = handle
	c.mu.Lock()
	c.watch = time.AfterFunc(c.period(false), c.look)
	c.partial = 1
	c.mu.Unlock()
	c.start()
	stop := context.AfterFunc(ctx, c.shutdown)
	defer stop()
	err := c.serve()
	if errors.Is(err, io.EOF) || c.quitting {
		return nil
	}
	return err
}

// preface reads what a client sends first.
func (c *conn) preface() error {
	for c.in.w-c.in.r < len(wire.Preface) {
		n := c.in.w - c.in.r
		if string(c.in.bytes()) != wire.Preface[:n] {
			return errPreface
		}
		if err := c.more(len(wire.Preface)); err != nil {
			return err
		}
	}
	if string(c.in.bytes()[:len(wire.Preface)]) != wire.Preface {
		return errPreface
	}
	c.in.r += len(wire.Preface)
	return nil
}

// requestHead takes a complete head from a client.
func (c *conn) requestHead(id uint32, block []byte, end bool) error {
	c.mu.Lock()
	c.calm.earn()
	if s := c.find(id); s != nil {
		defer c.mu.Unlock()
		return c.trailers(s, block, end)
	}
	if id <= c.maxID {
		known := c.resets.has(id)
		c.mu.Unlock()
		if err := c.skip(block); err != nil || known {
			return err
		}
		return errClosed
	}
	c.maxID = id
	// The client counts a stream until it has seen its end, which may be before
	// its handler has returned; those only bound what resets leave behind.
	full := len(c.ids) >= c.cfg.MaxStreams || c.running >= 2*c.cfg.MaxStreams
	late := id > c.taken || c.quitting
	c.mu.Unlock()
	if late || full {
		if err := c.skip(block); err != nil || late {
			return err
		}
		return c.refuse(id, wire.RefusedStream)
	}
	s := c.newStream()
	s.id = id
	err := c.dec.Request(block, end, &s.arena, &s.req, c.cfg.Head)
	switch {
	case ofConnection(err) != nil:
		s.recycle()
		return err
	case err == wire.ErrTooLarge:
		return c.tooLarge(s, end)
	case err != nil:
		s.recycle()
		return c.refuse(id, wire.ProtocolError)
	}
	if s.req.Upgrade != nil {
		s.keyed()
	}
	s.head = string(s.req.Method) == "HEAD"
	s.recvEnd = end
	if s.expect = s.req.Length; s.req.Upgrade != nil || string(s.req.Method) == "CONNECT" {
		// What comes is the tunnel's: there is no body.
		s.expect, s.req.Length = http.Unknown, 0
	}
	s.holders, s.slot = 1, true
	c.mu.Lock()
	if c.err != nil {
		// The writer found that the client is gone.
		s.recycle()
		c.mu.Unlock()
		return nil
	}
	s.sendLeft = c.initial
	c.add(s)
	c.running++
	c.mu.Unlock()
	c.cfg.Workers.do(s)
	return nil
}

// keyed gives a WebSocket the key that HTTP/1 wants and HTTP/2 has not.
func (s *strm) keyed() {
	if !http.EqualFold(s.req.Upgrade, websocketText) || s.req.Fields.Get(http.SecWebSocketKey) != nil {
		return
	}
	var key [16]byte
	binary.LittleEndian.PutUint64(key[:], rand.Uint64())
	binary.LittleEndian.PutUint64(key[8:], rand.Uint64())
	s.req.Fields.Add(http.SecWebSocketKey, base64.StdEncoding.AppendEncode(nil, key[:]))
}

var websocketText = []byte("websocket")

// refuse resets a stream that nobody sees.
func (c *conn) refuse(id uint32, code wire.Code) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.control(wire.AppendReset(c.buffer(), id, code))
	c.resets.add(id)
	if !c.reset.spend() {
		return errResets
	}
	return c.unread()
}

// tooLarge answers a request whose head is too large without anyone's help.
func (c *conn) tooLarge(s *strm, end bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.sendStatus, s.sendResponse = 431, &http.Response{}
	c.appendHead(s, true, (*strm).encodeResponse)
	c.flushing = true
	if !end {
		c.control(wire.AppendReset(c.buffer(), s.id, wire.NoError))
		c.resets.add(s.id)
	}
	s.recycle()
	if !c.reset.spend() {
		return errResets
	}
	return c.unread()
}

// run is the task of handling a request.
func (s *strm) run() {
	s.c.handle(s)
	s.over()
}

// over is called by each holder of a stream when it will not call again.
func (s *strm) over() {
	c := s.c
	c.mu.Lock()
	if s.holders--; s.holders > 0 {
		c.mu.Unlock()
		return
	}
	if s.index >= 0 {
		switch {
		case c.client:
			c.resetStream(s, wire.Cancel, stream.ErrClosed)
		case !s.sentEnd:
			c.resetStream(s, wire.InternalError, stream.ErrClosed)
		default:
			// The response is complete; nobody will read the rest of the request.
			c.resetStream(s, wire.NoError, stream.ErrClosed)
		}
	}
	s.onAbort = nil
	if len(c.out) > 0 {
		c.kick()
	}
	if done := s.notifying; done != nil {
		c.mu.Unlock()
		<-done
		c.mu.Lock()
	}
	c.free(s)
	if s.hijacked {
		s.dropBody() // the other side of the tunnel may still be in a call
	} else {
		s.recycle()
	}
	c.mu.Unlock()
}

// OnAbort lets f be called, once and in a goroutine of its own, when the client
// gives up the request or its connection ends, unless the exchange is over
// before. It gives the exchange the chance to stop waiting for the endpoint.
func (s *strm) OnAbort(f func(error)) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if s.recvErr == nil && s.sendErr == nil {
		s.onAbort = f
		return
	}
	s.onAbort = f
	err := s.recvErr
	if err == nil {
		err = s.sendErr
	}
	s.broken(err)
}

// Request is the head of the request.
func (s *strm) Request() *http.Request { return &s.req }

// Respond sends the head of a response.
func (s *strm) Respond(r *http.Response, end bool) error {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.sentHead {
		return errEnded
	}
	if err := s.roomForHead(); err != nil {
		return err
	}
	s.sendStatus = r.Status
	switch {
	case r.Status == 101:
		s.sendStatus, end = 200, false
		s.sentHead = true
	case r.Status < 200:
		end = false
	case r.Status < 300 && string(s.req.Method) == "CONNECT":
		// What follows is no body, and has no length (RFC 9110, 9.3.6).
		end, s.sentHead = false, true
	default:
		s.sentHead = true
		s.bodiless = s.head || r.Status == 204 || r.Status == 304
		end = end || s.bodiless
	}
	s.sendResponse = r
	c.appendHead(s, end, (*strm).encodeResponse)
	s.sendResponse = nil
	if end {
		c.ended(s)
	}
	return nil
}

func (s *strm) encodeResponse(dst []byte) []byte {
	if s.sendStatus/100 == 2 && string(s.req.Method) == "CONNECT" {
		r := *s.sendResponse
		r.Length = http.Unknown
		return s.c.enc.AppendResponse(dst, s.sendStatus, &r)
	}
	return s.c.enc.AppendResponse(dst, s.sendStatus, s.sendResponse)
}
