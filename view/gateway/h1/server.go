package h1

import (
	"errors"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fingerpost/fingerpost/view/gateway/socket"
	"github.com/fingerpost/fingerpost/view/gateway/stream"
	"github.com/fingerpost/fingerpost/wire/http"
	wire "github.com/fingerpost/fingerpost/wire/http/h1"
)

// Config is of all connections of clients.
type Config struct {
	Limits wire.Limits
	Idle   time.Duration // how long a connection may wait for a request; 0: 75 s
	Head   time.Duration // how long a head may take to come; 0: 15 s
	Linger time.Duration // how long an unread body is swallowed; 0: 5 s
	Unread int64         // how much of it; 0: 256 KiB
	// Refuse fills in the answer to a head that cannot be understood, and gives
	// its body.
	Refuse func(status int, reason string, r *http.Response) []byte
	// Go runs f in a goroutine of its own; nil: a new one.
	Go func(f func())
	// Date gives the value of the Date field for answers without one; nil: none.
	Date func() []byte
}

func (c *Config) defaults() {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	set(&c.Idle, 75*time.Second)
	set(&c.Head, 15*time.Second)
	set(&c.Linger, 5*time.Second)
	if c.Unread == 0 {
		c.Unread = 256 << 10
	}
	if c.Go == nil {
		c.Go = func(f func()) { go f() }
	}
}

// Server makes connections with one configuration.
type Server struct{ cfg Config }

// NewServer makes one.
func NewServer(cfg Config) *Server {
	cfg.defaults()
	return &Server{cfg: cfg}
}

// States of a connection.
const (
	busy   = iota
	idle   // waits for a request
	nudged // Quit is about to wake it
)

// Conn is a client's connection. Its exported methods other than Serve, Quit
// and Idle are those of stream.Downstream, for the exchange.
type Conn struct {
	s     *Server
	c     net.Conn
	owner Owner
	in    input
	out   output
	req   *http.Request
	state atomic.Int32
	quit  atomic.Bool
	since atomic.Int64 // when it became idle
	noted time.Time    // when the last exchange was over
	next  int          // what is to be done after a step
	last  bool         // the connection is to be closed with care
	told               // what is needed besides if nothing may wait

	asked    bool // the client wants no other request
	closing  bool // no request after this one
	expect   bool // the client waits for a 100
	begun    bool // the final response has begun
	hijacked bool
	aborted  atomic.Bool
}

var requests = sync.Pool{New: func() any { return &http.Request{Fields: make(http.Fields, 0, 24)} }}

// Conn makes the server side of a connection; first are bytes that were read
// from it already, at most 4 KiB.
func (s *Server) Conn(c net.Conn, first []byte, handle func(stream.Downstream)) *Conn {
	k := &Conn{}
	s.Init(k, c, first, handler(handle))
	return k
}

// Init is Conn for memory of the caller's.
func (s *Server) Init(k *Conn, c net.Conn, first []byte, owner Owner) {
	k.s, k.c, k.owner = s, c, owner
	k.in.c, k.out.c = c, c
	k.out.sock, _ = c.(*socket.Conn)
	k.sock = below(c)
	k.in.told = k.sock
	if len(first) > 0 {
		size, _ := socket.Fit(len(first))
		k.in.cur = socket.Get(size)
		k.in.w = copy(k.in.cur.B, first)
	}
}

// Serve serves requests until the connection ends, and closes it. It does not
// close a connection that was hijacked. A connection that a Poller can tell of is
// given to its goroutine as soon as it waits for a request.
func (c *Conn) Serve() { c.serve(true) }

func (c *Conn) serve(again bool) {
	sock, _ := c.c.(*socket.Conn)
	if sock != nil && !sock.Direct() {
		sock = nil
	}
	for again {
		if c.in.cur != nil || sock == nil && c.sock == nil {
			again = c.request()
			continue
		}
		if !c.rest() {
			break
		}
		if c.sock != nil {
			b, n, err := c.look()
			if b == nil && err == nil {
				c.sock.Tell(c)
				return
			}
			c.wake()
			if again = err == nil; again {
				c.in.cur, c.in.r, c.in.w = b, 0, n
			}
			continue
		}
		err := sock.Loop(socket.Small, c.step)
		c.wake()
		// The rest of what step began needs to read, which it cannot.
		if again = err == nil && c.next != ended; !again {
			break
		}
		if c.next == parsed {
			again = c.exchange()
			c.release()
		}
		c.next = ended
	}
	c.finish()
}

