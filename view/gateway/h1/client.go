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
	ended    bool // the endpoint said that nothing more comes
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
	c.out.done, c.out.sent, c.out.took = false, false, 0
	c.in.ended, c.ended = false, false
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
		got, k, took, err := sock.Ask(b.B[:n], tail, socket.Medium)
		b.Put()
		o.took += took
		if err != nil {
			return c.lost(err)
		}
		c.in.cur, c.in.r, c.in.w = got, 0, k
	} else if err := o.flush(); err != nil {
		return err
	}
	return c.Receive(r)
}

// CanPost says that Post can be called: a Poller tells of the connection, and the
// request is complete.
func (c *Client) CanPost() bool {
	o := &c.out
	return o.sock != nil && o.sock.Polled() && o.done && o.err == nil && o.buf != nil && o.n > 0 && c.in.cur == nil
}

// Post sends the request and lets h be told when something of the response may be
// there, on the goroutine that serves beside. ready: all was sent; if not, calls wait
// from here on, and Receive is to be called.
func (c *Client) Post(h socket.Handler, beside *socket.Conn) (ready bool, err error) {
	o, sock := &c.out, c.out.sock
	if err := sock.Join(beside); err != nil {
		return false, broken(err)
	}
	sock.Tell(h)
	b, n, tail := o.buf, o.n, o.tail
	o.buf, o.n, o.tail, o.sent = nil, 0, nil, true
	took, err := sock.WriteBoth(b.B[:n], tail)
	o.took += took
	b.Put()
	if err != nil || sock.Backlog() {
		sock.Wait()
		if err != nil {
			return false, broken(err)
		}
		return false, nil
	}
	sock.Park()
	return true, nil
}

// Progress is how much of a response is there.
type Progress uint8

// What Answer found.
const (
	Nothing Progress = iota
	Some             // Receive is to be called
	Head             // of the final response, which Receive would have read
	Whole            // and its body, so that Next does not wait
)

// Answer reads what has come, without waiting. If that is something or there is an
// error, calls wait from here on.
func (c *Client) Answer(r *http.Response) (Progress, error) {
	b, n, err := c.out.sock.Take(socket.Medium)
	if b == nil && err == nil {
		return Nothing, nil
	}
	c.out.sock.Wait()
	if err != nil {
		return Nothing, c.lost(err)
	}
	in := &c.in
	in.cur, in.r, in.w = b, 0, n
	r.Reset()
	n, f, err := wire.ParseResponse(b.B[:n], r, c.method, c.limits)
	if n == 0 || err != nil || r.Status < 200 {
		return Some, nil // Receive finds the same
	}
	c.take(n, f, r)
	if in.complete() {
		return Whole, nil
	}
	return Head, nil
}

// Leave ends waiting for what Post asked for.
func (c *Client) Leave() { c.out.sock.Wait() }

// Receive reads the head of a response. After a deadline it may be called
// again.
func (c *Client) Receive(r *http.Response) error {
	in := &c.in
	if sock := c.out.sock; sock != nil && sock.Backlog() {
		// Of what Post did not get rid of.
		if err := sock.Settle(); err != nil {
			return c.lost(err)
		}
	}
	if err := in.first(socket.Medium); err != nil {
		return c.lost(err)
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
				return fmt.Errorf("%w: %w", stream.ErrClosed, errCut)
			}
			return c.lost(err)
		}
	}
}

func (c *Client) lost(err error) error {
	c.ended = errors.Is(err, io.EOF)
	return broken(err)
}

// Begun says that some of a response has come.
func (c *Client) Begun() bool {
	return c.final || c.in.head != nil || c.in.cur != nil && c.in.w > c.in.r
}

// Unread says that the endpoint has certainly read nothing of this exchange: nothing
// could be written, or the endpoint had ended the connection before anything
// arrived. It is asked after an error and before Abort.
func (c *Client) Unread() bool {
	switch {
	case c.Begun():
		return false
	case c.out.took == 0:
		return true
	case !c.ended || c.out.sock == nil:
		return false // a reset may come after some was read, too
	}
	n, ok := c.out.sock.Unacknowledged()
	return ok && n >= c.out.took
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

// Posted says that the request, or a part of it, is on its way.
func (c *Client) Posted() bool { return c.out.sent }
