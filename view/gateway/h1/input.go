package h1

import (
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"

	"github.com/fingerpost/fingerpost/view/gateway/socket"
	"github.com/fingerpost/fingerpost/view/gateway/stream"
	"github.com/fingerpost/fingerpost/wire/http"
	wire "github.com/fingerpost/fingerpost/wire/http/h1"
)

// framing is how the end of a body is found.
type framing uint8

const (
	none framing = iota
	counted
	chunked
	untilClose
)

// input is the reading half of a connection: a head, then a body, and so on.
type input struct {
	c    net.Conn
	told *socket.Conn   // below c, if a Poller can tell of it
	head *socket.Buffer // what the current head points into
	cur  *socket.Buffer // holds B[r:w], which nobody has consumed; may be head
	r, w int
	wait [1]byte

	mode    framing
	left    int64 // of a counted body
	ended   bool
	stash   []byte // decoded, not yet given
	stashed bool
	bulk    bool // the body is large: read it in large pieces
	chunks  wire.Chunks
}

// first waits for the first bytes of a message.
func (in *input) first(s socket.Size) error {
	if in.cur != nil {
		return nil
	}
	b, n, err := socket.ReadBuffer(in.c, s, &in.wait)
	if err != nil {
		return err
	}
	in.cur, in.r, in.w = b, 0, n
	return nil
}

