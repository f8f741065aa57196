//go:build unix

package socket

import (
	"io"
	"syscall"
)

// able: this system's descriptors can be read and written here.
const able = true

const (
	eintr  = syscall.EINTR
	eagain = syscall.EAGAIN
)

// tryRead reads once. false: nothing is there, wait.
func (c *Conn) tryRead(fd uintptr) bool {
	h := &c.in
	if h.waiting.Load() {
		h.waiting.Store(false)
	}
	p := h.p
	if h.pool {
		h.buf = Get(h.size)
		p = h.buf.B
	}
	for {
		n, errno := sysRead(fd, p)
		switch {
		case errno == syscall.EINTR:
			continue
		case errno == syscall.EAGAIN:
			if h.pool {
				h.buf.Put()
				h.buf = nil
			}
			if h.now {
				h.n, h.err = 0, nil
				return true
			}
			c.park(h, true)
			return false
		case errno != 0:
			h.n, h.err = 0, errno
		case n == 0:
			h.n, h.err = 0, io.EOF
		default:
			h.n, h.err = n, nil
		}
		return true
	}
}

// tryWrite writes until everything is out or the peer has to read first.
func (c *Conn) tryWrite(fd uintptr) bool {
	h := &c.out
	for h.n < len(h.p)+len(h.q) {
		n, errno := write(fd, h.p, h.q, h.n)
		switch {
		case errno == syscall.EINTR:
		case errno == syscall.EAGAIN:
			c.park(h, false)
			return false
		case errno != 0:
			h.err = errno
			return true
		default:
			h.n += n
		}
	}
	return true
}
