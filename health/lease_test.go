package health

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const ttl = 15 * time.Second

// table is Leases with times in seconds, and transitions as text.
type table struct {
	*testing.T
	*Leases
}

func newTable(t *testing.T) table { return table{t, NewLeases(LeaseConfig{}, t0)} }

// put adds n leases named prefix-1… of one group, services of two leases each.
func (b table) put(prefix string, n int, now float64) {
	for i := range n {
		b.Put(name(prefix, i), "zone-a", fmt.Sprintf("svc-%s-%d", prefix, i/2), ttl, at(now))
	}
}

func name(prefix string, i int) string { return fmt.Sprintf("%s-%03d", prefix, i) }

// beat renews leases from to to-1.
func (b table) beat(prefix string, from, to int, now float64) {
	for i := from; i < to; i++ {
		if b.Renew(name(prefix, i), at(now)) == Unknown {
			b.Errorf("%s is unknown at %vs", name(prefix, i), now)
		}
	}
}

// run calls Expire every half second up to and including to, and beats leases
// from bfrom to bto-1 every 5 s after the start. It counts what is told.
func (b table) run(from, to float64, prefix string, bfrom, bto int) (out, held, revived []string) {
	for now := from; now <= to; now += 0.5 {
		if int(now*2)%10 == 0 && now > from {
			b.beat(prefix, bfrom, bto, now)
		}
		for _, tr := range b.Expire(at(now)) {
			text := fmt.Sprintf("%s@%g", tr.Key, now)
			switch tr.Kind {
			case WentOut:
				out = append(out, text)
			case WentHeld:
				held = append(held, text)
			case Revived:
				revived = append(revived, text)
			}
		}
	}
	return out, held, revived
}

func (b table) want(what string, got []string, want ...string) {
	b.Helper()
	if strings.Join(got, " ") != strings.Join(want, " ") {
		b.Errorf("%s: %v, want %v", what, got, want)
	}
}

func (b table) wantState(key string, want State) {
	b.Helper()
	if st, ok := b.Get(key); !ok || st.State != want {
		b.Errorf("%s is %s (there: %t), want %s", key, st.State, ok, want)
	}
}

func TestLeaseLife(t *testing.T) {
	b := newTable(t)
	if r := b.Renew("web", t0); r != Unknown {
		t.Errorf("renew of nobody: %v", r)
	}
	b.Put("web", "z", "svc", ttl, at(0))
	if r := b.Renew("web", at(10)); r != Renewed {
		t.Errorf("renew: %v", r)
	}
	if got := b.Expire(at(24.999)); len(got) > 0 {
		t.Errorf("told %v before the deadline", got)
	}
	got := b.Expire(at(25))
	if len(got) != 1 || got[0].Kind != WentOut || !got[0].At.Equal(at(25)) || !got[0].Last.Equal(at(10)) {
		t.Fatalf("told %+v", got)
	}
	if r := got[0].Reason(); r != "no heartbeat for 15s" {
		t.Errorf("reason %q", r)
	}
	b.wantState("web", Expired)
	if got := b.Expire(at(1000)); len(got) > 0 {
		t.Errorf("told %v again", got)
	}
	if !b.Next().IsZero() {
		t.Errorf("next is %s with nothing to do", b.Next())
	}

	if r := b.Renew("web", at(1001)); r != Returned {
		t.Errorf("renew of an expired lease: %v", r)
	}
	if n := b.Next(); n.After(at(1001)) || n.IsZero() {
		t.Errorf("a revival waits to be told, but next is %s", n)
	}
	if r := b.Renew("web", at(1002)); r != Renewed {
		t.Errorf("the second renew: %v", r)
	}
	got = b.Expire(at(1003))
	if len(got) != 1 || got[0].Kind != Revived || !got[0].At.Equal(at(1001)) || got[0].Kind.State() != Passing {
		t.Fatalf("told %+v", got)
	}
	b.wantState("web", Passing)
	if got := b.Expire(at(1017)); len(got) != 1 || got[0].Kind != WentOut {
		t.Errorf("told %+v", got)
	}

	if !b.Remove("web") || b.Remove("web") || b.Len() != 0 {
		t.Error("remove")
	}
	if len(b.groups)+len(b.services) > 0 {
		t.Error("the counters of groups and services stay behind")
	}
}

// Revived and expired again before anybody asked: both are told, in order.
func TestRevivedAndOutAgain(t *testing.T) {
	b := newTable(t)
	b.Put("web", "z", "svc", ttl, at(0))
	b.Expire(at(15))
	b.Renew("web", at(20))
	got := b.Expire(at(40))
	if len(got) != 2 || got[0].Kind != Revived || got[1].Kind != WentOut || !got[1].At.Equal(at(35)) {
		t.Errorf("told %+v", got)
	}
}

