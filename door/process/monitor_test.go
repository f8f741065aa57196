package process

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestMonitor plays scripts: each letter is one probe's result, + or -; what
// is told, and when, is compared. The last result stays.
func TestMonitor(t *testing.T) {
	for _, c := range []struct {
		name   string
		check  Check
		script string
		begun  bool
		want   []string
	}{
		{"in at once", Check{Rise: 1, Fall: 2, Grace: -1}, "+", false, []string{"0s Passing"}},
		{"eager while starting", Check{Rise: 1, Fall: 2, Grace: -1}, "---+", false, []string{"0s Starting no", "175ms Passing"}},
		{"one failure is forgiven", Check{Rise: 1, Fall: 2, Grace: -1}, "+-+", false, []string{"0s Passing"}},
		{"out and back", Check{Rise: 2, Fall: 2, Grace: -1}, "++--++", false, []string{"25ms Passing", "2.025s Failing no", "4.025s Passing"}},
		{"rise starts over", Check{Rise: 2, Fall: 1, Grace: -1}, "+-++", false, []string{"25ms Starting no", "175ms Passing"}},
		{"a start may take for ever", Check{Rise: 1, Fall: 1, Grace: -1}, "-", false, []string{"0s Starting no"}},
		{"but not for a live check", Check{Rise: 1, Fall: 2, Grace: 5 * time.Second}, "-", false, []string{"0s Starting no", "6.575s Failing no"}},
		{"grace ends when work has begun", Check{Rise: 1, Fall: 2, Grace: time.Hour}, "-", true, []string{"25ms Failing no"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c.check.Interval, c.check.Timeout = time.Second, time.Second
				began, n := time.Now(), 0
				var told []string
				m := monitor{check: c.check, begun: func() bool { return c.begun }, probe: func(context.Context) error {
					r := c.script[min(n, len(c.script)-1)]
					if n++; r == '-' {
						return errors.New("no")
					}
					return nil
				}, tell: func(v verdict) {
					told = append(told, strings.TrimSpace(fmt.Sprintf("%v %v %s", time.Since(began), v.state, v.reason)))
				}}
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				m.Run(ctx)
				if !slices.Equal(told, c.want) {
					t.Errorf("told %q\nwant %q", told, c.want)
				}
			})
		})
	}
}

// A reason that differs each time must not become a write each time.
func TestMonitorDoesNotChatter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, told := 0, 0
		m := monitor{
			check: Check{Interval: time.Second, Timeout: time.Second, Rise: 1, Fall: 1, Grace: -1},
			probe: func(context.Context) error { n++; return fmt.Errorf("failure %d", n) },
			tell:  func(verdict) { told++ },
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		m.Run(ctx)
		if n < 3600 || told > 13 {
			t.Errorf("%d probes, told %d times", n, told)
		}
	})
}

func TestMonitorGivesUpOnAProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []verdict
		m := monitor{
			check: Check{Interval: time.Second, Timeout: 300 * time.Millisecond, Rise: 1, Fall: 1, Grace: -1},
			probe: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
			tell:  func(v verdict) { told = append(told, v) },
		}
		ctx, cancel := context.WithTimeout(t.Context(), 310*time.Millisecond)
		defer cancel()
		m.Run(ctx)
		if len(told) != 1 || told[0].reason != context.DeadlineExceeded.Error() {
			t.Errorf("told %v", told)
		}
	})
}

func TestRestartBackoff(t *testing.T) {
	b := restartBackoff()
	var got []time.Duration
	for range 9 {
		got = append(got, b.after(time.Second))
	}
	ms := time.Millisecond
	if want := []time.Duration{250 * ms, 500 * ms, 1000 * ms, 2000 * ms, 4000 * ms, 8000 * ms, 16000 * ms, 30000 * ms, 30000 * ms}; !slices.Equal(got, want) {
		t.Errorf("crash loop: %v, want %v", got, want)
	}
	if d := b.after(30 * time.Second); d != 250*ms {
		t.Errorf("after 30s of work: %v, want 250ms", d)
	}
	if d := b.after(29 * time.Second); d != 500*ms {
		t.Errorf("after 29s: %v, want 500ms", d)
	}
}
