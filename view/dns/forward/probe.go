package forward

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	mathrand "math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

const (
	probeFirst = 500 * time.Millisecond // after an upstream went down
	probeMost  = 10 * time.Second
	probeToken = 30 // hexadecimal digits
	probeMark  = "fp"
)

// probes are the names under way that would come back if there is a loop.
type probes struct {
	n   atomic.Int32 // of out, so that nobody needs the lock while there is none
	mu  sync.Mutex
	out map[string]*probe // by first label
}

type probe struct {
	u    *upstream
	back atomic.Bool
}

// Loop says whether a name, in wire form and lower case, is that of a probe of
// this forwarder. Then the upstream that it was sent to brought it back: it is
// not asked any more. The server calls it for each question that it would
// forward, and refuses the probe.
func (f *Forwarder) Loop(name []byte) bool {
	if f.probes.n.Load() == 0 || len(name) < 1+len(probeMark)+probeToken || int(name[0]) != len(probeMark)+probeToken {
		return false
	}
	f.probes.mu.Lock()
	p := f.probes.out[string(name[1:1+len(probeMark)+probeToken])]
	f.probes.mu.Unlock()
	if p == nil {
		return false
	}
	p.back.Store(true)
	u := p.u
	if u.loop.CompareAndSwap(false, true) {
		u.mu.Lock()
		u.since, u.lastErr = time.Now(), "it sends questions back to this server"
		u.mu.Unlock()
		f.log().Error("upstream name server sends questions back to this server: it is not asked any more; give real upstreams or a resolver configuration that does not name this machine's own resolver (with systemd-resolved: /run/systemd/resolve/resolv.conf)",
			"upstream", u.target.String(), "zone", text(*u.zone.Load()))
	}
	return true
}

// probeLoops looks for loops in the background; the caller holds mu.
func (f *Forwarder) probeLoops() { f.probeIf(func(*upstream) bool { return true }) }

// probeLooping looks whether those that looped still do.
func (f *Forwarder) probeLooping() { f.probeIf(func(u *upstream) bool { return u.loop.Load() }) }

func (f *Forwarder) probeIf(which func(*upstream) bool) {
	for _, u := range f.upstreams {
		if !u.own.Load() && which(u) && u.looking.CompareAndSwap(false, true) && !f.spawn(u.probeLoop) {
			u.looking.Store(false)
		}
	}
}

// probeLoop asks the upstream about a name that nobody else can know. If it
// comes back to this server, see Loop; if there is another answer, there is no
// loop any more.
func (u *upstream) probeLoop() {
	defer u.looking.Store(false)
	var b [probeToken / 2]byte
	_, _ = rand.Read(b[:])
	label := probeMark + hex.EncodeToString(b[:])
	zone := *u.zone.Load()
	if zone == "\x00" {
		zone = "\x04loop\x0afingerpost\x00"
	}
	name := string(rune(len(label))) + label + zone
	if len(name) > maxName {
		return
	}
	ps, out := &u.f.probes, &probe{u: u}
	ps.mu.Lock()
	ps.out[label] = out
	ps.n.Store(int32(len(ps.out)))
	ps.mu.Unlock()
	defer func() {
		ps.mu.Lock()
		delete(ps.out, label)
		ps.n.Store(int32(len(ps.out)))
		ps.mu.Unlock()
	}()
	cfg := u.f.routes.Load().cfg
	ctx, cancel := context.WithTimeout(u.life, cfg.Timeout)
	defer cancel()
	_, err := u.exchange(ctx, newAsk(name, typeHINF), cfg)
	if err == nil && !out.back.Load() && u.loop.CompareAndSwap(true, false) {
		u.f.log().Info("upstream name server does not send questions back any more: it is asked again", "upstream", u.target.String())
	}
}

func newAsk(name string, qtype byte) *ask {
	return &ask{key: name + string([]byte{0, qtype, 0, classIN, 0})}
}

// revive asks an upstream that is down, less and less often, until it answers
// anything at all.
func (u *upstream) revive() {
	for wait := probeFirst; u.down.Load(); wait = min(wait*2, probeMost) {
		t := time.NewTimer(wait/2 + mathrand.N(wait)/2 + wait/4)
		select {
		case <-t.C:
		case <-u.life.Done():
			t.Stop()
			return
		}
		cfg := u.f.routes.Load().cfg
		question := newAsk(*u.zone.Load(), typeSOA)
		if len(question.name()) == 1 {
			question = newAsk("\x00", typeNS)
		}
		ctx, cancel := context.WithTimeout(u.life, cfg.Timeout)
		begun := time.Now()
		_, err := u.exchange(ctx, question, cfg)
		cancel()
		if err == nil {
			u.succeeded(time.Since(begun))
			// It may have been down when loops were looked for.
			if u.looking.CompareAndSwap(false, true) {
				u.probeLoop()
			}
			return
		}
		u.f.metrics.probeFailed(u)
	}
}
