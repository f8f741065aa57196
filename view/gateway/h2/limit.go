package h2

import (
	"fmt"
	"time"

	"github.com/fingerpost/fingerpost/view/gateway/stream"
	wire "github.com/fingerpost/fingerpost/wire/http/h2"
)

// budget is an allowance that time, and useful work, fill up again.
type budget struct {
	left, most, rate int
	last             time.Time
}

func (b *budget) spend() bool {
	if b.left == 0 {
		now := time.Now()
		if b.last.IsZero() {
			b.last = now
			return false
		}
		n := int(min(now.Sub(b.last), time.Minute) * time.Duration(b.rate) / time.Second)
		if n == 0 {
			return false
		}
		b.left, b.last = min(n, b.most), now
	}
	b.left--
	return true
}

func (b *budget) earn() {
	if b.left < b.most {
		b.left++
	}
}

// resets remembers the streams that we reset last: frames that the peer sent
// before it knew are no error (RFC 9113, 5.1).
type resets struct {
	ids  []uint32
	next int
}

func (r *resets) add(id uint32) {
	if len(r.ids) < 128 {
		r.ids = append(r.ids, id)
		return
	}
	r.ids[r.next] = id
	r.next = (r.next + 1) % len(r.ids)
}

func (r *resets) has(id uint32) bool {
	for _, x := range r.ids {
		if x == id {
			return true
		}
	}
	return false
}

// activity is what the watch saw when it looked last.
type activity struct {
	reads   uint64
	written uint64
	partial uint64
	writing bool
	heard   time.Time // of the last bytes of the peer
	since   time.Time // of being idle
	stuck   time.Time // of the write that has not ended
	waits   time.Time // of the head that is not complete
}

// drain is where shutting down has come to.
type drain uint8

const (
	serving drain = iota
	noticed       // the first GOAWAY is out: the client learns of it
	closing       // the second is: no new streams
)

var drainPing = []byte("draining")

// shutdown begins to end a connection of a client: it is told, and what it sends
// before it knows is still served.
func (c *conn) shutdown() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil || c.quitting || c.draining != serving {
		return
	}
	c.draining = noticed
	c.goAway(wire.MaxWindow, wire.NoError, "")
	c.control(wire.AppendPing(c.buffer(), false, drainPing))
	c.kick()
	time.AfterFunc(2*time.Second, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.noMore()
	})
}

// pong is the answer to a PING of ours.
func (c *conn) pong(p []byte) {
	if c.draining == noticed && string(p) == string(drainPing) {
		c.noMore()
		return
	}
	c.pinged = time.Time{}
}

// noMore is the second step: from here on no stream is taken.
func (c *conn) noMore() {
	if c.draining != noticed || c.err != nil || c.quitting {
		return
	}
	c.draining = closing
	c.taken = c.maxID
	c.goAway(c.taken, wire.NoError, "")
	c.kick()
	c.drained()
}

// drained closes the connection when its last stream has ended.
func (c *conn) drained() {
	over := c.draining == closing && len(c.ids) == 0 || c.client && c.peerGone && c.running == 0
	if over && c.err == nil && !c.quitting {
		c.quitting = true
		c.kick()
	}
}

// period is how often the watch looks.
func (c *conn) period(idle bool) time.Duration {
	d := min(c.cfg.WriteTimeout, c.cfg.HeadTimeout)
	if idle {
		d = c.cfg.IdleTimeout
	}
	return max(d/4, time.Millisecond)
}

// look is what the watch does: nothing on the way of a request needs a timer.
func (c *conn) look() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	now := time.Now()
	a := &c.seen
	idle := len(c.ids) == 0 && c.running == 0
	if !idle || a.since.IsZero() || a.reads != c.reads {
		a.since = now
	}
	if !c.writing || !a.writing || a.written != c.written {
		a.stuck = now
	}
	if c.partial == 0 || a.partial != c.partial {
		a.waits = now
	}
	if a.reads != c.reads || idle {
		a.heard = now
	}
	a.reads, a.written, a.writing, a.partial = c.reads, c.written, c.writing, c.partial
	switch {
	case now.Sub(a.stuck) >= c.cfg.WriteTimeout, now.Sub(a.waits) >= c.cfg.HeadTimeout:
		c.fail(errTimeout)
		return
	case c.client && c.quiet(now, idle):
		c.fail(errTimeout)
		return
	case !c.client && idle && now.Sub(a.since) >= c.cfg.IdleTimeout && !c.quitting:
		c.goAway(c.maxPeer(), wire.NoError, "")
		c.quitting = true
		c.kick()
	}
	c.watch.Reset(c.period(idle && c.partial == 0 && !c.writing))
}

// quiet sees to an endpoint that says nothing while it has requests: it is
// asked, and without an answer it is gone.
func (c *conn) quiet(now time.Time, idle bool) bool {
	wait := c.cfg.WriteTimeout / 4
	switch {
	case idle || c.quitting || now.Sub(c.seen.heard) < wait:
		c.pinged = time.Time{}
	case c.pinged.IsZero():
		c.pinged = now
		c.control(wire.AppendPing(c.buffer(), false, alivePing))
		c.kick()
	default:
		return now.Sub(c.pinged) >= wait
	}
	return false
}

var alivePing = []byte("are you?")

var errTimeout = fmt.Errorf("%w: the peer is too slow", stream.ErrClosed)
