package userspace

import (
	"fmt"
	"testing"
	"time"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/vip/viptest"
)

// TestClockIsSet: sessions, flows and endpoints that did not answer last as
// long as they should, whatever happens to the wall clock.
func TestClockIsSet(t *testing.T) {
	for _, jump := range viptest.Jumps() {
		t.Run(jump.String(), func(t *testing.T) {
			clock := viptest.NewClock(t)
			r := newRig(t, func(c *Config) { c.Now = clock.Now })
			at := free(t, "127.96.0.8")
			var eps []catalog.Endpoint
			for i := range 8 {
				eps = append(eps, newBackend(t, fmt.Sprint("b", i), "127.0.0.1").ep())
			}
			r.put(service(at, func(s *catalog.Service) { s.Affinity = time.Hour }), eps...)
			p := newPeer(t, at)
			first := p.who(t)
			spare := free(t, "127.0.0.1")
			r.d.suspects.add(catalog.TCP, spare, clock.Now())

			clock.Set(jump)
			r.d.tick(clock.Now())
			if n, m := r.d.flows.len(), r.d.sessions.len(); n != 1 || m != 1 {
				t.Fatalf("%d flows and %d sessions after the clock was set, want one of each", n, m)
			}
			if !r.d.suspects.has(catalog.TCP, spare, clock.Now) {
				t.Error("an endpoint that did not answer is trusted because the clock was set")
			}
			if got := who(t, at); got != first {
				t.Errorf("the session moved from %s to %s", first, got)
			}

			clock.Pass(40 * time.Second)
			r.d.tick(clock.Now())
			if n, m := r.d.flows.len(), r.d.sessions.len(); n != 0 || m != 1 {
				t.Errorf("%d flows and %d sessions after 40 s, want the session only", n, m)
			}
			if r.d.suspects.has(catalog.TCP, spare, clock.Now) {
				t.Error("an endpoint that did not answer 40 s ago is still avoided")
			}
			clock.Pass(time.Hour)
			r.d.tick(clock.Now())
			if m := r.d.sessions.len(); m != 0 {
				t.Errorf("%d sessions after their time-out", m)
			}
		})
	}
}

// TestClockIsSetRetry: a port that was taken is tried again in its time.
func TestClockIsSetRetry(t *testing.T) {
	for _, jump := range viptest.Jumps() {
		t.Run(jump.String(), func(t *testing.T) {
			clock := viptest.NewClock(t)
			r := newRig(t, func(c *Config) { c.Now = clock.Now })
			taken := newBackend(t, "other", "127.0.0.1")
			r.put(service(taken.at), newBackend(t, "a", "127.0.0.1").ep())
			taken.stop()
			clock.Set(jump)
			clock.Pass(time.Minute)
			r.d.tick(clock.Now())
			if got := who(t, taken.at); got != "a" {
				t.Errorf("%q answers", got)
			}
		})
	}
}