// more reads at least one more byte behind those of an incomplete head.
func (in *input) more() error {
	if in.w == len(in.cur.B) {
		size, ok := socket.Fit(2 * (in.w - in.r))
		if !ok {
			return stream.ErrTooLarge
		}
		b := socket.Get(size)
		in.w = copy(b.B, in.cur.B[in.r:in.w])
		in.r = 0
		in.cur.Put()
		in.cur = b
	}
	n, err := in.c.Read(in.cur.B[in.w:])
	in.w += n
	if n > 0 {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// blank looks for the end of a head in what was not searched before.
func blank(b []byte, from int) bool {
	for i := max(from-3, 0); i < len(b); i++ {
		if b[i] == '\n' && i > 0 && (b[i-1] == '\n' || i > 1 && b[i-1] == '\r' && b[i-2] == '\n') {
			return true
		}
	}
	return false
}

// begin takes the head off and sets how its body ends. The head stays where it
// is until the exchange is over.
func (in *input) begin(n int, f wire.Framing) {
	in.r += n
	in.head = in.cur
	in.stashed, in.ended, in.bulk = false, false, false
	switch {
	case f.Chunked:
		in.mode = chunked
		in.chunks = wire.Chunks{}
	case f.UntilClose:
		in.mode = untilClose
	case f.Length > 0:
		in.mode, in.left = counted, f.Length
		in.bulk = f.Length > int64(socket.Medium.Len())
	default:
		in.mode, in.ended = none, true
	}
}

// retire lets go of the current buffer, all of whose bytes were consumed.
func (in *input) retire() {
	if in.cur != nil && in.cur != in.head {
		in.cur.Put()
	}
	in.cur, in.r, in.w = nil, 0, 0
}

// refill waits for more of the body.
func (in *input) refill() error {
	in.retire()
	size := socket.Medium
	if in.bulk {
		size = socket.Large
	}
	if _, ok := in.c.(*socket.Conn); ok {
		return in.first(size)
	}
	// Over TLS waiting without a buffer gives one byte; a body is worth one.
	b := socket.Get(size)
	n, err := in.c.Read(b.B)
	if n == 0 {
		b.Put()
		if err == nil {
			err = io.ErrNoProgress
		}
		return err
	}
	in.cur, in.r, in.w = b, 0, n
	return nil // an error comes again
}

// next is Next of stream.Body.
func (in *input) next() ([]byte, bool, error) {
	if in.stashed {
		in.stashed = false
		return in.stash, in.ended, nil
	}
	if in.ended {
		return nil, true, nil
	}
	for {
		if in.r < in.w {
			p, err := in.decode()
			if err != nil {
				return nil, false, err
			}
			if len(p) > 0 || in.ended {
				return p, in.ended, nil
			}
		}
		if err := in.refill(); err != nil {
			if in.mode == untilClose && errors.Is(err, io.EOF) {
				in.ended = true
				return nil, true, nil
			}
			return nil, false, broken(err)
		}
	}
}

// into is next that reads a body of known length right to where it shall be. If it
// shall not wait, there may be nothing.
func (in *input) into(p []byte, wait bool) (n int, end bool, err error) {
	if in.mode != counted || in.stashed || in.r < in.w || in.ended {
		var b []byte
		if !in.ended && !wait && !in.ready() {
			return 0, false, nil
		}
		if b, end, err = in.next(); len(b) > len(p) { // which only a buffer of a later size could give
			in.stash, in.stashed, end = b[len(p):], true, false
		}
		return copy(p, b), end, err
	}
	if p = p[:min(int64(len(p)), in.left)]; len(p) == 0 {
		return 0, false, nil
	}
	in.retire()
	if wait {
		n, err = in.c.Read(p)
	} else {
		n, err = in.readNow(p)
	}
	in.left -= int64(n)
	in.ended = in.left == 0
	if n > 0 {
		err = nil // it comes again
	}
	if err != nil {
		err = broken(err)
	}
	return n, in.ended, err
}

// gather reads the rest of a body of known length if it is there and not too much:
// true. What has come is in one piece then. It is for connections in a Loop.
func (in *input) gather() bool {
	if in.left > int64(socket.Large.Len()) {
		return false
	}
	b := socket.Get(socket.Large)
	n := copy(b.B, in.cur.B[in.r:in.w])
	from := n
	for int64(n) < in.left {
		k, err := in.readNow(b.B[n:])
		if n += k; k == 0 || err != nil {
			break
		}
	}
	if n == from {
		b.Put()
		return false
	}
	in.cur, in.r, in.w = b, 0, n // the other one has the head
	return in.left <= int64(in.w)
}

// readNow reads what is there.
func (in *input) readNow(p []byte) (int, error) {
	k, ok := in.c.(*socket.Conn)
	switch {
	case !ok && in.told != nil && in.told.Told():
		n, err := in.c.Read(p)
		if n > 0 || socket.Again(err) {
			err = nil
		}
		return n, err
	case !ok:
		return 0, nil
	case k.Told():
		return k.TakeInto(p)
	}
	return k.ReadNow(p)
}

// complete says that all of the body is here, so that next never waits.
func (in *input) complete() bool {
	switch {
	case in.ended:
		return true
	case in.mode == counted:
		return in.left <= int64(in.w-in.r)
	case in.mode != chunked || in.stashed:
		return false
	}
	// A copy is decoded; what is in the buffer is little.
	chunks := in.chunks
	for b := in.cur.B[in.r:in.w]; len(b) > 0; {
		used, _, end, err := chunks.Next(b)
		if end || err != nil {
			return true
		}
		if used == 0 {
			return false
		}
		b = b[used:]
	}
	return false
}

// decode takes what it can out of the buffer, without waiting.
func (in *input) decode() ([]byte, error) {
	b := in.cur.B[in.r:in.w]
	switch in.mode {
	case counted:
		if int64(len(b)) >= in.left {
			b = b[:in.left]
			in.ended = true
		}
		in.left -= int64(len(b))
		in.r += len(b)
		return b, nil
	case untilClose:
		in.r = in.w
		in.bulk = len(b) == len(in.cur.B)
		return b, nil
	default:
		for {
			used, p, end, err := in.chunks.Next(b)
			if err != nil {
				return nil, fmt.Errorf("%w: %w", stream.ErrMalformed, err)
			}
			in.r += used
			in.ended = end
			if len(p) > 0 || end || used == 0 || used == len(b) {
				in.bulk = len(p) >= socket.Medium.Len()/2
				return p, nil
			}
			b = b[used:]
		}
	}
}

// ready is Ready of stream.Body. A chunk's head alone is not data yet.
func (in *input) ready() bool {
	if in.stashed || in.ended {
		return true
	}
	if in.r == in.w {
		return false
	}
	if in.mode != chunked {
		return true
	}
	p, err := in.decode()
	if err != nil {
		return true // the same error comes again
	}
	if len(p) > 0 || in.ended {
		in.stash, in.stashed = p, true
		return true
	}
	return false
}

func (in *input) trailers() http.Fields {
	if in.mode == chunked && in.ended && !in.stashed {
		return in.chunks.Trailers
	}
	return nil
}

// over ends the message: its head is let go of, and bytes of the next one stay.
func (in *input) over() {
	if in.head != nil && in.head != in.cur {
		in.head.Put()
	}
	in.head = nil
	if in.cur != nil && in.r == in.w {
		in.retire()
	}
	in.mode, in.ended, in.stashed, in.stash = none, true, false, nil
}

// drop lets go of everything.
func (in *input) drop() {
	in.over()
	if in.cur != nil {
		in.r = in.w
		in.retire()
	}
}

// broken gives the errors of a connection the names that the exchange knows.
func broken(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrClosedPipe) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNABORTED) || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EHOSTDOWN) {
		return fmt.Errorf("%w: %w", stream.ErrClosed, err)
	}
	return err
}
