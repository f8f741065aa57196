package balance

import (
	"math"
	"sync/atomic"
	"time"
)

// Load is what is known of one backend while it is used: how many requests it
// has, how fast it answers, whether it fails. It belongs to the backend and
// outlives the lists that the backend is in. The zero value is one that nothing
// is known of.
//
// Times are durations since a moment that the caller chose, the same for all.
type Load struct {
	active    atomic.Int32
	failed    atomic.Int32 // failures in a row
	soft      atomic.Int32 // bad answers in a row
	ejections atomic.Int32 // in a row, without a success between
	until     atomic.Int64 // ejected until; 0: not
	last      atomic.Int64 // the last failure
	hard      atomic.Bool  // what ejected it was no answer at all
	cost      atomic.Uint64
	stamp     atomic.Int64 // of cost
	// Two backends never share a cache line: their counters change with every
	// request, on different processors.
	_ [64]byte
}

// Active is the number of requests that it has now.
func (l *Load) Active() int { return int(l.active.Load()) }

// Troubled says that it failed and has not answered since.
func (l *Load) Troubled() bool {
	return l.failed.Load() != 0 || l.soft.Load() != 0 || l.ejections.Load() != 0
}

// Ejected says until when it is ejected, 0: it is not.
func (l *Load) Ejected(now time.Duration) (until time.Duration) {
	if until = time.Duration(l.until.Load()); until > now {
		return until
	}
	return 0
}

// Latency is what it is expected to take for an answer, 0: not known.
func (l *Load) Latency(now time.Duration) time.Duration {
	cost := math.Float64frombits(l.cost.Load())
	if cost == 0 {
		return 0
	}
	return time.Duration(cost * fade(now-time.Duration(l.stamp.Load())))
}

// memory is how long a latency is remembered: after this time 1/e of it is
// left. A backend that was slow is asked again because of that.
const memory = 10 * time.Second

func fade(age time.Duration) float64 {
	if age <= 0 {
		return 1
	}
	return math.Exp(-float64(age) / float64(memory))
}

// observe takes a latency. One above what was expected counts in full at once,
// one below bit by bit (peak EWMA): being slow is noticed by the next pick.
// Two at the same moment may lose one of them, which nobody can tell.
func (l *Load) observe(latency, now time.Duration) {
	old := math.Float64frombits(l.cost.Load())
	next := float64(max(latency, 1))
	if old > 0 {
		if keep := fade(now - time.Duration(l.stamp.Load())); next < old*keep {
			// Each answer weighs at least a sixteenth, or a busy backend would
			// never get out of one slow answer.
			keep = min(keep, 15.0/16)
			next = old*keep + next*(1-keep)
		}
	}
	l.cost.Store(math.Float64bits(next))
	l.stamp.Store(int64(now))
}

// penalty is the load that recent failures stand for. A backend that fails at
// once has no requests under way; without it, it would look like the best.
func (l *Load) penalty(now time.Duration) int32 {
	n := l.failed.Load() + l.soft.Load()
	if n == 0 || now-time.Duration(l.last.Load()) >= grudge {
		return 0
	}
	if l.ejections.Load() != 0 {
		return 0 // it has done its time: see onProbation
	}
	return min(n, 64) * 16
}

// onProbation says that it was ejected, has not answered since, and has a
// request by which that will be known: no other one until then, or many would
// fail before the first does.
func (l *Load) onProbation(now time.Duration) bool {
	return l.ejections.Load() != 0 && now < time.Duration(l.until.Load())+grudge && l.active.Load() > 0
}

// grudge is how long a failure counts as load, and how long probation lasts.
const grudge = 10 * time.Second
