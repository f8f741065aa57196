package cluster

import (
	"net"
	"slices"
	"time"

	"github.com/fingerpost/fingerpost/view/gateway/socket"
)

// Slot is the place of a connection in the pool of its endpoint. Its codec says
// at the end of each exchange what becomes of it.
type Slot struct {
	endpoint *Endpoint
	codec    HTTP1
	since    time.Duration // idle since
	probe    probe
	sock     *socket.Conn // that a Poller tells of; nil: none does
}

func newSlot(e *Endpoint, conn net.Conn) *Slot {
	s := &Slot{endpoint: e, probe: newProbe(conn)}
	if k, ok := conn.(*socket.Conn); ok && k.Polled() {
		s.sock = k
	}
	return s
}

// Endpoint is whose connection it is.
func (s *Slot) Endpoint() *Endpoint { return s.endpoint }

// Keep gives the connection back for other exchanges. Nothing of this one may
// be left in it, and it must have no deadlines. It may be closed before Keep
// returns.
func (s *Slot) Keep() {
	e := s.endpoint
	s.since = e.cluster.set.about()
	e.mu.Lock()
	if e.removed || len(e.idle) >= e.cluster.set.cfg.MaxIdle {
		e.open--
		e.mu.Unlock()
		s.codec.Close()
		return
	}
	e.idle = append(e.idle, s)
	e.mu.Unlock()
}

// Drop says that the codec has closed the connection, or given it away.
func (s *Slot) Drop() {
	e := s.endpoint
	now := e.cluster.set.now()
	e.mu.Lock()
	e.open--
	e.suspect = now
	e.mu.Unlock()
}

// wary is how long every kept connection is looked at after one broke: often
// the endpoint is gone, and all of them are dead.
const wary = time.Second

// alert says whether the first bytes of a record of TLS are those of an alert,
// which ends the connection. Other records may come while it is idle: tickets.
func alert(head []byte) bool {
	if len(head) < 5 {
		return head[0] == 21
	}
	// In TLS 1.3 the type is hidden, but the size tells: two bytes, the type,
	// and the tag of the cipher.
	return head[0] == 21 || head[0] == 23 && head[3] == 0 && head[4] <= 19
}

// nearby is among how many of the connections used last one is looked for that the
// same core serves.
const nearby = 8

// last is the place of the idle connection to be used: the one used last, better one
// that the same goroutine as beside's is told of. e.mu is held.
func (e *Endpoint) last(beside *socket.Conn) int {
	n := len(e.idle)
	if beside != nil {
		for i := n - 1; i >= max(0, n-nearby); i-- {
			if s := e.idle[i].sock; s != nil && s.Near(beside) {
				return i
			}
		}
	}
	return n - 1
}

// take gives the idle connection that was used last and is alive, nil if there
// is none. beside may be nil: see last.
func (e *Endpoint) take(beside *socket.Conn) *Slot {
	cfg := &e.cluster.set.cfg
	for {
		e.mu.Lock()
		n := len(e.idle)
		if n == 0 {
			e.mu.Unlock()
			return nil
		}
		i := e.last(beside)
		s := e.idle[i]
		copy(e.idle[i:], e.idle[i+1:])
		e.idle[n-1] = nil
		e.idle = e.idle[:n-1]
		suspect := e.suspect
		e.mu.Unlock()
		now := e.cluster.set.about()
		age := now - s.since
		if age < cfg.CheckAfter && (suspect == 0 || now-suspect >= wary) || age < cfg.IdleTimeout && s.probe.alive() {
			return s
		}
		s.codec.Close()
		e.forget()
	}
}

// sweep closes connections that were idle for too long, or that the endpoint
// has closed. It looks at a few at a time: requests wait for the lock.
func (e *Endpoint) sweep(now time.Duration) {
	for from, more := 0, true; more; {
		from, more = e.sweepSome(now, from, 64)
	}
	e.mu.Lock()
	drained := e.sweepShared(now)
	e.mu.Unlock()
	for _, s := range drained {
		s.codec.Drain()
	}
}

// sweepSome looks at n connections from a place on, those used last at the end,
// and gives the place of the next.
func (e *Endpoint) sweepSome(now time.Duration, from, n int) (next int, more bool) {
	cfg := &e.cluster.set.cfg
	var dead []*Slot
	e.mu.Lock()
	from = min(from, len(e.idle))
	to := min(from+n, len(e.idle))
	kept := e.idle[:from]
	for _, s := range e.idle[from:to] {
		if age := now - s.since; age >= cfg.IdleTimeout || age >= cfg.CheckAfter && !s.probe.alive() {
			dead = append(dead, s)
		} else {
			kept = append(kept, s)
		}
	}
	next = len(kept)
	if len(dead) > 0 {
		kept = append(kept, e.idle[to:]...)
		clear(e.idle[len(kept):])
		e.idle = kept
		if len(kept) < cap(kept)/8 {
			e.idle = slices.Clone(kept) // there were many once
		}
	}
	e.open -= len(dead)
	more = next < len(e.idle)
	e.mu.Unlock()
	for _, s := range dead {
		s.codec.Close()
	}
	return next, more
}
