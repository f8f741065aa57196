package health

import "time"

// State is the last word on something's health. The words are the catalog's.
type State string

// The states that this package decides about.
const (
	Starting State = "Starting" // not observed often enough yet
	Passing  State = "Passing"
	Failing  State = "Failing"
	Expired  State = "Expired" // its heartbeats stopped
	Stale    State = "Stale"   // its heartbeats stopped together with many others': held
)

// Threshold is a state with hysteresis. It is not safe for concurrent use.
type Threshold struct {
	rise, fall int
	state      State
	reason     string
	since      time.Time
	ups, downs int // results in a row, one of them 0
}

// NewThreshold starts in Starting. Numbers below 1 mean 1.
func NewThreshold(rise, fall int, now time.Time) *Threshold {
	return &Threshold{rise: max(rise, 1), fall: max(fall, 1), state: Starting, reason: "not checked yet", since: now}
}

// Observe takes one result, with a reason for a person, and says whether the
// state changed.
func (t *Threshold) Observe(ok bool, reason string, now time.Time) (changed bool) {
	next := t.state
	if ok {
		t.ups, t.downs = t.ups+1, 0
		if t.ups >= t.rise {
			next = Passing
		}
	} else {
		t.ups, t.downs = 0, t.downs+1
		if t.downs >= t.fall {
			next = Failing
		}
	}
	if next == t.state {
		return false
	}
	t.state, t.reason, t.since = next, reason, now
	return true
}

// SetLimits changes rise and fall; the state and what was observed stay.
func (t *Threshold) SetLimits(rise, fall int) { t.rise, t.fall = max(rise, 1), max(fall, 1) }

// State gives the state.
func (t *Threshold) State() State { return t.state }

// Reason is what was observed when the state was reached.
func (t *Threshold) Reason() string { return t.reason }

// Since is when the state was reached.
func (t *Threshold) Since() time.Time { return t.since }
