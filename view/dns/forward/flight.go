package forward

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"sync"
	"time"
)

// flights are the questions under way, by key.
type flights struct {
	mu      sync.Mutex
	open    map[string]*flight
	waiting int
	closed  bool
}

// flight is one question under way and what came of it.
type flight struct {
	zone  *zone
	done  chan struct{} // closed when the rest is there
	entry *entry
	err   error
}

// waitersPer question that may be under way.
const waitersPer = 8

// Exchange asks upstreams a question that Cached had no answer to; q and end
// are as there. The answer is at most limit bytes long. The error says why
// there is none; the client gets SERVFAIL then.
func (f *Forwarder) Exchange(ctx context.Context, q []byte, end int, limit int) ([]byte, error) {
	var qu question
	if !qu.parse(q, end) || qu.qtype == typeAXFR || qu.qtype == typeIXFR || qu.qtype == typeOPT {
		return nil, ErrMalformed
	}
	r := f.routes.Load()
	z := r.find(qu.name())
	if z == nil {
		return nil, ErrNoUpstream
	}
	hash := f.cache.hash(qu.key())
	now := f.now().UnixNano()
	var stale *entry
	if n := f.cache.shard(hash).find(hash, qu.key()); n != nil {
		e := n.entry.Load()
		if now < e.expires { // it came in the meantime
			return e.answer(nil, q, &qu, limit, now, false), nil
		}
		if f.usable(e, now) {
			stale = e
		}
	}
	giveStale := func() []byte {
		f.cache.shard(hash).stales.Add(1)
		return stale.answer(nil, q, &qu, limit, now, true)
	}
	a := ask{hash: hash}
	if qu.flags&flagRD == 0 {
		qu.wire[qu.n-1] |= bitNoRD
	}
	a.key = string(qu.key())
	fl, err := f.join(a, z, r.cfg, true)
	if err != nil {
		if stale != nil {
			return giveStale(), nil
		}
		return nil, err
	}
	defer f.leave()
	var patience <-chan time.Time
	if stale != nil {
		t := time.NewTimer(r.cfg.StaleAfter)
		defer t.Stop()
		patience = t.C
	}
	select {
	case <-fl.done:
	case <-patience:
		return giveStale(), nil
	case <-ctx.Done():
		return nil, fmt.Errorf("view/dns/forward: %w", ctx.Err())
	}
	switch {
	case fl.entry != nil && (stale == nil || !fl.entry.failed()):
		// stored is the present: no time has passed for the TTLs.
		return fl.entry.answer(nil, q, &qu, limit, fl.entry.stored, false), nil
	case stale != nil:
		return giveStale(), nil
	}
	return nil, fl.err
}

func (f *Forwarder) leave() {
	f.flights.mu.Lock()
	f.flights.waiting--
	f.flights.mu.Unlock()
}

// join gives the flight of a question and starts it if there is none. Who
// waits calls leave afterwards.
func (f *Forwarder) join(a ask, z *zone, cfg *Config, wait bool) (*flight, error) {
	fs := &f.flights
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.closed {
		return nil, ErrClosed
	}
	fl := fs.open[a.key]
	if fl != nil && !fl.zone.same(z) {
		fl = nil // it asks whom a reload took away
	}
	if wait && fs.waiting >= cfg.MaxInFlight*waitersPer || fl == nil && len(fs.open) >= cfg.MaxInFlight {
		f.metrics.rejects.Inc()
		return nil, ErrBusy
	}
	if wait {
		fs.waiting++
	}
	if fl != nil {
		return fl, nil
	}
	fl = &flight{zone: z, done: make(chan struct{})}
	fs.open[a.key] = fl
	f.jobs.Go(func() {
		f.fly(&a, z, cfg, fl)
		fs.mu.Lock()
		if fs.open[a.key] == fl {
			delete(fs.open, a.key)
		}
		fs.mu.Unlock()
		close(fl.done)
	})
	return fl, nil
}

// fly asks, and tells the cache.
func (f *Forwarder) fly(a *ask, z *zone, cfg *Config, fl *flight) {
	ctx, cancel := context.WithTimeout(f.life, cfg.Timeout)
	defer cancel()
	fl.entry, fl.err = f.ask(ctx, a, z, cfg)
	if a.bits()&bitNoRD != 0 {
		return
	}
	now := f.now().UnixNano()
	if fl.err != nil || fl.entry.failed() {
		if n := f.cache.shard(a.hash).find(a.hash, []byte(a.key)); n != nil && f.usable(n.entry.Load(), now) {
			n.failed.Store(now)
			return
		}
	}
	// A reload may have given the name to others while these were asked.
	f.turnover.RLock()
	defer f.turnover.RUnlock()
	if fl.err == nil && fl.entry.keep && cfg.CacheSize > 0 && z.same(f.routes.Load().find(a.name())) {
		f.cache.put(a.hash, a.key, fl.entry)
	}
}

