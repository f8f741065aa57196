package gateway

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/fingerpost/fingerpost/view/gateway/socket"
	"github.com/fingerpost/fingerpost/view/gateway/stream"
	"github.com/fingerpost/fingerpost/wire/http"
)

// maxBuffered is how much of a body is collected with BufferRequest.
const maxBuffered = 1 << 20

// pump is the body of a request on its way. What was read of it is kept, to be
// sent again, until it is too much.
type pump struct {
	kind   body
	piece  []byte // whole: all of the body, in the buffer of the client's connection
	kept   []byte // else: what was read so far
	buffer *socket.Buffer
	spilt  bool // kept is not all any more
	ended  bool // kept, if not spilt, is the whole body

	started bool
	done    chan struct{}
	stop    atomic.Bool
	running atomic.Bool
	moved   atomic.Int64
	seen    int64 // moved, at the last look

	src, dst error // of the client, of the endpoint; after done
}

type body uint8

const (
	empty    body = iota
	whole         // came with the head, or was collected
	streamed      // is read while it is sent
)

func (p *pump) reset() {
	if p.kind == empty {
		return
	}
	if p.buffer != nil {
		p.buffer.Put()
		p.buffer = nil
	}
	p.kind, p.piece, p.kept = empty, nil, nil
	p.spilt, p.ended, p.started, p.src, p.dst, p.seen = false, false, false, nil, nil, 0
	p.stop.Store(false)
	p.moved.Store(0)
}

var (
	errTooLong = errors.New("gateway: the body is larger than allowed")
	errSlow    = errors.New("gateway: the body comes too slowly")
)

// collect takes what is there of the body. false: the client was answered.
func (x *exchange) collect(expect bool) bool {
	p := &x.pump
	if x.req.Length == 0 {
		return true
	}
	p.kind = streamed
	buffered := x.at.policy.BufferRequest
	if expect {
		if !buffered {
			return true
		}
		if x.d.Respond(&http.Response{Version: http.HTTP11, Status: 100}, true) != nil {
			x.gone = true
			return false
		}
	}
	if !buffered && x.plain != nil && x.req.Length > 0 {
		return x.ahead()
	}
	if !buffered && !x.d.Ready() {
		return true
	}
	began := time.Now()
	x.d.SetReadDeadline(began.Add(x.e.cfg.Timeouts.BodyRead))
	for {
		b, end, err := x.d.Next()
		if err == nil {
			err = x.count(len(b))
		}
		if err == nil && !end && x.req.Length > 0 && x.slow(time.Since(began)) {
			err = errSlow
		}
		if err != nil {
			x.clientFailed(err)
			return false
		}
		if end && len(p.kept) == 0 && len(x.d.Trailers()) == 0 {
			p.kind, p.piece = whole, b
			if len(b) > 0 && x.req.Length == http.Unknown {
				x.req.Length = int64(len(b))
			}
			return true
		}
		p.keep(b, buffered)
		if end {
			p.ended = true
			return true
		}
		if !buffered || len(p.kept) >= maxBuffered {
			return true
		}
		x.d.SetReadDeadline(time.Now().Add(x.e.cfg.Timeouts.BodyRead))
	}
}

// ahead takes what has come of a body of known length, without waiting: often that
// is all of it. false: the client was answered.
func (x *exchange) ahead() bool {
	p := &x.pump
	var first []byte
	if x.d.Ready() {
		b, end, err := x.d.Next()
		if err == nil {
			err = x.count(len(b))
		}
		if err != nil {
			x.clientFailed(err)
			return false
		}
		if end {
			p.kind, p.piece = whole, b
			return true
		}
		first = b
	}
	p.buffer = socket.Get(socket.Large)
	p.kept = append(p.buffer.B[:0], first...)
	_, end, err := x.fill(false)
	switch {
	case err != nil:
		x.clientFailed(err)
		return false
	case end:
		p.kind, p.piece, p.ended = whole, p.kept, true
	case len(p.kept) == 0: // it may take its time
		p.buffer.Put()
		p.buffer, p.kept = nil, nil
	}
	return true
}

// fill reads more of a body of known length to what is kept.
func (x *exchange) fill(wait bool) (b []byte, end bool, err error) {
	p := &x.pump
	from := len(p.kept)
	n, end, err := x.plain.Into(p.kept[from:cap(p.kept)], wait)
	p.kept = p.kept[:from+n]
	if err == nil {
		err = x.count(n)
	}
	return p.kept[from:], end, err
}

// fills says that the rest of the body, or much of it, has room in what is kept.
func (x *exchange) fills() bool {
	p := &x.pump
	if x.plain == nil || x.req.Length <= 0 || p.spilt {
		return false
	}
	if p.kept == nil {
		p.buffer = socket.Get(socket.Large)
		p.kept = p.buffer.B[:0]
	}
	room := cap(p.kept) - len(p.kept)
	return room >= socket.Medium.Len() || int64(room) >= x.req.Length-x.received && room > 0
}

// keep adds to what can be sent again, or gives that up.
func (p *pump) keep(b []byte, more bool) {
	switch {
	case p.spilt:
	case p.kept == nil && len(b) <= socket.Large.Len() && !more:
		p.buffer = socket.Get(socket.Large)
		p.kept = append(p.buffer.B[:0], b...)
	case len(p.kept)+len(b) <= cap(p.kept) || more:
		p.kept = append(p.kept, b...)
	default:
		p.spilt, p.kept = true, nil
		if p.buffer != nil {
			p.buffer.Put()
			p.buffer = nil
		}
	}
}

