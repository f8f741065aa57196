package kube

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// liveness knows which sources cannot reach the server, and since when.
type liveness struct {
	now     func() time.Time
	last    atomic.Int64 // unix nanoseconds of the last sign of life
	changed chan struct{}

	mu      sync.Mutex
	failing map[string]failure
}

type failure struct {
	since time.Time
	err   error
}

func newLiveness(now func() time.Time) *liveness {
	return &liveness{now: now, changed: make(chan struct{}, 1), failing: map[string]failure{}}
}

// heard notes a sign of life that says nothing of any one source's state.
func (l *liveness) heard() { l.last.Store(l.now().UnixNano()) }

// quietFor says how long nothing was heard.
func (l *liveness) quietFor() time.Duration {
	return l.now().Sub(time.Unix(0, l.last.Load()))
}

func (l *liveness) ok(source string) {
	l.heard()
	l.mu.Lock()
	_, was := l.failing[source]
	delete(l.failing, source)
	l.mu.Unlock()
	if was {
		l.wake()
	}
}

func (l *liveness) fail(source string, err error) { l.failSince(source, err, l.now()) }

func (l *liveness) failSince(source string, err error, since time.Time) {
	l.mu.Lock()
	f, was := l.failing[source]
	if !was {
		f.since = since
	}
	f.err = err
	l.failing[source] = f
	l.mu.Unlock()
	if !was {
		l.wake()
	}
}

func (l *liveness) wake() {
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// worst gives the failure that lasts longest; ok is false when there is none.
func (l *liveness) worst() (source string, f failure, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for s, g := range l.failing {
		if !ok || g.since.Before(f.since) || g.since.Equal(f.since) && s < source {
			source, f, ok = s, g, true
		}
	}
	return source, f, ok
}

// watchLiveness marks the catalog stale when a source was failing for the
// grace time, and fresh when none is.
func (d *Door) watchLiveness(ctx context.Context) {
	var since time.Time // what was said last
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		source, f, failing := d.live.worst()
		wait := time.Hour
		switch {
		case failing && since.IsZero():
			if wait = f.since.Add(d.cfg.Grace).Sub(d.cfg.Now()); wait > 0 {
				break
			}
			wait, since = time.Hour, f.since
			d.log.Warn("the API server cannot be read: the last state stays, marked stale", "server", d.cfg.Rest.Host, "since", since, "kind", source, "err", f.err)
			d.stale(since) // before the metric: who waits for that finds the state marked
			d.metrics.stale(true)
		case !failing && !since.IsZero():
			d.log.Info("the API server is back", "server", d.cfg.Rest.Host, "away", d.cfg.Now().Sub(since).Round(time.Millisecond))
			since = time.Time{}
			d.stale(since)
			d.metrics.stale(false)
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case <-d.live.changed:
		case <-timer.C:
		}
	}
}

// runProbe asks the server for a sign of life while nothing is heard: a watch
// on which nothing happens looks the same as one whose server vanished.
func (d *Door) runProbe(ctx context.Context) {
	const name = "probe"
	d.live.heard()
	tick := time.NewTicker(d.cfg.Probe)
	defer tick.Stop()
	var lost time.Time // when the first probe failed of those failing in a row
	vanished := 0      // probes in a row that got no answer at all
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if lost.IsZero() && d.live.quietFor() < d.cfg.Probe {
			continue
		}
		began := d.cfg.Now()
		pctx, cancel := context.WithTimeout(ctx, d.cfg.Grace)
		err := d.probe(pctx)
		silent := pctx.Err() != nil
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err == nil || answered(err):
			lost, vanished = time.Time{}, 0
			d.live.ok(name)
			continue
		case lost.IsZero():
			lost = began
		}
		d.live.failSince(name, err, lost)
		if !silent {
			continue
		}
		// Requests vanish: only a new connection can tell whether the server
		// is there. One silence may be a server out of breath, whom everybody
		// connecting again would not help.
		if vanished++; vanished >= 2 {
			d.dialer.CloseAll()
		}
	}
}
