//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"time"
)

// checker is a peer whose users check a configuration before they load it.
type checker interface {
	check(ctx context.Context) *exec.Cmd
}

// runRoutes measures a large routing table: what it takes to load, to keep, and
// to change in one place.
func (b *bench) runRoutes(ctx context.Context) ([]row, error) {
	name := fmt.Sprintf("%d routes", b.routes)
	if !b.wanted(name) || b.routes == 0 {
		return nil, nil
	}
	rows := map[string]*row{}
	var order []string
	put := func(metric, peer string, v, ratio, most float64) {
		if rows[metric] == nil {
			rows[metric] = &row{Case: name, Metric: metric, Values: map[string]float64{}, Ratio: ratio, Most: most}
			order = append(order, metric)
		}
		rows[metric].Values[peer] = v
	}
	other, err := freePorts(1)
	if err != nil {
		return nil, err
	}
	second, err := b.startBackend(ctx, other[0], "-status", strconv.Itoa(statusOther))
	if err != nil {
		return nil, err
	}
	defer second.stop()
	for _, p := range b.peers {
		if err := b.routesOf(ctx, p, other[0], put); err != nil {
			return nil, fmt.Errorf("%s: %s: %w", name, p.name(), err)
		}
	}
	var out []row
	for _, m := range order {
		out = append(out, *rows[m])
	}
	return out, nil
}

func (b *bench) routesOf(ctx context.Context, p peer, other string, put func(metric, peer string, v, ratio, most float64)) error {
	at, err := b.place(p.name())
	if err != nil {
		return err
	}
	s := setup{Web: []string{other}}
	proc, err := p.start(ctx, at, s)
	if err != nil {
		return err
	}
	defer proc.stop()
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 }
	// All of them at once, to other endpoints than what is the default now.
	s.Routes, s.Web = b.routes, []string{b.backend}
	began := time.Now()
	if o, ok := p.(*own); ok {
		took, err := o.tell(order{Setup: &s})
		if err != nil {
			return err
		}
		put("routing table built and swapped: ms", p.name(), ms(took.Routed), 0, 10)
		put("their services and endpoints known: ms", p.name(), ms(took.Applied), 0, 0)
	} else if err := p.change(ctx, s); err != nil {
		return err
	}
	if err := b.until(ctx, at, routeHost(b.routes-1), 200); err != nil {
		return err
	}
	put("until in force: ms", p.name(), ms(time.Since(began)), 0, 0)
	if c, ok := p.(checker); ok {
		began := time.Now()
		if out, err := c.check(ctx).CombinedOutput(); err != nil {
			return fmt.Errorf("check: %w: %s", err, out)
		}
		put("check of the configuration: ms", p.name(), ms(time.Since(began)), 0, 0)
	}
	if err := sleep(ctx, b.settle); err != nil {
		return err
	}
	rss, err := proc.memory()
	if err != nil {
		return err
	}
	put("resident MiB", p.name(), rss, 1, 0)
	// One of them goes elsewhere.
	s.Moved, s.Other = b.routes/2, other
	before, err := proc.cost()
	if err != nil {
		return err
	}
	began = time.Now()
	if o, ok := p.(*own); ok {
		took, err := o.tell(order{Setup: &s})
		if err != nil {
			return err
		}
		put("one route changed: ms", p.name(), ms(took.Routed), 0, 1)
	} else if err := p.change(ctx, s); err != nil {
		return err
	}
	if err := b.until(ctx, at, routeHost(s.Moved), statusOther); err != nil {
		return err
	}
	put("one route changed, until in force: ms", p.name(), ms(time.Since(began)), 0, 0)
	if err := sleep(ctx, time.Second); err != nil { // what is done after counts, too
		return err
	}
	after, err := proc.cost()
	if err != nil {
		return err
	}
	put("one route changed: CPU ms", p.name(), ms(after.since(before).total()), 0, 0)
	if rss, err = proc.memory(); err != nil {
		return err
	}
	put("resident after it: MiB", p.name(), rss, 0, 0)
	return nil
}

// statusOther is what the second backend answers with.
const statusOther = 299

// until asks until a host answers with a status.
func (b *bench) until(ctx context.Context, at place, host string, status int) error {
	for deadline := time.Now().Add(2 * time.Minute); ; {
		got, err := get(at.http, host, "/")
		if err == nil && got == status {
			return nil
		}
		if time.Now().After(deadline) {
			return errors.Join(err, fmt.Errorf("%s answers %d, want %d, after two minutes", host, got, status))
		}
		if err := sleep(ctx, 2*time.Millisecond); err != nil {
			return err
		}
	}
}
