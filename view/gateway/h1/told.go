package h1

import (
	"net"

	"github.com/fingerpost/fingerpost/view/gateway/socket"
	"github.com/fingerpost/fingerpost/view/gateway/stream"
	"github.com/fingerpost/fingerpost/wire/http"
	wire "github.com/fingerpost/fingerpost/wire/http/h1"
)

// Owner is whose connection it is.
type Owner interface {
	// Exchange answers a request. If the connection is told (see Conn.Told) it must
	// not wait. false: it is not over; either Conn.Done follows, on the Poller's
	// goroutine, or Conn.Detach was called.
	Exchange(c *Conn) (over bool)
	// Ended says that the connection has ended. It was closed unless it was
	// hijacked.
	Ended(c *Conn)
}

// handler is an Owner that only answers.
type handler func(stream.Downstream)

func (h handler) Exchange(c *Conn) bool { h(c); return true }
func (h handler) Ended(*Conn)           {}

// Leaver hears, on the Poller's goroutine, that a client sends nothing more
// while its exchange is not over.
type Leaver interface{ ClientLeft() }

// Pending says who hears of it; nil: nobody.
func (c *Conn) Pending(l Leaver) {
	if c.leaver = l; c.left && l != nil {
		l.ClientLeft()
	}
}

// told is what a connection needs besides that a Poller's goroutine serves: it
// does what can be done without waiting, and gives the rest to a goroutine, which
// gives the connection back when that waits for a request.
type told struct {
	sock    *socket.Conn // nil: no Poller can tell of this connection
	pending bool         // an exchange is under way
	leaver  Leaver
	left    bool // the client sends nothing more
	more    bool // something came meanwhile
	full    bool // more may be there than the last read took
}

var _ socket.Handler = (*Conn)(nil)

// below finds the socket that a Poller can tell of.
func below(c net.Conn) *socket.Conn {
	for {
		k, ok := c.(*socket.Conn)
		if ok && k.Polled() {
			return k
		}
		n, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return nil
		}
		c = n.NetConn()
	}
}

// take reads what is there; nil: nothing is, and it will be told.
func (c *Conn) take() (*socket.Buffer, int, error) {
	if c.out.sock != nil {
		return c.sock.Take(socket.Small)
	}
	b := socket.Get(socket.Small)
	n, err := c.c.Read(b.B)
	if n > 0 {
		return b, n, nil
	}
	b.Put()
	if socket.Again(err) {
		if err = c.sock.Overdue(); err == nil {
			c.sock.Park()
		}
	}
	return nil, 0, err
}

// look is take for a goroutine.
func (c *Conn) look() (*socket.Buffer, int, error) {
	c.sock.Hold(true)
	defer c.sock.Hold(false)
	return c.take()
}

// Told says that a Poller's goroutine serves the connection.
func (c *Conn) Told() bool { return c.sock != nil && c.sock.Told() }

// Socket is what a Poller tells of; nil: it cannot.
func (c *Conn) Socket() *socket.Conn { return c.sock }

// Readable is of socket.Handler.
func (c *Conn) Readable(left bool) {
	c.left = left
	if c.pending {
		if c.more = true; left && c.leaver != nil {
			c.leaver.ClientLeft()
		}
		return
	}
	c.serveTold()
}

// serveTold serves what is there.
func (c *Conn) serveTold() {
	for {
		c.more = false
		b, n, err := c.take()
		switch {
		case err != nil:
			c.wake()
			c.endTold()
			return
		case b == nil:
			if c.sock.Backlog() { // TLS had something to say
				c.wake()
				c.Detach(func() { c.goOn(true) })
			}
			return
		}
		c.wake()
		c.in.cur, c.in.r, c.in.w = b, 0, n
		c.full = n == len(b.B) || c.out.sock == nil // TLS may hold more
		if !c.portion() || !c.again() {
			return
		}
	}
}

// First serves the bytes that came first, which someone else took.
func (c *Conn) First(b *socket.Buffer, n int, left bool) {
	c.left = left
	c.wake()
	c.in.cur, c.in.r, c.in.w = b, 0, n
	c.full = n == len(b.B)
	if c.portion() && c.again() {
		c.serveTold()
	}
}

// again makes the connection wait for a request; false: there is nothing to be read
// now.
func (c *Conn) again() bool {
	if !c.rest() {
		c.endTold()
		return false
	}
	if c.full || c.more {
		return true
	}
	c.sock.Park()
	return false
}

// portion serves the requests that have come. true: it can wait for more.
func (c *Conn) portion() bool {
	in := &c.in
	for in.cur != nil {
		c.req = requests.Get().(*http.Request)
		n, f, err := wire.ParseRequest(in.cur.B[in.r:in.w], c.req, &c.s.cfg.Limits)
		if n == 0 || err != nil {
			c.release()
			c.detach(unparsed)
			return false
		}
		c.begin(n, f)
		if c.waits() {
			c.detach(parsed)
			return false
		}
		c.pending = true
		if !c.owner.Exchange(c) {
			return false
		}
		if !c.over() {
			return false
		}
	}
	return true
}

// over ends an exchange; false: the connection is not this goroutine's any more.
func (c *Conn) over() bool {
	c.pending = false
	again := c.conclude()
	c.release()
	switch {
	case c.sock.Backlog() || !again && c.last:
		c.Detach(func() { c.goOn(again) })
		return false
	case !again:
		c.endTold()
		return false
	}
	return true
}

// Done ends an exchange that was not over when Exchange returned.
func (c *Conn) Done() {
	if c.over() && c.portion() && c.again() {
		c.serveTold()
	}
}

// endTold ends the connection.
func (c *Conn) endTold() {
	c.sock.Hush()
	c.last = false
	c.finish()
}

// Detach lets f run in a goroutine, which may wait.
func (c *Conn) Detach(f func()) {
	c.sock.Wait()
	c.s.cfg.Go(f)
}

// detach goes on in a goroutine with what follows a step.
func (c *Conn) detach(next int) {
	c.Detach(func() {
		again := true
		if next == parsed {
			again = c.exchange()
			c.release()
		}
		c.goOn(again)
	})
}

// Detached ends an exchange that ended in a goroutine after Detach.
func (c *Conn) Detached() {
	c.pending = false
	again := c.conclude()
	c.release()
	c.goOn(again)
}

// goOn serves the connection in a goroutine.
func (c *Conn) goOn(again bool) {
	if c.sock.Settle() != nil {
		again, c.last = false, false
	}
	c.serve(again)
}
