//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// changesPerSecond of the churn.
const changesPerSecond = 10

// fleet is the endpoints of a churn. Those of web come and go and are killed;
// those of ws are taken out and in again, and never end, because no proxy can
// keep a WebSocket whose endpoint is gone.
type fleet struct {
	b       *bench
	set     setup
	running map[string]*process
	leaving []leaver
	out     string // the one of ws that is taken out
	dead    string // the one of web that was killed and is in the set still
	step    int
}

type leaver struct {
	addr string
	at   time.Time
}

func (b *bench) newFleet(ctx context.Context) (*fleet, error) {
	f := &fleet{b: b, running: map[string]*process{}}
	for range 6 {
		a, err := f.launch(ctx)
		if err != nil {
			return f, err
		}
		f.set.Web = append(f.set.Web, a)
	}
	for range 3 {
		a, err := f.launch(ctx)
		if err != nil {
			return f, err
		}
		f.set.WS = append(f.set.WS, a)
	}
	return f, nil
}

func (f *fleet) launch(ctx context.Context) (string, error) {
	a, err := freePorts(1)
	if err != nil {
		return "", err
	}
	p, err := f.b.startBackend(ctx, a[0])
	if err != nil {
		return "", err
	}
	f.running[a[0]] = p
	return a[0], nil
}

// kill ends an endpoint on the spot.
func (f *fleet) kill(addr string) {
	if p := f.running[addr]; p != nil {
		_ = p.cmd.Process.Kill()
		<-p.done
		delete(f.running, addr)
	}
}

func (f *fleet) stop() {
	for a := range f.running {
		f.kill(a)
	}
}

// next makes the next change; tell says whether the proxy is told of one.
func (f *fleet) next(ctx context.Context) (tell bool, err error) {
	f.step++
	for len(f.leaving) > 0 && time.Since(f.leaving[0].at) > 2*time.Second {
		f.kill(f.leaving[0].addr)
		f.leaving = f.leaving[1:]
	}
	switch f.step % 8 {
	case 1: // killed: nobody says a word
		f.dead = f.set.Web[0]
		f.kill(f.dead)
		return false, nil
	case 3: // and only now it is known
		f.set.Web = slices.DeleteFunc(slices.Clone(f.set.Web), func(a string) bool { return a == f.dead })
	case 4, 6: // a new one
		a, err := f.launch(ctx)
		if err != nil {
			return false, err
		}
		f.set.Web = append(slices.Clone(f.set.Web), a)
	case 5: // one leaves, and ends two seconds later
		f.leaving = append(f.leaving, leaver{f.set.Web[0], time.Now()})
		f.set.Web = slices.Clone(f.set.Web[1:])
	case 2, 7:
		f.set.Cert = (f.set.Cert + 1) % certificates
	case 0: // one of ws goes out, or comes in again
		if f.out == "" {
			f.out = f.set.WS[0]
			f.set.WS = slices.Clone(f.set.WS[1:])
		} else {
			f.set.WS, f.out = append(slices.Clone(f.set.WS), f.out), ""
		}
	}
	return true, nil
}

// runChurn changes endpoints and certificates all the time under load.
func (b *bench) runChurn(ctx context.Context) ([]row, error) {
	if !b.wanted("churn") || b.churnSpan == 0 {
		return nil, nil
	}
	name := fmt.Sprintf("churn, %d changes/s for %s", changesPerSecond, b.churnSpan)
	var rows []row
	for _, p := range b.peers {
		if p.name() == "haproxy" {
			continue // its users change it in ways that are as many as they are
		}
		values, err := b.churnOf(ctx, p)
		if err != nil {
			return rows, fmt.Errorf("%s: %s: %w", name, p.name(), err)
		}
		for i, v := range values {
			if i == len(rows) {
				rows = append(rows, row{Case: name, Metric: v.what, Values: map[string]float64{}, More: v.more, None: v.none})
			}
			rows[i].Values[p.name()] = v.value
		}
	}
	return rows, nil
}

type churnValue struct {
	what  string
	value float64
	more  bool
	none  bool // must be
}

func (b *bench) churnOf(ctx context.Context, p peer) ([]churnValue, error) {
	at, err := b.place(p.name())
	if err != nil {
		return nil, err
	}
	f, err := b.newFleet(ctx)
	defer f.stop()
	if err != nil {
		return nil, err
	}
	proc, err := p.start(ctx, at, f.set)
	if err != nil {
		return nil, err
	}
	defer proc.stop()
	if err := b.warm(ctx, at); err != nil {
		return nil, err
	}
	before, err := proc.memory()
	if err != nil {
		return nil, err
	}
	w := newWatchers(at)
	w.run(ctx)
	// Without changes first, to compare with.
	if err := sleep(ctx, max(2*time.Second, b.churnSpan/12)); err != nil {
		return nil, err
	}
	calm := w.take()
	changes, told := 0, 0
	tick := time.NewTicker(time.Second / changesPerSecond)
	defer tick.Stop()
	for end := time.Now().Add(b.churnSpan); time.Now().Before(end); {
		tell, err := f.next(ctx)
		if err == nil && tell {
			told++
			err = p.change(ctx, f.set)
		}
		if err != nil {
			w.stop()
			return nil, err
		}
		changes++
		select {
		case <-ctx.Done():
			w.stop()
			return nil, ctx.Err()
		case <-tick.C:
		}
	}
	busy := w.take()
	w.stop()
	memory, err := proc.memory()
	if err != nil {
		return nil, err
	}
	if b.verbose {
		said, _ := os.ReadFile(proc.log)
		b.logf("%s: %s\n%s", p.name(), strings.Join(w.examples(), "\n"), said[max(0, len(said)-4000):])
	}
	return []churnValue{
		{what: "changes", value: float64(changes), more: true},
		{what: "of them told to the proxy", value: float64(told), more: true},
		{what: "requests", value: float64(busy.requests), more: true},
		{what: "requests failed", value: float64(busy.failed), none: true},
		{what: "requests cut off with their kept connection", value: float64(busy.cut), none: true},
		{what: "kept connections closed", value: float64(busy.closed), none: true},
		{what: "WebSocket messages", value: float64(busy.messages), more: true},
		{what: "WebSockets closed (of 64)", value: float64(busy.sockets), none: true},
		{what: "new TLS connections", value: float64(busy.fresh), more: true},
		{what: "of them failed", value: float64(busy.freshFailed), none: true},
		{what: "certificates seen", value: float64(busy.certs), more: true},
		{what: "requests/s without changes", value: calm.rate(), more: true},
		{what: "requests/s with changes", value: busy.rate(), more: true},
		{what: "p99 ms without changes", value: calm.p99()},
		{what: "p99 ms with changes", value: busy.p99()},
		{what: "resident MiB before", value: before},
		{what: "resident MiB after", value: memory},
	}, nil
}
