package prober

import (
	"sync"
	"time"
)

const (
	// grid is the distance of rounds. A probe may begin that much late once;
	// after that its period is kept.
	grid = 50 * time.Millisecond
	// most is how many are asked at a time.
	most = 64
)

// looks are the pauses before looks for answers. What has no answer by then
// gets a goroutine that waits.
var looks = [...]time.Duration{time.Millisecond, 2 * time.Millisecond, 4 * time.Millisecond, 8 * time.Millisecond}

// Rounds has probes that are due about the same time asked by one goroutine: a
// process at rest pays mostly for waking up, and waking up for one question or
// for ten costs the same.
type Rounds struct {
	base    time.Time
	scratch sync.Pool // *scratch

	mu    sync.Mutex
	slots map[int64]*slot
}

type slot struct {
	timer *time.Timer
	tasks map[*task]struct{}
}

// NewRounds makes rounds for any number of groups. They cost nothing when
// nothing is to be asked, and need no end.
func NewRounds() *Rounds {
	return &Rounds{base: time.Now().Add(-grid), slots: map[int64]*slot{}}
}

// add puts a probe into the first round that is not before due. The lock of its
// group is held.
func (r *Rounds) add(t *task, due time.Time) {
	n := int64((due.Sub(r.base) + grid - 1) / grid)
	at := r.base.Add(time.Duration(n) * grid)
	t.due, t.slot = at, n
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.slots[n]
	if s == nil {
		s = &slot{tasks: map[*task]struct{}{}}
		r.slots[n] = s
		s.timer = time.AfterFunc(time.Until(at), func() { r.run(n) })
	}
	s.tasks[t] = struct{}{}
}

// remove takes a probe out. The lock of its group is held.
func (r *Rounds) remove(t *task) {
	n := t.slot
	t.slot = 0
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.slots[n]
	if s == nil {
		return
	}
	if delete(s.tasks, t); len(s.tasks) == 0 {
		s.timer.Stop()
		delete(r.slots, n)
	}
}

// run asks all of a round.
func (r *Rounds) run(n int64) {
	r.mu.Lock()
	s := r.slots[n]
	delete(r.slots, n)
	r.mu.Unlock()
	if s == nil {
		return
	}
	b := batch{r: r}
	for t := range s.tasks {
		g := t.group
		g.mu.Lock()
		mine := t.slot == n && g.ctx.Err() == nil
		t.slot = 0
		g.mu.Unlock()
		switch {
		case !mine:
		case t.Quick == nil:
			go t.run()
		default:
			if b.begin(t); len(b.open) == most {
				b.finish()
			}
		}
	}
	b.finish()
}

// batch is questions that wait for their answers together.
type batch struct {
	r    *Rounds
	open []*exchange
}

// begin asks.
func (b *batch) begin(t *task) {
	x, err := t.Quick.begin()
	switch {
	case err != nil:
		t.answered(time.Now(), t.Quick.failed(t.group.ctx, err))
	case x == nil: // not here, or not now: perhaps there are no descriptors left
		go t.run()
	default:
		x.t = t
		b.open = append(b.open, x)
	}
}

// finish takes the answers.
func (b *batch) finish() {
	if len(b.open) == 0 {
		return
	}
	s, _ := b.r.scratch.Get().(*scratch)
	if s == nil {
		s = newScratch()
	}
	defer b.r.scratch.Put(s)
	for _, wait := range looks {
		if len(b.open) == 0 {
			return
		}
		<-time.After(wait)
		rest := b.open[:0]
		for _, x := range b.open {
			if !x.look(s) {
				rest = append(rest, x)
			}
		}
		clear(b.open[len(rest):])
		b.open = rest
	}
	for i, x := range b.open {
		b.open[i] = nil
		go x.wait()
	}
	b.open = b.open[:0]
}
