package prober

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/fingerpost/fingerpost/health"
	"github.com/fingerpost/fingerpost/health/probe"
)

// Kind is what a probe is for.
type Kind string

// The kinds, as messages name them.
const (
	Startup   Kind = "Startup"
	Liveness  Kind = "Liveness"
	Readiness Kind = "Readiness"
)

// Probe is one question.
type Probe struct {
	Kind             Kind
	Delay            time.Duration // after the start of the container
	Period           time.Duration // 10 s
	Timeout          time.Duration // 1 s
	Success, Failure int           // 1 and 3
	// Ask asks once.
	Ask func(ctx context.Context) probe.Result
	// Quick, if there is one, asks the same at less cost. The first question is
	// always asked by Ask.
	Quick *Quick
	// Cheap probes may be asked more often in the first period.
	Cheap bool
}

func (p Probe) withDefaults() Probe {
	if p.Period <= 0 {
		p.Period = 10 * time.Second
	}
	if p.Timeout <= 0 {
		p.Timeout = time.Second
	}
	if p.Success <= 0 {
		p.Success = 1
	}
	if p.Failure <= 0 {
		p.Failure = 3
	}
	return p
}

// Report tells of one answer.
type Report struct {
	Kind    Kind
	OK      bool         // the answer
	State   health.State // after it
	Changed bool
	Output  string
}

// Config of a Group.
type Config struct {
	Probes []Probe
	Since  time.Time // start of the container
	// Started says that the startup probe has passed already: the container
	// was taken over. The first probes are spread over their period then.
	Started bool
	// Rounds, if given, has probes of many groups asked together.
	Rounds *Rounds
	// Report is called for each answer that counts, one call at a time for
	// each kind.
	Report func(Report)
}

// Group is the probes of one run of a container.
type Group struct {
	cfg    Config
	ctx    context.Context
	cancel context.CancelFunc

	mu    sync.Mutex
	tasks []*task
}

type task struct {
	Probe
	group *Group
	state *health.Threshold
	timer *time.Timer   // nil: it waits for the startup probe, or has only ever been in rounds
	slot  int64         // of Rounds; 0: in none
	set   bool          // its first time was set
	due   time.Time     // when it was to be asked
	first time.Time     // when its first period began
	again time.Duration // next pause within the first period
}

// Start begins to probe.
func Start(cfg Config) *Group {
	ctx, cancel := context.WithCancel(context.Background())
	g := &Group{cfg: cfg, ctx: ctx, cancel: cancel}
	g.mu.Lock()
	defer g.mu.Unlock()
	startup := false
	for _, p := range cfg.Probes {
		startup = startup || p.Kind == Startup && !cfg.Started
	}
	now := time.Now()
	for _, p := range cfg.Probes {
		p = p.withDefaults()
		t := &task{Probe: p, group: g, state: health.NewThreshold(p.Success, p.Failure, now)}
		if p.Kind == Startup && cfg.Started {
			continue
		}
		g.tasks = append(g.tasks, t)
		if p.Kind == Startup || !startup {
			t.schedule(now, cfg.Started)
		}
	}
	return g
}

// Stop ends all probes.
func (g *Group) Stop() {
	g.cancel()
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, t := range g.tasks {
		if t.timer != nil {
			t.timer.Stop()
		}
		if t.slot != 0 {
			g.cfg.Rounds.remove(t)
		}
	}
}

// schedule sets the first time; the group's lock is held.
func (t *task) schedule(now time.Time, spread bool) {
	wait := max(t.group.cfg.Since.Add(t.Delay).Sub(now), 0)
	if spread {
		wait = max(wait, time.Duration(rand.Float64()*float64(min(t.Period, 10*time.Second))))
	}
	t.set, t.first, t.again = true, now.Add(wait), 50*time.Millisecond
	if spread && t.group.cfg.Rounds != nil {
		t.group.cfg.Rounds.add(t, t.first)
		return
	}
	t.soon(t.first, wait)
}

// soon sets a time to the point; the group's lock is held.
func (t *task) soon(due time.Time, wait time.Duration) {
	t.due = due
	if t.timer == nil {
		t.timer = time.AfterFunc(wait, t.run)
	} else {
		t.timer.Reset(wait)
	}
}

// run asks by itself.
func (t *task) run() {
	begin := time.Now()
	ctx, cancel := context.WithTimeout(t.group.ctx, t.Timeout)
	res := t.Ask(ctx)
	cancel()
	t.answered(begin, res)
}

// answered takes an answer and sets the next time.
func (t *task) answered(begin time.Time, res probe.Result) {
	g := t.group
	if g.ctx.Err() != nil {
		return // the answer is about the end of the group, not about the container
	}
	now := time.Now()
	g.mu.Lock()
	if !res.OK && t.Cheap && t.Kind != Liveness && t.state.State() == health.Starting && begin.Add(t.again).Sub(t.first) < t.Period {
		wait := max(begin.Add(t.again).Sub(now), 10*time.Millisecond)
		t.soon(now.Add(wait), wait)
		t.again *= 2
		g.mu.Unlock()
		return
	}
	changed := t.state.Observe(res.OK, res.Output, now)
	r := Report{Kind: t.Kind, OK: res.OK, State: t.state.State(), Changed: changed, Output: res.Output}
	done := t.Kind == Startup && r.State != health.Starting
	g.mu.Unlock()
	g.cfg.Report(r)

	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ctx.Err() != nil {
		return
	}
	if !done {
		t.next(begin)
		return
	}
	if r.State == health.Passing {
		for _, other := range g.tasks {
			if other.Kind != Startup && !other.set {
				other.schedule(now, false)
			}
		}
	}
}

// next sets the time a period after the last; the group's lock is held.
func (t *task) next(begin time.Time) {
	if t.group.cfg.Rounds == nil {
		due := begin.Add(t.Period)
		t.soon(due, max(time.Until(due), 0))
		return
	}
	// In rounds it begins a little late each time, which must not add up.
	due := t.due.Add(t.Period)
	if now := time.Now(); due.Before(now) {
		due = now
	}
	t.group.cfg.Rounds.add(t, due)
}
