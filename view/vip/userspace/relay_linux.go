package userspace

import (
	"errors"
	"io"
	"net"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	copySize = 32 << 10
	// spliceAfter is where copying hands over to splice(2). Splice moves bulk
	// without copying it through this process, but needs a pipe (two
	// descriptors) for each direction; most connections never get there.
	spliceAfter = 256 << 10
)

// copier copies streams.
type copier struct{ buffers sync.Pool }

func (c *copier) get() *[copySize]byte {
	if b, ok := c.buffers.Get().(*[copySize]byte); ok {
		return b
	}
	return new([copySize]byte)
}

// copy copies until the end of from. A connection that waits holds no buffer:
// thousands of idle ones cost their goroutines only.
func (c *copier) copy(to, from *net.TCPConn) (total int64, err error) {
	raw, err := from.SyscallConn()
	if err != nil {
		return 0, err
	}
	var (
		buf     *[copySize]byte
		n       int
		readErr error
	)
	read := func(fd uintptr) bool {
		buf = c.get()
		for {
			n, readErr = unix.Read(int(fd), buf[:])
			if !errors.Is(readErr, unix.EINTR) {
				break
			}
		}
		if errors.Is(readErr, unix.EAGAIN) {
			c.buffers.Put(buf)
			buf = nil
			return false
		}
		return true
	}
	for total < spliceAfter {
		if err := raw.Read(read); err != nil {
			return total, err
		}
		if readErr != nil || n <= 0 {
			c.buffers.Put(buf)
			return total, readErr
		}
		w, err := to.Write(buf[:n])
		c.buffers.Put(buf)
		total += int64(w)
		if err != nil {
			return total, err
		}
	}
	n64, err := to.ReadFrom(from)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return total + n64, err
}