func TestPutAgain(t *testing.T) {
	b := newTable(t)
	b.Put("web", "z1", "svc", ttl, at(0))
	b.Put("web", "z2", "other", time.Second, at(1)) // shorter, elsewhere
	if len(b.groups) != 1 || b.groups["z2"].size.Load() != 1 || b.services["other"].alive.Load() != 1 {
		t.Errorf("groups %v services %v", b.groups, b.services)
	}
	if got := b.Expire(at(2)); len(got) != 1 || got[0].Group != "z2" {
		t.Fatalf("told %+v", got)
	}
	b.Put("web", "z2", "other", ttl, at(3))
	if got := b.Expire(at(3)); len(got) != 1 || got[0].Kind != Revived {
		t.Errorf("told %+v", got)
	}
	// Remove and Put is another lease: nothing of the old one is told.
	b.Expire(at(18))
	b.Renew("web", at(19))
	b.Remove("web")
	b.Put("web", "z2", "other", ttl, at(20))
	if got := b.Expire(at(20)); len(got) > 0 {
		t.Errorf("told %+v", got)
	}
}

// One dead among many is told on time, whatever the size of its group.
func TestSingleDeadIsOnTime(t *testing.T) {
	for _, n := range []int{1, 2, 9, 10, 11, 100, 1000} {
		b := newTable(t)
		b.put("i", n, 0)
		out, held, revived := b.run(0, 60, "i", 1, n)
		b.want(fmt.Sprint(n, " out"), out, "i-000@15")
		b.want("held", held)
		b.want("revived", revived)
	}
}

// A loop as the server runs it: at most Granularity late.
func TestNextAndWake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ls := NewLeases(LeaseConfig{}, time.Now())
		type event struct {
			Transition
			late time.Duration
		}
		var mu sync.Mutex
		var events []event
		done := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				var timer <-chan time.Time
				if next := ls.Next(); !next.IsZero() {
					timer = time.After(time.Until(next))
				}
				select {
				case <-done:
					return
				case <-ls.Wake():
				case <-timer:
				}
				now := time.Now()
				mu.Lock()
				for _, tr := range ls.Expire(now) {
					events = append(events, event{tr, now.Sub(tr.At)})
				}
				mu.Unlock()
			}
		})
		// The test's own waiting is on the fake clock: nothing really sleeps.
		start := time.Now()
		wait := func(d time.Duration) { <-time.After(d); synctest.Wait() }
		ls.Put("long", "z", "s", time.Hour, start)
		wait(time.Second)
		ls.Put("short", "z", "s", 7*time.Second, time.Now()) // earlier than what Next said
		wait(3 * time.Second)
		ls.Renew("short", time.Now())
		wait(time.Minute)
		ls.Renew("short", time.Now())
		synctest.Wait()
		mu.Lock()
		if len(events) != 2 || events[0].Kind != WentOut || events[1].Kind != Revived {
			t.Fatalf("events %+v", events)
		}
		if at := events[0].At.Sub(start); at != 11*time.Second {
			t.Errorf("expired at %s, want 11s", at)
		}
		for _, e := range events {
			if e.late > 50*time.Millisecond {
				t.Errorf("%s %v told %s late", e.Key, e.Kind, e.late)
			}
		}
		mu.Unlock()
		close(done)
		wg.Wait()
	})
}

// For the race detector, and for the counters: after all is removed they are
// all back at zero.
func TestConcurrentUse(t *testing.T) {
	ls := NewLeases(LeaseConfig{Shards: 4}, t0)
	g, sv := ls.names("z", "s") // keeps the counters for the check at the end
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 3000 {
				key := fmt.Sprint("k", (i*7+w)%50)
				now := t0.Add(time.Duration(i) * time.Millisecond)
				switch (i + w) % 6 {
				case 0:
					ls.Put(key, "z", "s", 20*time.Millisecond, now)
				case 1:
					ls.Remove(key)
				case 2:
					ls.Expire(now)
				case 3:
					ls.Next()
					ls.Get(key)
				default:
					ls.Renew(key, now)
				}
			}
		})
	}
	wg.Wait()
	for i := range 50 {
		ls.Remove(fmt.Sprint("k", i))
	}
	if g.size.Load() != 0 || g.out.Load() != 0 || sv.alive.Load() != 0 || g.refs != 1 || ls.Len() != 0 {
		t.Errorf("left behind: size %d, out %d, alive %d, refs %d, leases %d", g.size.Load(), g.out.Load(), sv.alive.Load(), g.refs, ls.Len())
	}
	if told := ls.Expire(t0.Add(time.Hour)); len(told) > 0 || !ls.Next().IsZero() {
		t.Errorf("told %v of removed leases, or something is still queued", told)
	}
}

func TestRenewDoesNotAllocate(t *testing.T) {
	ls, keys := benchLeases(1000)
	i := 0
	if n := testing.AllocsPerRun(5000, func() {
		ls.Renew(keys[i%len(keys)], t0.Add(time.Duration(i)))
		i++
	}); n != 0 {
		t.Errorf("%v allocations for a heartbeat, want 0", n)
	}
}
