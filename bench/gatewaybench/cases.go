//go:build linux

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// load is a case that loads a proxy for a while.
type load struct {
	name  string
	ratio float64 // the most CPU of nginx's that ours may take
	// run loads it and says what came of it.
	run func(ctx context.Context, b *bench, at place) (result, error)
	// perGiB: CPU is counted for a GiB instead of 100k requests.
	perGiB bool
	// quiet waits before until few ports are in TIME_WAIT: finding a free one
	// for thousands of connections to one endpoint is slow else.
	quiet bool
}

const sameHost = "Host: bench.example.com"

func (b *bench) loads() []load {
	return []load{
		{name: "HTTP/1.1 keep-alive, 64 connections", ratio: 0.9, run: func(ctx context.Context, b *bench, at place) (result, error) {
			return wrk(ctx, b.span, 64, "-H", sameHost, "http://"+at.http+"/")
		}},
		{name: "TLS keep-alive, 64 connections", ratio: 0.9, run: func(ctx context.Context, b *bench, at place) (result, error) {
			return wrk(ctx, b.span, 64, "-H", sameHost, "https://"+at.https+"/")
		}},
		{name: "new connection each, 64 at a time", ratio: 1.0, run: func(ctx context.Context, b *bench, at place) (result, error) {
			return wrk(ctx, b.span, 64, "-H", sameHost, "-H", "Connection: close", "http://"+at.http+"/")
		}},
		{name: "TLS 1.3 handshake each, ECDSA P-256", ratio: 0.8, run: func(ctx context.Context, b *bench, at place) (result, error) {
			return handshakes(ctx, at.https, b.span, 32)
		}},
		{name: "HTTP/2 over TLS, 16 × 10 streams", ratio: 1.2, run: func(ctx context.Context, b *bench, at place) (result, error) {
			r, err := h2load(ctx, b.dir, b.span, 16, "https://"+at.https+"/", false)
			return r, err
		}},
		{name: "HTTP/1.1 keep-alive, 4,000 connections", quiet: true, run: func(ctx context.Context, b *bench, at place) (result, error) {
			return wrk(ctx, b.span+3*time.Second, 4000, "-H", sameHost, "http://"+at.http+"/")
		}},
		{name: "POST of 64 KiB, 64 connections", run: func(ctx context.Context, b *bench, at place) (result, error) {
			script := filepath.Join(b.dir, "post.lua")
			if err := os.WriteFile(script, []byte(`wrk.method = "POST"`+"\n"+`wrk.body = string.rep("x", 65536)`+"\n"), 0o600); err != nil {
				return result{}, err
			}
			return wrk(ctx, b.span, 64, "-H", sameHost, "-s", script, "http://"+at.http+"/")
		}},
		{name: "download of 1 GiB", perGiB: true, run: func(_ context.Context, b *bench, at place) (result, error) {
			return download(at.http, b.downloadMiB)
		}},
	}
}

// loaded is what one run cost.
type loaded struct {
	cpu, user    float64 // seconds for 100k requests, or a GiB
	rate         float64
	p50, p99     float64 // ms
	rss          float64
	failed       int64
	latencyKnown bool
}

var errNothing = errors.New("no request was answered")

// measure runs one load against one peer that is started for it.
func (b *bench) measure(ctx context.Context, l load, p peer) (m loaded, err error) {
	at, err := b.place(p.name())
	if err != nil {
		return m, err
	}
	for deadline := time.Now().Add(20 * time.Second); l.quiet && timeWait() > 2000 && time.Now().Before(deadline); {
		if err := sleep(ctx, time.Second); err != nil {
			return m, err
		}
	}
	proc, err := p.start(ctx, at, setup{Web: []string{b.backend}})
	if err != nil {
		return m, err
	}
	defer proc.stop()
	if err := b.warm(ctx, at); err != nil {
		return m, err
	}
	before, err := proc.cost()
	if err != nil {
		return m, err
	}
	profiled := b.profile(ctx, p)
	r, err := l.run(ctx, b, at)
	if err != nil {
		return m, err
	}
	after, err := proc.cost()
	if err != nil {
		return m, err
	}
	<-profiled
	if m.rss, err = proc.memory(); err != nil {
		return m, err
	}
	if r.requests == 0 {
		return m, errNothing
	}
	used, per := after.since(before), float64(r.requests)/1e5
	m.rate = float64(r.requests) / r.took.Seconds()
	if l.perGiB {
		per = float64(r.bytes) / (1 << 30)
		m.rate = float64(r.bytes) / (1 << 20) / r.took.Seconds()
	}
	m.cpu, m.user = used.total().Seconds()/per, used.user.Seconds()/per
	m.failed = r.failed
	if l.name == "HTTP/2 over TLS, 16 × 10 streams" {
		if r, err = h2load(ctx, b.dir, max(time.Second, b.span/3), 16, "https://"+at.https+"/", true); err != nil {
			return m, err
		}
	}
	m.p50, m.p99 = r.p50.Seconds()*1e3, r.p99.Seconds()*1e3
	m.latencyKnown = r.p99 > 0
	return m, nil
}

