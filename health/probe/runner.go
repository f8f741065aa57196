package probe

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fingerpost/fingerpost/health"
)

// Spec says what to probe and how often. Zero values mean the defaults.
type Spec struct {
	Type     string // TypeHTTP …
	Target   Target
	Interval time.Duration // 10 s, at least 100 ms
	Timeout  time.Duration // 1 s, at most the interval
	Rise     int           // 1
	Fall     int           // 3
}

func (s Spec) withDefaults() Spec {
	if s.Interval <= 0 {
		s.Interval = 10 * time.Second
	}
	s.Interval = max(s.Interval, 100*time.Millisecond)
	if s.Timeout <= 0 {
		s.Timeout = time.Second
	}
	s.Timeout = min(s.Timeout, s.Interval)
	if s.Rise <= 0 {
		s.Rise = 1
	}
	if s.Fall <= 0 {
		s.Fall = 3
	}
	return s
}

// Config of a Runner.
type Config struct {
	// OnChange is told each change of state; it should not block for long, as
	// it holds up the probes of that key and one of Concurrency.
	OnChange func(key string, state health.State, reason string, at time.Time)

	Concurrency int               // probes at a time; 64
	Rate        float64           // first probes per second when many targets come together; 500
	Probers     map[string]Prober // by type; All()
	Rand        func() float64    // in [0,1), for the spreading; math/rand
	Registerer  prometheus.Registerer
}

// Runner probes many targets.
type Runner struct {
	cfg     Config
	metrics metrics
	wake    chan struct{} // capacity 1: the head of the queue may be due earlier

	mu      sync.Mutex
	targets map[string]*target
	queue   targetQueue
	first   int // targets not probed yet
}

type target struct {
	key    string
	spec   Spec
	state  *health.Threshold
	due    time.Time
	index  int // in the queue; -1: being probed, or gone
	probed bool
	gone   bool
	cancel context.CancelFunc // ends the probe that is running
}

// NewRunner makes a runner without targets. Nothing is probed before Run.
func NewRunner(cfg Config) (*Runner, error) {
	if cfg.Concurrency <= 0 {
		cfg.Concurrency = 64
	}
	if cfg.Rate <= 0 {
		cfg.Rate = 500
	}
	if cfg.Probers == nil {
		cfg.Probers = All()
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.Float64
	}
	if cfg.OnChange == nil {
		cfg.OnChange = func(string, health.State, string, time.Time) {}
	}
	r := &Runner{cfg: cfg, wake: make(chan struct{}, 1), targets: map[string]*target{}}
	r.metrics = newMetrics(r.Len)
	if err := r.metrics.register(cfg.Registerer); err != nil {
		return nil, fmt.Errorf("probe: register metrics: %w", err)
	}
	return r, nil
}

// Set adds a target or changes it. The same spec again changes nothing; other
// times and limits keep the state; another type or target starts anew, from
// Starting, which is not told.
func (r *Runner) Set(key string, spec Spec) error {
	if r.cfg.Probers[spec.Type] == nil {
		return fmt.Errorf("probe: set %s: there is no probe of type %q: use http, tcp, grpc or exec", key, spec.Type)
	}
	spec = spec.withDefaults()
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if t := r.targets[key]; t != nil {
		if t.spec.Type == spec.Type && t.spec.Target.Equal(spec.Target) {
			t.spec = spec
			t.state.SetLimits(spec.Rise, spec.Fall)
			if next := now.Add(spec.Interval); t.index >= 0 && next.Before(t.due) {
				t.due = next
				heap.Fix(&r.queue, t.index)
				r.poke()
			}
			return nil
		}
		r.drop(t)
	}
	t := &target{key: key, spec: spec, state: health.NewThreshold(spec.Rise, spec.Fall, now), due: now, index: -1}
	if r.first > r.cfg.Concurrency/2 {
		// Many at once: over so long that Rate is kept, but not longer than
		// one interval.
		spread := min(spec.Interval, time.Duration(float64(r.first)/r.cfg.Rate*float64(time.Second)))
		t.due = now.Add(time.Duration(r.cfg.Rand() * float64(spread)))
	}
	r.first++
	r.targets[key] = t
	heap.Push(&r.queue, t)
	r.poke()
	return nil
}

// Remove ends the probing of a target.
func (r *Runner) Remove(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t := r.targets[key]; t != nil {
		r.drop(t)
		delete(r.targets, key)
	}
}

func (r *Runner) drop(t *target) {
	t.gone = true
	if !t.probed {
		r.first--
	}
	if t.index >= 0 {
		heap.Remove(&r.queue, t.index)
	}
	if t.cancel != nil {
		t.cancel()
	}
}

// State gives the state of a target, why, and since when.
func (r *Runner) State(key string) (state health.State, reason string, since time.Time, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.targets[key]
	if t == nil {
		return "", "", time.Time{}, false
	}
	return t.state.State(), t.state.Reason(), t.state.Since(), true
}

// Len counts the targets.
func (r *Runner) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.targets)
}

func (r *Runner) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Run probes until ctx ends, and returns when the last probe has ended. It is
// called once.
func (r *Runner) Run(ctx context.Context) error {
	slots := make(chan struct{}, r.cfg.Concurrency)
	var running sync.WaitGroup
	defer running.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case slots <- struct{}{}: // first the slot, then the target: what is most due when there is one
		case <-ctx.Done():
			return ctx.Err()
		}
		t, wait := r.take()
		if t != nil {
			running.Go(func() {
				r.probe(ctx, t)
				<-slots
			})
			continue
		}
		<-slots
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.wake:
		case <-timer.C:
		}
	}
}

// take gives the target that is due, or says how long to wait for one.
func (r *Runner) take() (*target, time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.queue) == 0 {
		return nil, time.Hour
	}
	t := r.queue[0]
	if wait := time.Until(t.due); wait > 0 {
		return nil, wait
	}
	heap.Pop(&r.queue)
	if !t.probed {
		t.probed = true
		r.first--
	}
	return t, 0
}

// probe asks once, tells, and queues the target again.
func (r *Runner) probe(ctx context.Context, t *target) {
	r.mu.Lock()
	if t.gone {
		r.mu.Unlock()
		return
	}
	spec := t.spec
	ctx, cancel := Within(ctx, spec.Timeout)
	defer cancel()
	t.cancel = cancel
	r.mu.Unlock()

	start := time.Now()
	res := r.cfg.Probers[spec.Type](ctx, spec.Target)
	end := time.Now()
	if errors.Is(ctx.Err(), context.Canceled) {
		return // removed, changed or stopping: the result says nothing about the target
	}
	r.metrics.observe(spec.Type, res.OK, end.Sub(start))

	r.mu.Lock()
	t.cancel = nil
	changed := !t.gone && t.state.Observe(res.OK, res.Output, end)
	state, reason := t.state.State(), t.state.Reason()
	r.mu.Unlock()
	if changed {
		r.cfg.OnChange(t.key, state, reason, end)
	}

	r.mu.Lock()
	defer r.mu.Unlock()
	if !t.gone {
		t.due = start.Add(t.spec.Interval)
		heap.Push(&r.queue, t)
		r.poke()
	}
}

// targetQueue is a heap by due.
type targetQueue []*target

func (q targetQueue) Len() int           { return len(q) }
func (q targetQueue) Less(i, j int) bool { return q[i].due.Before(q[j].due) }
func (q targetQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}
func (q *targetQueue) Push(x any) {
	t := x.(*target)
	t.index = len(*q)
	*q = append(*q, t)
}
func (q *targetQueue) Pop() any {
	old := *q
	t := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	t.index = -1
	return t
}