func (x *exchange) count(n int) error {
	x.received += int64(n)
	if x.at.body >= 0 && x.received > x.at.body {
		return errTooLong
	}
	return nil
}

// replayable says that the request can be sent once more as it was.
func (x *exchange) replayable() bool {
	p := &x.pump
	return p.kind != streamed || !p.spilt && p.src == nil
}

// send sends the request, or begins to.
func (x *exchange) send(u stream.Upstream, expect bool) error {
	p := &x.pump
	if p.kind != streamed {
		bare := p.kind == empty || len(p.piece) == 0 && x.req.Length != http.Unknown
		err := u.Send(x.req, bare)
		if err == nil && !bare {
			if x.single != nil {
				err = x.single.Whole(p.piece)
			} else {
				err = u.Write(p.piece, true)
			}
		}
		if err == nil && x.single == nil {
			err = u.Flush() // else receive does it
		}
		return err
	}
	if err := u.Send(x.req, false); err != nil {
		return err
	}
	if expect && !p.started && !x.at.policy.BufferRequest {
		if x.d.Respond(&http.Response{Version: http.HTTP11, Status: 100}, true) != nil {
			p.src = errGone
			return errGone
		}
	}
	p.started, p.dst = true, nil
	p.stop.Store(false)
	p.running.Store(true)
	go x.pour(u)
	return nil
}

// pour carries the body from the client to the endpoint.
func (x *exchange) pour(u stream.Upstream) {
	p := &x.pump
	defer func() {
		if why := recover(); why != nil {
			x.failed(why)
			p.src = errPanic
			p.running.Store(false)
			p.done <- struct{}{}
		}
	}()
	p.src, p.dst = x.flow(u)
	if p.src != nil && !p.stop.Load() {
		u.Abort(p.src) // wakes who waits for the response
	}
	p.running.Store(false)
	p.done <- struct{}{}
}

func (x *exchange) flow(u stream.Upstream) (src, dst error) {
	p, d := &x.pump, x.d
	if len(p.kept) > 0 || p.ended {
		if p.ended {
			if err := u.Write(p.kept, false); err != nil {
				return nil, err
			}
			return nil, x.finish(u)
		}
		if err := u.Write(p.kept, false); err != nil {
			return nil, err
		}
	}
	if err := u.Flush(); err != nil {
		return nil, err
	}
	t := &x.e.cfg.Timeouts
	var waited time.Duration
	for !p.stop.Load() {
		ready := d.Ready()
		before := time.Now()
		if !ready {
			if err := u.Flush(); err != nil {
				return nil, err
			}
		}
		d.SetReadDeadline(before.Add(t.BodyRead))
		if p.stop.Load() {
			break // whoever stops sets a deadline of its own
		}
		var b []byte
		var end bool
		var err error
		if x.fills() {
			b, end, err = x.fill(true)
		} else if b, end, err = d.Next(); err == nil {
			p.keep(b, false)
			err = x.count(len(b))
		}
		if err != nil {
			if p.stop.Load() && !errors.Is(err, errTooLong) {
				break
			}
			return err, nil
		}
		if !ready && x.req.Length > 0 {
			waited += time.Since(before)
			if x.slow(waited) {
				return errSlow, nil
			}
		}
		p.moved.Add(int64(len(b)) + 1)
		u.SetWriteDeadline(time.Now().Add(x.at.send))
		if end {
			p.ended = true
			if err := u.Write(b, false); err != nil {
				return nil, err
			}
			return nil, x.finish(u)
		}
		if err := u.Write(b, false); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// slow says that a body comes too slowly, of whose client this was waited for.
func (x *exchange) slow(waited time.Duration) bool {
	l := &x.e.cfg.Limits
	return l.BodyRate > 0 && waited > l.BodyGrace && float64(x.received) < float64(l.BodyRate)*waited.Seconds()
}

// finish ends the body towards the endpoint.
func (x *exchange) finish(u stream.Upstream) error {
	if err := u.End(x.d.Trailers()); err != nil {
		return err
	}
	return u.Flush()
}

// busy says that the body moved since the last time this was asked.
func (p *pump) busy() bool {
	if !p.started || !p.running.Load() {
		return false
	}
	n := p.moved.Load()
	if n == p.seen {
		return false
	}
	p.seen = n
	return true
}

// halt ends the pump, if it runs, and waits for it. The exchange can read the
// client's body again after it.
func (p *pump) halt(x *exchange) {
	if !p.started || p.done == nil {
		return
	}
	if p.running.Load() {
		p.stop.Store(true)
		for p.running.Load() {
			x.d.SetReadDeadline(time.Unix(1, 0))
			x.u.SetWriteDeadline(time.Unix(1, 0))
			select {
			case <-p.done:
				p.started = false
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	<-p.done
	p.started = false
}

// clientFailed answers a request whose body did not come as it should.
func (x *exchange) clientFailed(err error) {
	switch {
	case errors.Is(err, errTooLong):
		x.answer(413, nil, nil, "")
	case errors.Is(err, errSlow) || isTimeout(err):
		x.answer(408, nil, nil, "")
	case errors.Is(err, stream.ErrMalformed):
		x.answer(400, nil, nil, "The request's body cannot be understood.")
	default:
		x.gone = true
		x.d.Abort(fmt.Errorf("gateway: read the request: %w", err))
	}
}