// finish ends the connection.
func (c *Conn) finish() {
	if c.last {
		c.linger()
	}
	c.in.drop()
	c.out.drop()
	c.release()
	if !c.hijacked {
		_ = c.c.Close()
	}
	c.owner.Ended(c)
}

// What follows a step.
const (
	ended    = iota // the end of the connection
	unparsed        // a head that is not complete, or refused
	parsed          // a request whose body is not there yet, and the like
)

// step serves the requests that came in one portion, if nothing more needs to
// be read for them. true: wait for more.
func (c *Conn) step(b *socket.Buffer, n int) bool {
	c.wake()
	in := &c.in
	in.cur, in.r, in.w = b, 0, n
	for {
		c.req = requests.Get().(*http.Request)
		n, f, err := wire.ParseRequest(in.cur.B[in.r:in.w], c.req, &c.s.cfg.Limits)
		if n == 0 || err != nil {
			c.release()
			c.next = unparsed
			return false
		}
		c.begin(n, f)
		if c.waits() {
			c.next = parsed
			return false
		}
		again := c.exchange()
		c.release()
		if !again {
			c.next = ended
			return false
		}
		if in.cur == nil {
			if c.rest() {
				return true
			}
			c.next = ended
			return false
		}
	}
}

// waits says that serving the request may need to read more.
func (c *Conn) waits() bool {
	in := &c.in
	return !in.ended && (in.mode != counted || in.left > int64(in.w-in.r) && (c.expect || !in.gather())) || c.expect || len(c.req.Upgrade) > 0 || string(c.req.Method) == "CONNECT"
}

func (c *Conn) release() {
	if c.req != nil {
		c.req.Reset()
		requests.Put(c.req)
		c.req = nil
	}
}

// rest makes the connection one that waits for a request; false: it is to end.
func (c *Conn) rest() bool {
	now := c.noted
	if now.IsZero() {
		now = time.Now()
	}
	c.noted = time.Time{}
	c.since.Store(now.UnixNano())
	_ = c.c.SetReadDeadline(now.Add(c.s.cfg.Idle))
	c.state.Store(idle)
	return !c.quit.Load()
}

// wake makes it one that serves a request.
func (c *Conn) wake() {
	for !c.state.CompareAndSwap(idle, busy) {
		if c.state.Load() == busy {
			return
		}
		runtime.Gosched()
	}
}

// Noted tells what time it is, so that nobody needs to ask again between the
// end of an exchange and the next one.
func (c *Conn) Noted(now time.Time) { c.noted = now }

// Quit makes the connection end after the request that it serves, at once if
// there is none. It does not wait.
func (c *Conn) Quit() {
	c.quit.Store(true)
	if c.state.CompareAndSwap(idle, nudged) {
		_ = c.c.SetReadDeadline(time.Unix(1, 0))
		c.state.Store(idle)
	}
}

// Idle says that no request is being served, and since when: numbers to be
// compared with those of other connections.
func (c *Conn) Idle() (since int64, ok bool) {
	return c.since.Load(), c.state.Load() == idle
}

// request serves one request; false: it was the last one.
func (c *Conn) request() bool {
	if c.in.cur == nil {
		if !c.rest() {
			return false
		}
		err := c.in.first(socket.Small)
		c.wake()
		if err != nil {
			return false
		}
	}
	c.req = requests.Get().(*http.Request)
	again := c.parse() && c.exchange()
	c.release()
	return again
}

// parse reads a head; false: there is none, and the client was told if it was
// its fault.
func (c *Conn) parse() bool {
	c.req.Reset()
	in := &c.in
	n, f, err := wire.ParseRequest(in.cur.B[in.r:in.w], c.req, &c.s.cfg.Limits)
	if n == 0 && err == nil {
		n, f, err = c.slow()
	}
	if err != nil {
		c.refuse(err)
		return false
	}
	c.begin(n, f)
	return true
}

