package socket

import (
	"errors"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// epoch is where deadlines are counted from, so that they fit one word and
// steps of the clock do not matter.
var epoch = time.Now()

// Conn is a connection with lazy deadlines. At most one goroutine reads and
// one writes; the other methods may be called by any.
type Conn struct {
	net.Conn
	raw      syscall.RawConn // nil: the methods of Conn are used
	in, out  half
	readable func(fd uintptr) bool
	writable func(fd uintptr) bool

	d       *desc  // of a Poller; nil: the runtime's
	told    bool   // a Handler is told, and nothing waits
	backlog []byte // what was written and the kernel did not take, while nothing waits

	loop   *loop
	inside atomic.Bool // the function of Loop runs
	doomed atomic.Bool // Close was called meanwhile
}

// half is what one direction needs during a call.
type half struct {
	want    atomic.Int64 // nanoseconds after epoch, 0: none
	set     atomic.Int64 // what the runtime knows
	waiting atomic.Bool

	p    []byte  // of the call: what is read into or written
	q    []byte  // what is written after p
	now  bool    // the call does not wait
	buf  *Buffer // or, for ReadBuffer, the buffer
	pool bool
	size Size
	n    int
	err  error
}

// New wraps a connection. A TCP connection's calls go to the kernel directly;
// any other one works, without the savings.
func New(c net.Conn) *Conn {
	k := &Conn{Conn: c}
	if s, ok := c.(syscall.Conn); ok && able {
		if raw, err := s.SyscallConn(); err == nil {
			k.raw = raw
			k.readable, k.writable = k.tryRead, k.tryWrite
		}
	}
	return k
}

// NetConn gives the connection that was wrapped.
func (c *Conn) NetConn() net.Conn { return c.Conn }

// Read reads what is there, and waits if nothing is.
func (c *Conn) Read(p []byte) (int, error) {
	if c.raw == nil {
		return c.plain(&c.in, p, c.Conn.Read)
	}
	if len(p) == 0 {
		return 0, nil
	}
	if c.told {
		n, again, err := c.recv(p)
		if again {
			err = errAgain
		}
		return n, err
	}
	c.in.p, c.in.pool = p, false
	err := c.wait(&c.in, c.readable)
	c.in.p = nil
	if err != nil {
		return 0, err
	}
	return c.in.n, c.in.err
}

// ReadNow reads what is there, and nothing if nothing is. The function of Loop may
// call it.
func (c *Conn) ReadNow(p []byte) (int, error) {
	if c.raw == nil || len(p) == 0 {
		return 0, nil
	}
	if l := c.loop; l != nil && l.fd != 0 {
		return l.readNow(p)
	}
	c.in.now = true
	n, err := c.Read(p)
	c.in.now = false
	return n, err
}

// ReadBuffer waits until there are bytes and reads them into a buffer from the
// pool, which is the caller's to put back.
func (c *Conn) ReadBuffer(s Size) (*Buffer, int, error) {
	if c.raw == nil {
		var one [1]byte
		n, err := c.Read(one[:])
		if n == 0 {
			return nil, 0, err
		}
		b := Get(s)
		b.B[0] = one[0]
		return b, 1, nil
	}
	c.in.pool, c.in.size = true, s
	err := c.wait(&c.in, c.readable)
	b := c.in.buf
	c.in.buf = nil
	if err == nil {
		err = c.in.err
	}
	if err != nil {
		if b != nil {
			b.Put()
		}
		return nil, 0, err
	}
	return b, c.in.n, nil
}

// Write writes all of p.
func (c *Conn) Write(p []byte) (int, error) { return c.WriteBoth(p, nil) }

// WriteBoth writes all of p and then all of q, at once if the kernel takes them.
func (c *Conn) WriteBoth(p, q []byte) (int, error) {
	if c.raw == nil {
		n, err := c.plain(&c.out, p, c.Conn.Write)
		if err == nil && len(q) > 0 {
			var k int
			k, err = c.plain(&c.out, q, c.Conn.Write)
			n += k
		}
		return n, err
	}
	if len(p)+len(q) == 0 {
		return 0, nil
	}
	done := 0
	if c.told {
		return c.writeTold(p, q)
	}
	if len(c.backlog) > 0 {
		if err := c.Settle(); err != nil {
			return 0, err
		}
	}
	if c.loop != nil && c.loop.fd != 0 {
		n, err := direct(c.loop.fd, p, q)
		if err != errBlocked {
			return n, err
		}
		done = n
	}
	c.out.p, c.out.q, c.out.n = p, q, done
	err := c.wait(&c.out, c.writable)
	c.out.p, c.out.q = nil, nil
	if err == nil {
		err = c.out.err
	}
	return c.out.n, err
}

// write writes what comes after the first n bytes of p and q.
func write(fd uintptr, p, q []byte, n int) (int, syscall.Errno) {
	switch {
	case n >= len(p):
		return sysWrite(fd, q[n-len(p):])
	case len(q) == 0:
		return sysWrite(fd, p[n:])
	}
	return sysWriteBoth(fd, p[n:], q)
}

// wait calls the direction's attempt until it is done. A deadline of the
// runtime that strikes before the one that is wanted is moved.
func (c *Conn) wait(h *half, try func(fd uintptr) bool) error {
	h.err = nil
	read := h == &c.in
	for {
		var err error
		if read {
			err = c.raw.Read(try)
		} else {
			err = c.raw.Write(try)
		}
		if h.waiting.Load() {
			h.waiting.Store(false)
		}
		if err == nil {
			return nil
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) || !c.early(h, read) {
			return err
		}
	}
}

// early says that the runtime's deadline came before the one that is wanted,
// and moves it.
func (c *Conn) early(h *half, read bool) bool {
	want := h.want.Load()
	if want != 0 && int64(time.Since(epoch)) >= want {
		return false
	}
	c.arm(h, read, want)
	return true
}

// park makes sure that the runtime's deadline is not later than the one that
// is wanted, before the goroutine waits.
func (c *Conn) park(h *half, read bool) {
	if c.d != nil {
		c.d.watch()
	}
	h.waiting.Store(true)
	for {
		want, set := h.want.Load(), h.set.Load()
		// One that is too early is left: it is moved if it strikes, which for
		// most calls it never does.
		if want == 0 || set != 0 && set <= want {
			return
		}
		c.arm(h, read, want)
		if h.want.Load() == want {
			return
		}
	}
}

func (c *Conn) arm(h *half, read bool, want int64) {
	t := time.Time{}
	if want != 0 {
		t = epoch.Add(time.Duration(want))
	}
	h.set.Store(want)
	if read {
		_ = c.Conn.SetReadDeadline(t)
	} else {
		_ = c.Conn.SetWriteDeadline(t)
	}
}

// SetReadDeadline limits reading; it counts for a call that waits, too.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.want(&c.in, true, t)
	return nil
}

