package h1

import (
	"errors"
	"net"

	"github.com/fingerpost/fingerpost/view/gateway/socket"
	"github.com/fingerpost/fingerpost/wire/http"
	wire "github.com/fingerpost/fingerpost/wire/http/h1"
)

// output is the writing half of a connection.
type output struct {
	c    net.Conn
	buf  *socket.Buffer // B[:n] is not sent yet; nil: nothing is
	n    int
	tail []byte       // comes after it; it is not ours
	sock *socket.Conn // c, if that is one
	mode framing
	left int64
	done bool // the message is complete
	mute bool // no body may follow (HEAD): what comes is left out
	sent bool // bytes of the message are on their way
	took int  // how many of them the system took
	err  error
}

var (
	errLong  = errors.New("h1: the body is longer than its head said")
	errShort = errors.New("h1: the body ends before the length that its head said")
)

// room gives the buffer to append to.
func (o *output) room() []byte {
	if o.buf == nil {
		o.buf, o.n = socket.Get(socket.Out), 0
	}
	return o.buf.B[:o.n]
}

// put takes what was appended to room; it may have outgrown the buffer.
func (o *output) put(b []byte) error {
	if len(b) <= len(o.buf.B) {
		o.n = len(b)
		return nil
	}
	o.n = 0
	return o.send(b)
}

func (o *output) send(b []byte) error {
	if o.err != nil {
		return o.err
	}
	o.sent = true
	n, err := o.c.Write(b)
	if o.took += n; err != nil {
		o.err = broken(err)
	}
	return o.err
}

// flush sends what is buffered.
func (o *output) flush() error {
	if o.buf == nil {
		return o.err
	}
	b, n, tail := o.buf, o.n, o.tail
	o.buf, o.n, o.tail = nil, 0, nil
	var err error
	switch {
	case len(tail) > 0:
		err = o.both(b.B[:n], tail)
	case n > 0:
		err = o.send(b.B[:n])
	}
	b.Put()
	return err
}

// both sends two pieces as one.
func (o *output) both(p, q []byte) error {
	if o.sock == nil {
		if err := o.send(p); err != nil {
			return err
		}
		return o.send(q)
	}
	if o.err != nil {
		return o.err
	}
	o.sent = true
	n, err := o.sock.WriteBoth(p, q)
	if o.took += n; err != nil {
		o.err = broken(err)
	}
	return o.err
}

// worth is from how many bytes on they are not copied to be sent with others.
const worth = 2048

// whole makes p the body; it is sent with the next flush, and must be there until
// then.
func (o *output) whole(p []byte) error {
	if o.sock == nil || o.mode != counted || len(p) < worth || o.done || o.err != nil || int64(len(p)) != o.left {
		return o.write(p, true)
	}
	o.room()
	o.tail, o.left, o.done = p, 0, true
	return nil
}

// raw buffers bytes, and sends what does not fit. What is larger than the
// buffer goes out without being copied.
func (o *output) raw(p []byte) error {
	b := o.room()
	if len(b)+len(p) <= len(o.buf.B) {
		o.n += copy(o.buf.B[o.n:], p)
		return nil
	}
	if len(b) > 0 && o.sock != nil && len(p) >= worth {
		n := o.n
		o.n = 0
		return o.both(o.buf.B[:n], p)
	}
	if len(b) > 0 {
		k := copy(o.buf.B[o.n:], p)
		o.n, p = o.n+k, p[k:]
		if err := o.send(o.buf.B[:o.n]); err != nil {
			return err
		}
		o.n = 0
	}
	if len(p) >= len(o.buf.B)/2 {
		return o.send(p)
	}
	o.n = copy(o.buf.B, p)
	return nil
}

// begin sets what the body is framed by.
func (o *output) begin(mode framing, length int64, end bool) {
	o.mode, o.left, o.done, o.mute = mode, length, end, end
}

// write is Write of stream.Sink.
func (o *output) write(p []byte, end bool) error {
	if o.err != nil {
		return o.err
	}
	if o.done {
		if len(p) == 0 || o.mute {
			return nil
		}
		return o.fail(errLong)
	}
	if len(p) > 0 {
		switch o.mode {
		case chunked:
			if err := o.chunk(p); err != nil {
				return err
			}
		case counted:
			if o.left -= int64(len(p)); o.left < 0 {
				return o.fail(errLong)
			}
			fallthrough
		default:
			if err := o.raw(p); err != nil {
				return err
			}
		}
	}
	if end {
		return o.end(nil)
	}
	return nil
}

func (o *output) chunk(p []byte) error {
	b := o.room()
	if len(o.buf.B)-len(b) < 32 {
		if err := o.flush(); err != nil {
			return err
		}
		b = o.room()
	}
	if err := o.put(wire.AppendChunkHead(b, len(p))); err != nil {
		return err
	}
	if err := o.raw(p); err != nil {
		return err
	}
	return o.raw(crlf)
}

var crlf = []byte("\r\n")

// end is End of stream.Sink.
func (o *output) end(trailers http.Fields) error {
	if o.err != nil || o.done {
		return o.err
	}
	o.done = true
	switch {
	case o.mode == chunked:
		return o.put(wire.AppendTrailers(o.room(), trailers))
	case o.mode == counted && o.left > 0:
		return o.fail(errShort)
	}
	return nil
}

func (o *output) fail(err error) error {
	o.err = err
	return err
}

// drop lets go of the buffer, unsent.
func (o *output) drop() {
	if o.buf != nil {
		o.buf.Put()
		o.buf, o.n, o.tail = nil, 0, nil
	}
}