// warm makes a few requests, so that connections and caches are there.
func (b *bench) warm(ctx context.Context, at place) error {
	for range 20 {
		status, err := get(at.http, "bench.example.com", "/")
		if err == nil && status != 200 {
			err = fmt.Errorf("status %d", status)
		}
		if err != nil {
			if serr := sleep(ctx, 50*time.Millisecond); serr != nil {
				return serr
			}
			continue
		}
		return nil
	}
	status, err := get(at.http, "bench.example.com", "/")
	return fmt.Errorf("the proxy does not answer: status %d, %w", status, err)
}

// runLoads measures all loads, peers in turn, so that what else happens on the
// machine meets all of them.
func (b *bench) runLoads(ctx context.Context) ([]row, error) {
	var rows []row
	for _, l := range b.loads() {
		if !b.wanted(l.name) {
			continue
		}
		all := map[string][]loaded{}
		for range b.rounds {
			for _, p := range b.peers {
				m, err := b.measure(ctx, l, p)
				if errors.Is(err, errNothing) { // once more: the machine may have been busy
					m, err = b.measure(ctx, l, p)
				}
				if err != nil {
					return rows, fmt.Errorf("%s: %s: %w", l.name, p.name(), err)
				}
				b.logf("%s: %s: %+v", l.name, p.name(), m)
				all[p.name()] = append(all[p.name()], m)
			}
		}
		unit, rate := "CPU s/100k", "requests/s"
		if l.perGiB {
			unit, rate = "CPU s/GiB", "MiB/s"
		}
		metric := func(name string, ratio float64, more bool, f func(loaded) float64) {
			r := row{Case: l.name, Metric: name, Ratio: ratio, More: more, Values: map[string]float64{}}
			for p, ms := range all {
				var vs []float64
				for _, m := range ms {
					vs = append(vs, f(m))
				}
				slices.Sort(vs)
				r.Values[p] = vs[len(vs)/2]
			}
			rows = append(rows, r)
		}
		metric(unit, l.ratio, false, func(m loaded) float64 { return m.cpu })
		metric("of it user", 0, false, func(m loaded) float64 { return m.user })
		metric(rate, 0, true, func(m loaded) float64 { return m.rate })
		if all[b.peers[0].name()][0].latencyKnown {
			metric("p50 ms", 0, false, func(m loaded) float64 { return m.p50 })
			ratio := 0.0
			if l.ratio > 0 {
				ratio = 1
			}
			metric("p99 ms", ratio, false, func(m loaded) float64 { return m.p99 })
		}
		metric("resident MiB", 0, false, func(m loaded) float64 { return m.rss })
		for _, ms := range all {
			if slices.ContainsFunc(ms, func(m loaded) bool { return m.failed > 0 }) {
				metric("failed", 0, false, func(m loaded) float64 { return float64(m.failed) })
				break
			}
		}
	}
	return rows, nil
}

// runIdle measures what connections cost that do nothing.
func (b *bench) runIdle(ctx context.Context) ([]row, error) {
	var rows []row
	for _, secure := range []bool{false, true} {
		name := fmt.Sprintf("%d idle connections", b.idleConns)
		r := row{Metric: "KiB each", Most: 10, Values: map[string]float64{}}
		if secure {
			name, r.Most = name+", TLS", 0
		}
		if r.Case = name; !b.wanted(name) {
			continue
		}
		for _, p := range b.peers {
			each, err := b.idleCost(ctx, p, secure)
			if err != nil {
				return rows, fmt.Errorf("%s: %s: %w", name, p.name(), err)
			}
			b.logf("%s: %s: %.1f KiB", name, p.name(), each)
			r.Values[p.name()] = each
		}
		rows = append(rows, r)
	}
	return rows, nil
}

func (b *bench) idleCost(ctx context.Context, p peer, secure bool) (float64, error) {
	at, err := b.place(p.name())
	if err != nil {
		return 0, err
	}
	proc, err := p.start(ctx, at, setup{Web: []string{b.backend}})
	if err != nil {
		return 0, err
	}
	defer proc.stop()
	if err := b.warm(ctx, at); err != nil {
		return 0, err
	}
	before, err := proc.memory()
	if err != nil {
		return 0, err
	}
	addr, conf := at.http, (*tls.Config)(nil)
	if secure {
		addr, conf = at.https, &tls.Config{InsecureSkipVerify: true, ServerName: "bench.example.com"} //nolint:gosec // it is the server that is measured
	}
	conns, err := idle(addr, b.idleConns, conf)
	if err != nil {
		return 0, err
	}
	defer closeAll(conns)
	if err := sleep(ctx, b.settle); err != nil {
		return 0, err
	}
	after, err := proc.memory()
	if err != nil {
		return 0, err
	}
	if n := alive(conns); n != len(conns) {
		return 0, fmt.Errorf("only %d of %d idle connections are there still", n, len(conns))
	}
	return (after - before) * 1024 / float64(len(conns)), nil
}