// begin begins a request whose head was parsed.
func (c *Conn) begin(n int, f wire.Framing) {
	c.in.begin(n, f)
	c.asked = c.req.Close // the exchange clears it, as it is nothing of the endpoint's
	c.closing = c.asked || c.quit.Load()
	c.expect = c.req.Expect && !c.in.ended
	c.begun, c.out.sent = false, false
}

// slow reads a head that comes in pieces.
func (c *Conn) slow() (int, wire.Framing, error) {
	in := &c.in
	_ = c.c.SetReadDeadline(time.Now().Add(c.s.cfg.Head))
	for {
		seen := in.w - in.r
		if err := in.more(); err != nil {
			return 0, wire.Framing{}, err
		}
		// A client that sends byte by byte must not make us parse each time.
		if b := in.cur.B[in.r:in.w]; blank(b, seen) || len(b) == len(in.cur.B) || len(b) > c.s.cfg.Limits.Head && c.s.cfg.Limits.Head > 0 {
			c.req.Reset()
			n, f, err := wire.ParseRequest(b, c.req, &c.s.cfg.Limits)
			if n > 0 || err != nil {
				return n, f, err
			}
		}
	}
}

// refuse answers a head that is none.
func (c *Conn) refuse(err error) {
	status, reason := 0, ""
	var bad *wire.Error
	switch {
	case errors.As(err, &bad):
		status, reason = bad.Status, bad.Reason
	case errors.Is(err, stream.ErrTooLarge):
		status = 431
	case errors.Is(err, os.ErrDeadlineExceeded):
		status = 408
	default:
		return // the client went away
	}
	c.in.over()
	c.in.ended = false // whatever follows is swallowed before closing
	c.in.mode = untilClose
	c.req.Reset()
	c.req.Version, c.req.Method = http.HTTP11, []byte("GET")
	c.closing, c.begun = true, false
	r := &http.Response{Version: http.HTTP11, Status: status, Close: true}
	var page []byte
	if c.s.cfg.Refuse != nil {
		page = c.s.cfg.Refuse(status, reason, r)
	}
	r.Length, r.Declared = int64(len(page)), true
	_ = c.c.SetWriteDeadline(time.Now().Add(c.s.cfg.Linger))
	if c.Respond(r, len(page) == 0) == nil && c.Write(page, true) == nil {
		c.last = c.Flush() == nil
	}
}

// exchange lets the gateway answer, and makes the connection ready for the
// next request.
func (c *Conn) exchange() bool {
	c.owner.Exchange(c)
	return c.conclude()
}

// conclude makes the connection ready for the next request; false: there is none.
func (c *Conn) conclude() bool {
	if c.hijacked {
		return false
	}
	if c.aborted.Load() || !c.begun || !c.out.done || c.out.flush() != nil {
		return false
	}
	if !c.in.ended && !c.swallow(c.expect) {
		c.last = true
		return false
	}
	c.in.over()
	if c.asked && c.in.cur == nil {
		return false // the client said that it sends nothing more
	}
	c.last = c.closing || c.quit.Load()
	return !c.last
}

// swallow reads the rest of a body that nobody wanted, if it is not much.
func (c *Conn) swallow(never bool) bool {
	if never || c.closing || c.in.mode == counted && c.in.left > c.s.cfg.Unread {
		return false
	}
	_ = c.c.SetReadDeadline(time.Now().Add(c.s.cfg.Linger))
	for n := int64(0); n < c.s.cfg.Unread; {
		p, end, err := c.in.next()
		if err != nil {
			return false
		}
		if end {
			return true
		}
		n += int64(len(p))
	}
	return false
}

// linger closes the writing side and waits a little for the client to close:
// closing with unread bytes would reset the connection and with it the answer
// that is on its way.
func (c *Conn) linger() {
	k, ok := c.c.(interface{ CloseWrite() error })
	if !ok || k.CloseWrite() != nil {
		return
	}
	c.in.drop()
	d := c.s.cfg.Linger
	if c.quit.Load() {
		d = min(d, time.Second) // somebody waits for the end
	}
	_ = c.c.SetReadDeadline(time.Now().Add(d))
	for n := int64(0); n < 16*c.s.cfg.Unread; {
		b, k, err := socket.ReadBuffer(c.c, socket.Medium, &c.in.wait)
		if err != nil {
			return
		}
		b.Put()
		n += int64(k)
	}
}
