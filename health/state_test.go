package health

import (
	"testing"
	"time"
)

var t0 = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func at(seconds float64) time.Time { return t0.Add(time.Duration(seconds * float64(time.Second))) }

func TestThreshold(t *testing.T) {
	for _, tc := range []struct {
		name       string
		rise, fall int
		results    string // + and -
		states     string // the state after each: S, P or F
	}{
		{"defaults", 0, 0, "+-+-", "PFPF"},
		{"first success", 1, 3, "+", "P"},
		{"one failure is not the end", 1, 3, "+--+--+", "PPPPPPP"},
		{"three are", 1, 3, "+---", "PPPF"},
		{"starting until fall", 1, 3, "---", "SSF"},
		{"starting until rise", 2, 3, "+-++", "SSSP"},
		{"rise in a row", 3, 1, "-++-+++", "FFFFFFP"},
		{"both thresholds", 2, 2, "++-+--+-++", "SPPPPFFFFP"},
	} {
		th := NewThreshold(tc.rise, tc.fall, t0)
		if th.State() != Starting || th.Reason() == "" || !th.Since().Equal(t0) {
			t.Errorf("%s: starts as %s %q %s", tc.name, th.State(), th.Reason(), th.Since())
		}
		for i, r := range tc.results {
			before := th.State()
			now := at(float64(i + 1))
			changed := th.Observe(r == '+', string(r), now)
			if got := string(th.State())[0]; got != tc.states[i] {
				t.Errorf("%s: after %s: %s, want %c", tc.name, tc.results[:i+1], th.State(), tc.states[i])
			}
			if changed != (before != th.State()) {
				t.Errorf("%s: after %s: changed is %t", tc.name, tc.results[:i+1], changed)
			}
			if changed && (!th.Since().Equal(now) || th.Reason() != string(r)) {
				t.Errorf("%s: after %s: since %s, reason %q", tc.name, tc.results[:i+1], th.Since(), th.Reason())
			}
		}
	}
}

func TestThresholdSetLimits(t *testing.T) {
	th := NewThreshold(1, 3, t0)
	th.Observe(true, "", t0)
	th.Observe(false, "no", t0)
	th.SetLimits(1, 2)
	if !th.Observe(false, "no", t0) || th.State() != Failing {
		t.Errorf("after the second failure with fall 2: %s", th.State())
	}
}
