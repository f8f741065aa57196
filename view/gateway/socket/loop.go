package socket

import (
	"errors"
	"io"
	"time"
)

// loop is what Loop and Ask need. Both save the attempt to read that finds
// nothing: the runtime remembers that something came while nobody waited, as long
// as nobody asks it to forget, which every ordinary read does first.
type loop struct {
	f    func(*Buffer, int) bool
	size Size
	each func(fd uintptr) bool // tryLoop, made once
	fd   uintptr               // of the running f; 0: none runs
	full bool                  // more may be there than the last read took

	ask    []byte // not sent yet, and what follows it
	more   []byte
	sent   int
	early  int64                 // the deadline that Ask set to look by itself
	answer func(fd uintptr) bool // tryAsk, made once
	look   bool                  // something came before Ask
}

// soon is when Ask looks by itself whether something came: a peer may have ended
// its half of the connection at the one moment at which that is not noticed.
const soon = time.Second

var errBlocked = errors.New("socket: the peer does not read")

// Direct says that Loop and Ask work on this connection.
func (c *Conn) Direct() bool { return c.raw != nil }

// Loop waits for bytes and calls f with each portion, in a buffer from the pool that
// is f's, until f says false or reading fails. While f runs it may Write and
// ReadNow, and nobody else can read. A Close meanwhile ends the loop; who called Loop closes then.
func (c *Conn) Loop(s Size, f func(b *Buffer, n int) bool) error {
	if c.loop == nil {
		c.loop = &loop{}
	}
	l := c.loop
	if l.each == nil {
		l.each = c.tryLoop
	}
	l.f, l.size = f, s
	if err := c.wait(&c.in, l.each); err != nil {
		return err
	}
	return c.in.err
}

// tryLoop is called when there may be bytes.
func (c *Conn) tryLoop(fd uintptr) bool {
	l := c.loop
	for {
		c.in.pool, c.in.size = true, l.size
		if !c.tryRead(fd) {
			return false
		}
		b, n := c.in.buf, c.in.n
		c.in.buf = nil
		if c.in.err != nil {
			if b != nil {
				b.Put()
			}
			return true
		}
		l.full = n == len(b.B)
		l.fd = fd
		c.inside.Store(true)
		again := l.f(b, n)
		c.inside.Store(false)
		l.fd = 0
		if !again || c.doomed.Load() {
			return true
		}
		if !l.full {
			c.park(&c.in, true)
			return false
		}
	}
}

// readNow is ReadNow of the running f.
func (l *loop) readNow(p []byte) (int, error) {
	for {
		n, errno := sysRead(l.fd, p)
		switch {
		case errno == eintr:
		case errno == eagain:
			l.full = false
			return 0, nil
		case errno != 0:
			return 0, errno
		case n == 0:
			l.full = true // the end is met again
			return 0, io.EOF
		default:
			l.full = n == len(p)
			return n, nil
		}
	}
}

// direct writes what the kernel takes at once.
func direct(fd uintptr, p, q []byte) (n int, err error) {
	for n < len(p)+len(q) {
		k, errno := write(fd, p, q, n)
		switch errno {
		case 0:
			n += k
		case eintr:
		case eagain:
			return n, errBlocked
		default:
			return n, errno
		}
	}
	return n, nil
}

// Ask writes p and q and waits for what comes after them, in a buffer from the
// pool that is the caller's. Nothing may have been expected before. sent is how
// much was written.
func (c *Conn) Ask(p, q []byte, s Size) (b *Buffer, n, sent int, err error) {
	if c.loop == nil {
		c.loop = &loop{}
	}
	l := c.loop
	if l.answer == nil {
		l.answer = c.tryAsk
	}
	l.ask, l.more, l.sent = p, q, 0
	l.look = c.d != nil && c.d.news() // the peer ended the connection meanwhile, most likely
	c.in.pool, c.in.size = true, s
	err = c.wait(&c.in, l.answer)
	l.ask, l.more = nil, nil
	b = c.in.buf
	c.in.buf = nil
	if err == nil {
		err = c.in.err
	}
	if err != nil {
		if b != nil {
			b.Put()
		}
		if err != errBlocked {
			return nil, 0, l.sent, err
		}
		// The rest goes the ordinary way.
		if l.sent < len(p) {
			_, err = c.WriteBoth(p[l.sent:], q)
		} else {
			_, err = c.Write(q[l.sent-len(p):])
		}
		if err != nil {
			return nil, 0, l.sent, err
		}
		b, n, err = c.ReadBuffer(s)
		return b, n, len(p) + len(q), err
	}
	return b, c.in.n, l.sent, nil
}

func (c *Conn) tryAsk(fd uintptr) bool {
	l := c.loop
	all := len(l.ask) + len(l.more)
	if l.sent == all {
		return c.tryRead(fd)
	}
	n, err := direct(fd, rest(l.ask, l.sent), rest(l.more, l.sent-len(l.ask)))
	if l.sent += n; err != nil {
		c.in.err = err
		return true
	}
	h := &c.in
	if l.look {
		l.look = false
		return c.tryRead(fd)
	}
	if c.d != nil {
		c.park(h, true) // what comes is not forgotten
		return false
	}
	h.waiting.Store(true)
	want, set := h.want.Load(), h.set.Load()
	if set == 0 || set != l.early { // else it is still what was set here before
		l.early = int64(time.Since(epoch) + soon)
		if want == 0 || want > l.early {
			c.arm(h, true, l.early)
		}
	}
	if set := h.set.Load(); want != 0 && (set == 0 || set > want) || h.want.Load() != want {
		c.park(h, true)
	}
	return false
}

func rest(p []byte, from int) []byte {
	if from <= 0 {
		return p
	}
	return p[min(from, len(p)):]
}
