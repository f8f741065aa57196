package h2

import (
	"net"
	"sync"

	wire "github.com/fingerpost/fingerpost/wire/http/h2"
)

// inSize holds a frame of the size that we allow, and then some.
const inSize = 32 << 10

var inBuffers = sync.Pool{New: func() any { return new([inSize]byte) }}

// reader is where the bytes of the peer arrive. While little comes at once they
// are read into a few bytes of the connection's own: one that waits holds no
// buffer, whether it has streams or not.
type reader struct {
	few  [400]byte
	big  *[inSize]byte
	buf  []byte // few or big
	r, w int
	much bool // the last read gave more than a few
}

func (r *reader) bytes() []byte { return r.buf[r.r:r.w] }

func (r *reader) release() {
	if r.big != nil {
		inBuffers.Put(r.big)
		r.big = nil
	}
	r.buf, r.r, r.w = nil, 0, 0
}

// fill reads more; need is how many bytes must be there together before
// anything can be done.
func (r *reader) fill(c net.Conn, need int) error {
	if r.r == r.w {
		r.r, r.w = 0, 0
		if !r.much {
			if r.big != nil {
				r.release()
			}
			r.buf = r.few[:]
		} else if r.big == nil {
			r.grow()
		}
	}
	if r.r+need > len(r.buf) || r.w == len(r.buf) {
		if r.big == nil {
			r.grow()
		} else {
			r.w = copy(r.buf, r.buf[r.r:r.w])
			r.r = 0
		}
	}
	n, err := c.Read(r.buf[r.w:])
	r.w += n
	r.much = n >= len(r.few)
	if n > 0 {
		return nil
	}
	return err
}

func (r *reader) grow() {
	big := inBuffers.Get().(*[inSize]byte)
	r.w = copy(big[:], r.buf[r.r:r.w])
	r.r = 0
	r.big, r.buf = big, big[:]
}

// readFrames reads until the connection ends.
func (c *conn) readFrames() error {
	r := &c.in
	if !c.client {
		if err := c.preface(); err != nil {
			return err
		}
	}
	for {
		for r.w-r.r >= wire.HeaderLen {
			h := wire.ParseHeader(r.bytes())
			if h.Length > wire.MinFrame {
				return wire.ErrFrameSize
			}
			need := wire.HeaderLen + int(h.Length)
			if h.Type == wire.Data && h.Flags&wire.Padded == 0 && h.Length > 0 {
				c.read++
				r.r += wire.HeaderLen
				if err := c.streamData(h); err != nil {
					return err
				}
				continue
			}
			if r.w-r.r < need {
				if err := c.more(need); err != nil {
					return err
				}
				continue
			}
			p := r.buf[r.r+wire.HeaderLen : r.r+need]
			r.r += need
			if err := c.frame(h, p); err != nil {
				return err
			}
		}
		if err := c.more(wire.HeaderLen); err != nil {
			return err
		}
	}
}

// more waits for bytes of the peer. What the reader queued is sent before.
func (c *conn) more(need int) error {
	c.mu.Lock()
	if len(c.out) > 0 && c.flushing {
		c.kick()
	}
	c.reads++
	switch {
	case c.restID != 0:
		c.partial = uint64(c.restID) << 32
	case c.in.r < c.in.w || !c.hello:
		c.partial = c.read + 1
	default:
		c.partial = 0
	}
	c.mu.Unlock()
	return c.in.fill(c.net, need)
}

// streamData takes a DATA frame as its bytes come, so that a frame needs not be
// in the buffer as a whole.
func (c *conn) streamData(h wire.Header) error {
	if err := c.beginData(h, int(h.Length)); err != nil {
		return err
	}
	r := &c.in
	left := int(h.Length)
	for {
		n := min(left, r.w-r.r)
		left -= n
		c.data(h, r.buf[r.r:r.r+n], 0, left == 0)
		r.r += n
		if left == 0 {
			return nil
		}
		if err := c.more(1); err != nil {
			return err
		}
	}
}
