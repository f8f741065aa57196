package h1

import (
	"crypto/tls"
	"errors"
	"net"
	"time"

	"github.com/fingerpost/fingerpost/view/gateway/stream"
	"github.com/fingerpost/fingerpost/wire/http"
	wire "github.com/fingerpost/fingerpost/wire/http/h1"
)

var _ stream.Downstream = (*Conn)(nil)

// Request is the head.
func (c *Conn) Request() *http.Request { return c.req }

// Next gives the next bytes of the body.
func (c *Conn) Next() ([]byte, bool, error) { return c.in.next() }

// Into gives the next bytes of the body in memory of the caller's. If it shall not
// wait there may be none.
func (c *Conn) Into(p []byte, wait bool) (n int, end bool, err error) { return c.in.into(p, wait) }

// Ready says that Next would not wait.
func (c *Conn) Ready() bool { return c.in.ready() }

// Trailers are the fields after the body.
func (c *Conn) Trailers() http.Fields { return c.in.trailers() }

var errTwice = errors.New("h1: a second final response")

// Respond sends the head of a response.
func (c *Conn) Respond(r *http.Response, end bool) error {
	if c.out.err != nil {
		return c.out.err
	}
	if c.begun {
		return errTwice
	}
	if r.Status < 200 && r.Status != 101 {
		if c.req.Version == http.HTTP10 {
			return nil // it would take it for the final one
		}
		if r.Status == 100 {
			c.expect = false
		}
		if err := c.out.put(wire.AppendResponse(c.out.room(), r, c.req, false, nil)); err != nil {
			return err
		}
		return c.out.flush()
	}
	c.begun = true
	mode, left := c.framing(r, &end)
	if r.Close || c.expect || c.quit.Load() || c.req.Close || mode == untilClose {
		c.closing = true
	}
	r.Close = c.closing
	var date []byte
	if c.s.cfg.Date != nil && r.Fields.Get(http.Date) == nil {
		date = c.s.cfg.Date()
	}
	err := c.out.put(wire.AppendResponse(c.out.room(), r, c.req, mode == chunked, date))
	c.out.begin(mode, left, end)
	return err
}

// framing decides how the end of the body is told.
func (c *Conn) framing(r *http.Response, end *bool) (framing, int64) {
	switch {
	case r.Status == 101 || r.Status == 204 || r.Status == 304 || string(c.req.Method) == "HEAD":
		if *end && r.Length == 0 && string(c.req.Method) != "HEAD" {
			r.Declared = r.Declared && r.Status == 304
		}
		*end = true
		return none, 0
	case string(c.req.Method) == "CONNECT" && r.Status < 300:
		*end = true
		return none, 0
	case *end:
		r.Length, r.Declared = 0, true
		return none, 0
	case r.Length != http.Unknown:
		return counted, r.Length
	case c.req.Version == http.HTTP10:
		return untilClose, 0
	}
	return chunked, 0
}

// Write sends a part of the body.
func (c *Conn) Write(p []byte, end bool) error { return c.out.write(p, end) }

// End ends the body with trailers.
func (c *Conn) End(trailers http.Fields) error { return c.out.end(trailers) }

// Flush sends what is buffered.
func (c *Conn) Flush() error { return c.out.flush() }

// Hijack ends HTTP on this connection.
func (c *Conn) Hijack() (stream.Tunnel, error) {
	if err := c.out.flush(); err != nil {
		return nil, err
	}
	c.hijacked = true
	return newTunnel(c.c, &c.in), nil
}

// Abort breaks the connection.
func (c *Conn) Abort(error) {
	if !c.aborted.Swap(true) {
		breakOff(c.c)
	}
}

// SetReadDeadline limits waiting for the client.
func (c *Conn) SetReadDeadline(t time.Time) { _ = c.c.SetReadDeadline(t) }

// SetWriteDeadline limits waiting for the client to read.
func (c *Conn) SetWriteDeadline(t time.Time) { _ = c.c.SetWriteDeadline(t) }

// breakOff closes a connection so that the peer knows that something is
// missing: with a reset, and in TLS without the closing alert.
func breakOff(c net.Conn) {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	for below := c; below != nil; {
		if l, ok := below.(interface{ SetLinger(int) error }); ok {
			_ = l.SetLinger(0)
			break
		}
		n, ok := below.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		below = n.NetConn()
	}
	_ = c.Close()
}
