package process

import (
	"context"
	"math/bits"
	"time"

	"github.com/fingerpost/fingerpost/health"
)

// eagerFirst is the first pause between checks until the first success: a
// process should be in as soon as it can be.
const eagerFirst = 25 * time.Millisecond

// verdict is what a monitor says when its opinion changes.
type verdict struct {
	state  health.State // Starting: has not passed yet; Passing; Failing
	reason string
}

// monitor checks a process over and over. Each change of opinion goes to
// tell, which must not block for long.
type monitor struct {
	check Check
	probe func(context.Context) error
	begun func() bool // something else knows that the process has begun its work; may be nil
	tell  func(verdict)
}

// Run checks until ctx ends. Until the first success, the end of the check's
// Grace, or begun, failures do not count: only their reasons are told.
func (m *monitor) Run(ctx context.Context) {
	var (
		began     = time.Now()
		threshold = health.NewThreshold(m.check.Rise, m.check.Fall, began)
		eager     = backoff{first: min(eagerFirst, m.check.Interval), limit: m.check.Interval}
		ever      bool
		early     uint // failures before the first success
		said      string
		pause     = time.NewTimer(0)
	)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
		err := m.once(ctx)
		if ctx.Err() != nil {
			return // stopped, not failed
		}
		switch now := time.Now(); {
		case err == nil:
			if threshold.Observe(true, "", now) {
				ever = true
				m.tell(verdict{state: health.Passing})
			}
		case ever || m.check.Grace >= 0 && now.Sub(began) >= m.check.Grace || m.begun != nil && m.begun():
			if threshold.Observe(false, err.Error(), now) {
				m.tell(verdict{health.Failing, err.Error()})
			}
		default:
			threshold = health.NewThreshold(m.check.Rise, m.check.Fall, began) // successes in a row start over
			// The reason may differ each time (a source port in it): telling it
			// ever less often keeps the writes few.
			if early++; err.Error() != said && bits.OnesCount(early) == 1 {
				said = err.Error()
				m.tell(verdict{health.Starting, said})
			}
		}
		if ever {
			pause.Reset(m.check.Interval)
		} else {
			pause.Reset(eager.after(0))
		}
	}
}

func (m *monitor) once(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, m.check.Timeout)
	defer cancel()
	return m.probe(ctx)
}
