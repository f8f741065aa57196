package prober

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fingerpost/fingerpost/health/probe"
)

// TestRoundsKeepPeriods: in rounds probes are asked as often as alone, many at
// the same moment, and not after Stop.
func TestRoundsKeepPeriods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		asked := map[int][]time.Duration{}
		rounds, start := NewRounds(), time.Now()
		var groups []*Group
		for i := range 40 {
			period := time.Duration(1+i%3) * time.Second
			groups = append(groups, Start(Config{
				Rounds: rounds, Since: start, Started: true, Report: func(Report) {},
				Probes: []Probe{{Kind: Readiness, Period: period, Ask: func(context.Context) probe.Result {
					time.Sleep(7 * time.Millisecond)
					mu.Lock()
					defer mu.Unlock()
					asked[i] = append(asked[i], time.Since(start)-7*time.Millisecond)
					return probe.Result{OK: true}
				}}},
			}))
		}
		time.Sleep(30*time.Second + grid/2) // when nobody is being asked
		for _, g := range groups {
			g.Stop()
		}
		if len(rounds.slots) > 0 {
			t.Errorf("%d rounds wait after the last group stopped", len(rounds.slots))
		}
		synctest.Wait()
		before := fmt.Sprint(asked)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if fmt.Sprint(asked) != before {
			t.Error("asked after Stop")
		}
		moments := map[time.Duration]bool{}
		for i, at := range asked {
			period := time.Duration(1+i%3) * time.Second
			if want := int(30 * time.Second / period); len(at) < want || len(at) > want+1 {
				t.Errorf("period %s: asked %d times in 30 s", period, len(at))
			}
			for j := range at[1:] {
				if d := at[j+1] - at[j]; d != period {
					t.Errorf("period %s: %s between two questions", period, d)
				}
			}
			for _, a := range at {
				moments[a%time.Second] = true
			}
		}
		if len(moments) > int(time.Second/grid) {
			t.Errorf("%d moments of a second", len(moments))
		}
	})
}

// TestRoundsSlowAnswer: an answer that takes longer than a period delays the
// next question, and nobody else's.
func TestRoundsSlowAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rounds, start := NewRounds(), time.Now()
		var slow, fast []time.Duration
		one := func(ask func()) *Group {
			return Start(Config{Rounds: rounds, Since: start, Report: func(Report) {}, Probes: []Probe{{
				Kind: Liveness, Period: time.Second, Timeout: 10 * time.Second,
				Ask: func(context.Context) probe.Result { ask(); return probe.Result{OK: true} },
			}}})
		}
		a := one(func() { slow = append(slow, time.Since(start)); time.Sleep(2500 * time.Millisecond) })
		b := one(func() { fast = append(fast, time.Since(start)) })
		time.Sleep(9900 * time.Millisecond)
		a.Stop()
		b.Stop()
		time.Sleep(5 * time.Second) // until the last answer is there
		synctest.Wait()
		if len(fast) != 10 {
			t.Errorf("the quick one was asked %d times in 10 s", len(fast))
		}
		for i := range slow[1:] {
			if d := slow[i+1] - slow[i]; d < 2500*time.Millisecond || d > 2500*time.Millisecond+2*grid {
				t.Errorf("%s between two questions of the slow one", d)
			}
		}
	})
}