// SetWriteDeadline limits writing; it counts for a call that waits, too.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.want(&c.out, false, t)
	return nil
}

// SetDeadline limits both.
func (c *Conn) SetDeadline(t time.Time) error {
	c.want(&c.in, true, t)
	c.want(&c.out, false, t)
	return nil
}

func (c *Conn) want(h *half, read bool, t time.Time) {
	want := int64(0)
	if !t.IsZero() {
		want = max(int64(t.Sub(epoch)), 1)
	}
	if h.want.Load() == want {
		return
	}
	h.want.Store(want)
	if h.waiting.Load() {
		c.arm(h, read, want)
	}
}

// plain is Read and Write for connections without a descriptor.
func (c *Conn) plain(h *half, p []byte, f func([]byte) (int, error)) (int, error) {
	read := h == &c.in
	for done := 0; ; {
		c.park(h, read)
		n, err := f(p[done:])
		h.waiting.Store(false)
		done += n
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) || !c.early(h, read) {
			return done, err
		}
	}
}

// Close closes the connection.
func (c *Conn) Close() error {
	if !c.inside.Load() {
		return c.Conn.Close()
	}
	// Closing would wait for the function of Loop, which may be who calls this.
	c.doomed.Store(true)
	return nil
}

// CloseWrite ends the writing direction, if the connection can.
func (c *Conn) CloseWrite() error {
	if k, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return k.CloseWrite()
	}
	return errors.ErrUnsupported
}
