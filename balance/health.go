package balance

import (
	"sync/atomic"
	"time"
)

// Result is how a request ended, as far as it tells about the backend.
type Result uint8

// The results.
const (
	Nothing Result = iota // it tells nothing: the client went away
	Success               // it answered
	Bad                   // it answered that it cannot (a status of 5xx)
	Broken                // it was reached, and broke the connection or did not answer in time
	Failure               // it could not be reached
)

// Ejection says when a backend gets no requests for a while. Zero values are
// the defaults.
type Ejection struct {
	Off      bool
	Failures int           // in a row; default 1
	Bad      int           // Bad or Broken in a row; default 5, below 0: they do not count
	Base     time.Duration // the first time; it doubles each time; default 5 s
	Max      time.Duration // default 60 s
	// Panic: if more than this many per cent are ejected, the trouble is not
	// theirs, and ejections are ignored; default 50.
	Panic int
}

func (e Ejection) defaults() Ejection {
	set(&e.Failures, 1)
	set(&e.Bad, 5)
	set(&e.Base, 5*time.Second)
	set(&e.Max, time.Minute)
	set(&e.Panic, 50)
	return e
}

func set[T int | time.Duration](p *T, value T) {
	if *p == 0 {
		*p = value
	}
}

// Health keeps the results of a set of backends. It outlives their lists. Make
// it with NewHealth.
type Health struct {
	cfg    Ejection
	costly bool // latencies are wanted
	counts bool // the sum of all loads is wanted

	// troubled is until when some backend is ejected or has failures that
	// count; 0: all is well, and Pick need not look at that, nor at the clock.
	troubled atomic.Int64
	changes  atomic.Uint32 // of ejections
	active   atomic.Int64  // if counts
}

// NewHealth makes one for lists that are made for this algorithm.
func NewHealth(cfg Ejection, a Algorithm) *Health {
	return &Health{cfg: cfg.defaults(), costly: a == EWMA, counts: a == RingHash || a == Maglev}
}

// Begin counts a request for a backend. End must follow.
func (h *Health) Begin(l *Load) {
	l.active.Add(1)
	if h.counts {
		h.active.Add(1)
	}
}

// End says how it ended. ejected: the backend gets no requests now because of
// that.
func (h *Health) End(l *Load, r Result, latency, now time.Duration) (ejected bool) {
	l.active.Add(-1)
	if h.counts {
		h.active.Add(-1)
	}
	switch r {
	case Success:
		// Only read if there is nothing to change: the common case.
		if l.Troubled() {
			l.failed.Store(0)
			l.soft.Store(0)
			// An answer that was under way when it was ejected does not end
			// that, but one after it does, and forgets.
			if time.Duration(l.until.Load()) <= now {
				l.ejections.Store(0)
			}
		}
		if h.costly {
			l.observe(latency, now)
		}
	case Bad, Broken:
		if r == Bad {
			l.failed.Store(0) // it answered, so it can be reached
		}
		if h.cfg.Bad >= 0 {
			return h.failed(l, &l.soft, h.cfg.Bad, false, now)
		}
	case Failure:
		return h.Unreachable(l, now)
	}
	return false
}

func (h *Health) failed(l *Load, count *atomic.Int32, limit int, hard bool, now time.Duration) bool {
	n := count.Add(1)
	l.last.Store(int64(now))
	h.trouble(now + grudge)
	if h.cfg.Off || int(n) < limit {
		return false
	}
	before := l.until.Load()
	if time.Duration(before) > now {
		return false // other requests that were under way fail too: one ejection
	}
	d := h.cfg.Base << min(l.ejections.Load(), 16)
	if d > h.cfg.Max || d <= 0 {
		d = h.cfg.Max
	}
	l.hard.Store(hard)
	if !l.until.CompareAndSwap(before, int64(now+d)) {
		return false
	}
	l.ejections.Add(1)
	h.trouble(now + d + grudge)
	h.changes.Add(1)
	return true
}

// Unreachable says that a new connection to the backend could not be made, at
// once and before End. ejected is as that of End.
func (h *Health) Unreachable(l *Load, now time.Duration) (ejected bool) {
	return h.failed(l, &l.failed, h.cfg.Failures, true, now)
}

// Reached says that a new connection to the backend was made. It ends an
// ejection for not being reachable: when all are ejected each request goes to
// some, and those that are back are to be found.
func (h *Health) Reached(l *Load, now time.Duration) {
	if until := l.until.Load(); l.hard.Load() && time.Duration(until) > now && l.until.CompareAndSwap(until, int64(now)) {
		h.changes.Add(1)
	}
}

// trouble keeps Pick looking until then.
func (h *Health) trouble(until time.Duration) {
	for {
		old := h.troubled.Load()
		if int64(until) <= old || h.troubled.CompareAndSwap(old, int64(until)) {
			return
		}
	}
}

// calm says that nothing is wrong, and turns calm when the last trouble is over.
func (h *Health) calm(now time.Duration) bool {
	t := h.troubled.Load()
	return t == 0 || int64(now) >= t && h.troubled.CompareAndSwap(t, 0)
}
