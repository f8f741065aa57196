package ipvs

import (
	"errors"
	"net"
	"testing"
	"time"

	"github.com/fingerpost/fingerpost/view/vip"
	"github.com/fingerpost/fingerpost/view/vip/viptest"
)

// TestClockIsSet: servers that left keep their connections as long as they may,
// refusals end, what failed is tried again and drift is found in their time,
// whatever happens to the wall clock.
func TestClockIsSet(t *testing.T) {
	needIPVS(t)
	pod(t, "p1", 1)
	for _, jump := range viptest.Jumps() {
		t.Run(jump.String(), func(t *testing.T) {
			clock := viptest.NewClock(t)
			d, err := New(Config{Node: "a", Now: clock.Now})
			must(t, err)
			t.Cleanup(func() { must(t, Cleanup(Config{})) })
			d.mu.Lock()
			must(t, d.start())
			must(t, d.filter.commit(true))
			d.mu.Unlock()
			f := front("10.96.0.12:80", "TCP")
			put := func(list ...vip.Backend) {
				d.want[f] = &virtual{backends: list, bind: true}
				must(t, d.servers.Put(f, list, 0, true))
				must(t, d.servers.Settle())
			}
			there := func() bool {
				all, err := d.servers.k.servers()
				must(t, err)
				return len(all) > 0
			}
			harm := func() { must(t, d.servers.k.delServer(d.servers.servers[f].server)) }

			put(backends("10.244.1.2:8080")...)
			c, err := net.DialTimeout("tcp", f.Addr.String(), 20*time.Second)
			must(t, err)
			defer c.Close()
			put(backends("10.244.2.2:8080")...)
			clock.Set(jump)
			d.tick()
			if got := ask(c); got != "p1" {
				t.Errorf("the connection to the server that left: %q", got)
			}
			clock.Set(-2 * jump)
			d.tick()
			if got := ask(c); got != "p1" || len(d.servers.leaving) != 1 {
				t.Errorf("the connection to the server that left: %q; %v leave", got, d.servers.leaving)
			}
			clock.Pass(d.servers.opt.Drain)
			d.tick()
			if len(d.servers.leaving) > 0 {
				t.Errorf("after the time to drain %v leave", d.servers.leaving)
			}

			harm()
			d.broken, d.retryAt, d.checkAt = errors.New("refused"), clock.Now().Add(time.Second), clock.Now().Add(d.cfg.Resync)
			clock.Set(jump)
			if d.tick(); there() {
				t.Error("tried again before its time")
			}
			clock.Pass(time.Second)
			if d.tick(); !there() {
				t.Error("not tried again")
			}

			harm()
			clock.Set(2 * jump)
			if d.tick(); there() {
				t.Error("compared before its time")
			}
			clock.Set(-4 * jump)
			clock.Pass(2 * d.cfg.Resync)
			if d.tick(); !there() {
				t.Error("what somebody took away was not found")
			}

			// A node port that goes.
			n := front("10.244.1.1:30110", "UDP")
			must(t, d.servers.Put(n, backends("10.244.1.2:8080"), 0, false))
			d.refuse(n)
			must(t, d.filter.commit(false))
			must(t, d.servers.Remove(n))
			refused := func() bool { return d.filter.have[refusal(n)[0].place].chain == toReject }
			clock.Set(jump)
			if d.tick(); !refused() {
				t.Error("the refusal ended before its time")
			}
			clock.Set(-2 * jump)
			clock.Pass(refuseFor)
			if d.tick(); refused() || len(d.gone) > 0 {
				t.Error("the refusal did not end")
			}
		})
	}
}
