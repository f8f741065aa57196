package socket

import (
	"errors"
	"io"
	"os"
)

// What follows is for connections of a Poller whose Handler is told: one goroutine
// at a time uses them, and no call waits.

// Told says that a Handler is told.
func (c *Conn) Told() bool { return c.told }

// Take reads what is there into a buffer from the pool that is the caller's; nil:
// nothing is, and the Handler will be told, also when the read deadline is over.
func (c *Conn) Take(s Size) (*Buffer, int, error) {
	h := &c.in
	if h.waiting.Load() {
		h.waiting.Store(false)
	}
	b := Get(s)
	n, again, err := c.recv(b.B)
	if n > 0 {
		return b, n, nil
	}
	b.Put()
	if again {
		if err = c.overdue(); err == nil {
			c.park(h, true)
		}
	}
	return nil, 0, err
}

// TakeInto is Take into memory of the caller's; 0: nothing is there, and it does not
// wait for it.
func (c *Conn) TakeInto(p []byte) (int, error) {
	n, _, err := c.recv(p)
	return n, err
}

// again says that nothing is there. To crypto/tls it is an error that passes.
type again struct{}

func (again) Error() string   { return "socket: nothing is there yet" }
func (again) Timeout() bool   { return true }
func (again) Temporary() bool { return true }

var errAgain error = again{}

// Again says of an error of Read that nothing was there. Overdue and Park are to be
// called then.
func Again(err error) bool { return err == errAgain }

// Hold makes calls not wait, as if a Handler were told.
func (c *Conn) Hold(on bool) { c.told = on }

// Overdue says that the read deadline is over.
func (c *Conn) Overdue() error { return c.overdue() }

// Park waits for the Handler to be told, without having looked.
func (c *Conn) Park() { c.park(&c.in, true) }

func (c *Conn) recv(p []byte) (n int, again bool, err error) {
	if !c.d.use() {
		return 0, false, errClosed
	}
	for {
		var errno error
		n, errno = c.d.recv(p)
		switch {
		case errno == eintr:
			continue
		case errno == eagain:
			again = true
			n = 0
		case errno != nil:
			n, err = 0, errno
		case n == 0 && len(p) > 0:
			err = io.EOF
		}
		break
	}
	c.d.unuse()
	return n, again, err
}

func (c *Conn) overdue() error {
	if c.d.r.expired.Load() && !c.early(&c.in, true) {
		return os.ErrDeadlineExceeded
	}
	return nil
}

// writeTold writes what the kernel takes, and keeps the rest.
func (c *Conn) writeTold(p, q []byte) (int, error) {
	all := len(p) + len(q)
	n := 0
	if len(c.backlog) == 0 {
		var err error
		if n, err = c.try(p, q); err == nil || !errors.Is(err, errBlocked) {
			return n, err
		}
	}
	c.backlog = append(c.backlog, rest(p, n)...)
	c.backlog = append(c.backlog, rest(q, n-len(p))...)
	return all, nil
}

func (c *Conn) try(p, q []byte) (n int, err error) {
	if !c.d.use() {
		return 0, errClosed
	}
	n, err = direct(c.d.number(), p, q)
	c.d.unuse()
	return n, err
}

// Backlog says that not all is written. Nothing more should be before Settle.
func (c *Conn) Backlog() bool { return len(c.backlog) > 0 }

// Settle writes what is not written yet. It waits, so that the Handler must not be
// told any more.
func (c *Conn) Settle() error {
	p := c.backlog
	c.backlog = nil
	if len(p) == 0 {
		return nil
	}
	_, err := c.WriteBoth(p, nil)
	return err
}

// Send writes what the kernel takes of p and q at once, and says how much that was.
func (c *Conn) Send(p, q []byte) (int, error) {
	n, err := c.try(p, q)
	if err == errBlocked {
		err = nil
	}
	return n, err
}
