package h1

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/fingerpost/fingerpost/view/gateway/socket"
	"github.com/fingerpost/fingerpost/view/gateway/stream"
	"github.com/fingerpost/fingerpost/wire/http"
	wire "github.com/fingerpost/fingerpost/wire/http/h1"
)

var _ stream.Upstream = (*Client)(nil)

// Pool is where a connection comes from and goes back to.
type Pool interface {
	Keep() // the exchange is over, and the connection can serve another one
	Drop() // the connection is closed
}

// Client is a connection to an endpoint. It serves one exchange after the
// other; Open and Release enclose each.
type Client struct {
	c      net.Conn
	limits *wire.Limits
	pool   Pool
	in     input
	out    output

	method   []byte
	fresh    bool
	closing  bool // the endpoint closes after this response
	final    bool // the final response's head was read
	hijacked bool
	aborted  atomic.Bool
}

// NewClient makes one. The pool is told at the end of each exchange.
func NewClient(c net.Conn, limits *wire.Limits, pool Pool) *Client {
	k := &Client{c: c, limits: limits, pool: pool}
	k.in.c, k.out.c = c, c
	k.out.sock, _ = c.(*socket.Conn)
	return k
}

// Open starts an exchange; kept says that there was one before.
func (c *Client) Open(kept bool) stream.Upstream {
	c.fresh = !kept
	c.final, c.closing = false, false
	c.out.done, c.out.sent = false, false
	c.in.ended = false
	return c
}

// Close closes a connection without exchange.
func (c *Client) Close() error { return c.c.Close() }

// Fresh says that the connection was opened for this request.
func (c *Client) Fresh() bool { return c.fresh }

// Send sends the head.
func (c *Client) Send(r *http.Request, end bool) error {
	c.method = r.Method
	mode, left := counted, r.Length
	switch {
	case end:
		mode = none
	case r.Length == http.Unknown:
		mode = chunked
	}
	c.closing = r.Close
	err := c.out.put(wire.AppendRequest(c.out.room(), r, mode == chunked))
	c.out.begin(mode, left, end)
	return err
}

// Write sends a part of the body.
func (c *Client) Write(p []byte, end bool) error { return c.out.write(p, end) }

// Whole sends all of the body with the next Flush or Ask; p must stay as it is until
// then.
func (c *Client) Whole(p []byte) error { return c.out.whole(p) }

// End ends the body with trailers.
func (c *Client) End(trailers http.Fields) error { return c.out.end(trailers) }

// Flush sends what is buffered.
func (c *Client) Flush() error { return c.out.flush() }

var errCut = errors.New("h1: the response breaks off in its head")

// Ask is Flush and Receive in one, for a request that is complete: it costs one
// call less into the kernel.
func (c *Client) Ask(r *http.Response) error {
	sock := c.out.sock
	if o := &c.out; sock != nil && sock.Direct() && o.done && o.err == nil && o.buf != nil && o.n > 0 && c.in.cur == nil {
		b, n, tail := o.buf, o.n, o.tail
		o.buf, o.n, o.tail, o.sent = nil, 0, nil, true
		got, k, _, err := sock.Ask(b.B[:n], tail, socket.Medium)
		b.Put()
		if err != nil {
			return broken(err)
		}
		c.in.cur, c.in.r, c.in.w = got, 0, k
	} else if err := o.flush(); err != nil {
		return err
	}
	return c.Receive(r)
}

// Receive reads the head of a response. After a deadline it may be called
// again.
func (c *Client) Receive(r *http.Response) error {
	in := &c.in
	if err := in.first(socket.Medium); err != nil {
		return broken(err)
	}
	for seen := 0; ; {
		b := in.cur.B[in.r:in.w]
		if seen == 0 || blank(b, seen) || in.w == len(in.cur.B) {
			r.Reset()
			n, f, err := wire.ParseResponse(b, r, c.method, c.limits)
			if err != nil {
				return fmt.Errorf("%w: %w", stream.ErrMalformed, err)
			}
			if n > 0 {
				c.take(n, f, r)
				return nil
			}
		}
		seen = len(b)
		if err := in.more(); err != nil {
			if errors.Is(err, io.EOF) && (seen > 0 || in.head != nil) {
				return fmt.Errorf("%w: %w", stream.ErrMalformed, errCut)
			}
			return broken(err)
		}
	}
}

func (c *Client) take(n int, f wire.Framing, r *http.Response) {
	if r.Status < 200 && r.Status != 101 {
		c.in.r += n
		c.in.head = c.in.cur
		return
	}
	c.final = true
	c.in.begin(n, f)
	if r.Close || f.UntilClose {
		c.closing = true
	}
}

// Next gives the next bytes of the body.
func (c *Client) Next() ([]byte, bool, error) { return c.in.next() }

// Ready says that Next would not wait.
func (c *Client) Ready() bool { return c.in.ready() }

// Trailers are the fields after the body.
func (c *Client) Trailers() http.Fields { return c.in.trailers() }

// Hijack ends HTTP on this connection.
func (c *Client) Hijack() (stream.Tunnel, error) {
	if err := c.out.flush(); err != nil {
		return nil, err
	}
	c.hijacked = true
	return newTunnel(c.c, &c.in), nil
}

// Release ends the exchange.
func (c *Client) Release() {
	if c.hijacked {
		c.pool.Drop()
		return
	}
	keep := c.final && !c.closing && c.in.ended && !c.in.stashed && c.in.r == c.in.w &&
		c.out.done && c.out.err == nil && c.out.buf == nil && !c.aborted.Load()
	c.in.drop()
	c.out.drop()
	c.method = nil
	if keep {
		c.pool.Keep()
		return
	}
	if !c.aborted.Swap(true) {
		_ = c.c.Close()
	}
	c.pool.Drop()
}

// Abort breaks the exchange. Release must follow when nobody uses it any more.
func (c *Client) Abort(error) {
	if !c.aborted.Swap(true) {
		breakOff(c.c)
	}
}

// SetReadDeadline limits waiting for the endpoint.
func (c *Client) SetReadDeadline(t time.Time) { _ = c.c.SetReadDeadline(t) }

// SetWriteDeadline limits waiting for the endpoint to read.
func (c *Client) SetWriteDeadline(t time.Time) { _ = c.c.SetWriteDeadline(t) }