// same says whether two zones ask the same servers about the same names. The
// upstreams of "." may change: they say the same.
func (z *zone) same(other *zone) bool {
	return z == other || other != nil && z.name == other.name && (len(z.name) == 1 || slices.Equal(z.upstreams, other.upstreams))
}

// maxAttempts bounds what one question can cost upstream.
const maxAttempts = 8

var errSlow = errors.New("others answered before it")

type attempt struct {
	u     *upstream
	entry *entry
	err   error
}

// ask asks one upstream after the other, each some time after the one before
// or at once when that one failed, and then the first again: questions get
// lost. The first good answer ends it. An answer that says no more than "not
// me" counts only when nobody has a better one.
func (f *Forwarder) ask(ctx context.Context, a *ask, z *zone, cfg *Config) (*entry, error) {
	order := f.order(z)
	if len(order) == 0 {
		return nil, ErrNoUpstream
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan attempt, maxAttempts)
	started, pending := 0, 0
	start := func() {
		u := order[started%len(order)]
		first := started < len(order) // the rest counts nothing against u
		started++
		pending++
		f.jobs.Go(func() { results <- f.try(ctx, u, a, cfg, first) })
	}
	limit := min(maxAttempts, max(5, len(order)+2))
	if order[0].down.Load() {
		limit = min(len(order), 2) // no hope to be worth much
	}
	wait := cfg.Hedge
	hedge := time.NewTimer(wait)
	defer hedge.Stop()
	var poor *entry
	var errs []error
	for start(); ; {
		select {
		case r := <-results:
			pending--
			switch {
			case r.err != nil:
				errs = append(errs, fmt.Errorf("%s: %w", r.u.target, r.err))
			case r.entry.failed():
				poor = r.entry
			default:
				z.worked(r.u)
				return r.entry, nil
			}
			if started < min(limit, len(order)) {
				start()
				hedge.Reset(wait)
			} else if pending == 0 {
				if poor != nil {
					return poor, nil
				}
				return nil, fmt.Errorf("view/dns/forward: no upstream answered: %w", errors.Join(errs...))
			}
		case <-hedge.C:
			if started < limit {
				start()
				if started >= len(order) {
					wait += wait / 2
				}
				hedge.Reset(wait)
			}
		case <-ctx.Done():
			if poor != nil {
				return poor, nil
			}
			return nil, fmt.Errorf("view/dns/forward: no upstream answered in time: %w", errors.Join(append(errs, ctx.Err())...))
		}
	}
}

// try asks one upstream once.
func (f *Forwarder) try(ctx context.Context, u *upstream, a *ask, cfg *Config, counts bool) (result attempt) {
	defer func() {
		// Foreign bytes went through a library: one question may fail by its
		// faults, not the server.
		if p := recover(); p != nil {
			cfg.Log.Error("an answer made the server panic", "upstream", u.target.String(), "panic", p, "stack", string(debug.Stack()))
			result = attempt{u, nil, fmt.Errorf("panic: %v", p)}
		}
	}()
	begun := time.Now()
	resp, err := u.exchange(ctx, a, cfg)
	var e *entry
	if err == nil {
		e, err = newEntry(a, resp, f.now(), cfg)
	}
	took := time.Since(begun)
	switch {
	case err == nil:
		u.succeeded(took)
		f.metrics.answered(u, e.rcode, took)
	case !counts || errors.Is(err, errFull) || f.life.Err() != nil:
	case errors.Is(ctx.Err(), context.Canceled):
		// Somebody else was faster. That says something only if this one had
		// its time.
		if took >= cfg.Hedge {
			u.failed(errSlow)
		}
	default:
		u.failed(err)
	}
	return attempt{u, e, err}
}

// order lists the upstreams of a zone that may be asked, the best first: those
// that are up or, when none is, all in random order.
func (f *Forwarder) order(z *zone) []*upstream {
	var up, down []*upstream
	first := int(z.first.Load())
	for i := range z.upstreams {
		u := z.upstreams[(first+i)%len(z.upstreams)]
		u.checkOwn()
		switch {
		case !u.askable():
		case u.down.Load():
			down = append(down, u)
		default:
			up = append(up, u)
		}
	}
	if len(up) == 0 && len(down) > 0 {
		f.metrics.broken.Inc()
		up, down = down, nil
		shuffle(up)
	} else if z.policy == Random {
		shuffle(up)
	}
	return up
}

func shuffle(list []*upstream) {
	rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
}

// worked notes who answered, to be asked first from now on.
func (z *zone) worked(u *upstream) {
	for i, other := range z.upstreams {
		if other == u {
			if z.first.Load() != uint32(i) {
				z.first.Store(uint32(i))
			}
			return
		}
	}
}
