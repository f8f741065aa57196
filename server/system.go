package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/fingerpost/fingerpost/catalog"
)

// part is one thing that runs.
type part struct {
	name  string
	run   func(ctx context.Context) error
	ready <-chan struct{} // nil: ready at once
	drain time.Duration   // that it takes to stop by design
}

// System is an ordered list of parts.
type System struct {
	log   *slog.Logger
	parts []part
	// closers run after all parts have stopped, last first.
	closers []func()
	ready   chan struct{}
	catalog *catalog.Catalog // nil without a node side
	// shown is what parts show beside the metrics, by pattern.
	shown map[string]http.Handler

	eager bool // the start is busy: see tuneMemory

	// lameduck is how long everything goes on after the stop was asked for,
	// with /readyz saying so.
	lameduck time.Duration
	stopping atomic.Bool
	waiting  atomic.Pointer[string] // for which part, while it starts
}

// stopPatience is how long one part may take to stop, beside the time that it
// gives to others.
const stopPatience = 10 * time.Second

func newSystem(log *slog.Logger) *System {
	s := &System{log: log, ready: make(chan struct{}), shown: map[string]http.Handler{}}
	// First: a start is when most is allocated.
	s.add("memory", func(ctx context.Context) error { return tuneMemory(ctx, s.eager) }, nil)
	return s
}

func (s *System) add(name string, run func(context.Context) error, ready <-chan struct{}) {
	s.parts = append(s.parts, part{name: name, run: run, ready: ready})
}

func (s *System) onClose(f func()) { s.closers = append(s.closers, f) }

// Ready is closed when every part has started.
func (s *System) Ready() <-chan struct{} { return s.ready }

// Close frees what New opened; for a System that is not run.
func (s *System) Close() {
	for i := len(s.closers) - 1; i >= 0; i-- {
		s.closers[i]()
	}
	s.closers = nil
}

// limp lets whoever asks for readiness send its clients elsewhere before
// anything stops.
func (s *System) limp(failed <-chan error) error {
	s.stopping.Store(true)
	if s.lameduck <= 0 {
		return nil
	}
	s.log.Info("stopping soon: not ready any more, still answering", "after", s.lameduck)
	select {
	case err := <-failed:
		return err
	case <-time.After(s.lameduck):
		return nil
	}
}

// running is a started part.
type running struct {
	part
	cancel context.CancelFunc
	done   chan error
}

// Run starts the parts in order and keeps them running until ctx ends or one
// of them fails, then stops them in the opposite order. The error is that of
// the part that failed.
func (s *System) Run(ctx context.Context) error {
	defer s.Close()
	failed := make(chan error, len(s.parts))
	var up []running
	var cause error
start:
	for _, p := range s.parts {
		pctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		r := running{p, cancel, make(chan error, 1)}
		up = append(up, r)
		go func() {
			err := p.run(pctx)
			if pctx.Err() == nil { // it ended by itself
				if err == nil {
					err = errors.New("it ended")
				}
				failed <- fmt.Errorf("%s: %w", p.name, err)
			} else if err != nil && !errors.Is(err, context.Canceled) {
				s.log.Warn("a part did not stop cleanly", "part", p.name, "error", err)
			}
			r.done <- err
		}()
		if p.ready == nil {
			continue
		}
		s.waiting.Store(&p.name)
		select {
		case <-p.ready:
		case cause = <-failed:
			break start
		case <-ctx.Done():
			break start
		}
	}
	if cause == nil && ctx.Err() == nil {
		close(s.ready)
		select {
		case cause = <-failed:
		case <-ctx.Done():
			cause = s.limp(failed)
		}
	}
	s.stopping.Store(true)
	for i := len(up) - 1; i >= 0; i-- {
		up[i].cancel()
		select {
		case <-up[i].done:
		case <-time.After(stopPatience + up[i].drain):
			s.log.Warn("a part does not stop; going on without it", "part", up[i].name)
		}
	}
	return cause
}
