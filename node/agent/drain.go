package agent

import (
	"net/netip"
	"time"
)

// Times of a drain.
const (
	// drainSettle is for what comes after this node's catalog knows: views that
	// act on it, other nodes, connections that were on their way.
	drainSettle = 500 * time.Millisecond
	drainMost   = 5 * time.Second
	drainLook   = 10 * time.Millisecond
	// drainLinger is how long the pod's network outlives its containers, so that
	// what is still sent to it is refused by a kernel that knows the connection,
	// and not lost: who kept a connection open tries again at once.
	drainLinger = 500 * time.Millisecond
)

// drain is the time between the decision that a pod goes and the word to its
// containers. A server that is told to end closes its listener at once, while
// all that send to it learn of the decision at about the same time as this
// agent: without a pause every update of a Deployment would cost some requests.
type drain struct {
	begun  bool
	end    time.Time   // at the latest
	served bool        // services sent to it
	called func() bool // nil: nobody calls, or none that asks
}

// stepDrain says until when containers are left alone; zero: no longer. A pod
// that no Service sends to does not wait. The lock is held.
func (p *pod) stepDrain(now time.Time) time.Time {
	d := &p.stop.drain
	if !d.begun {
		d.begun, d.end = true, now
		if p.a.cfg.Called == nil || p.failed || p.out.want == nil || !isReady(p.out.want) {
			return time.Time{}
		}
		var addrs []netip.Addr
		for _, ip := range p.setup.ips {
			if a, err := netip.ParseAddr(ip); err == nil {
				addrs = append(addrs, a)
			}
		}
		if d.called = p.a.cfg.Called(p.namespace, addrs); d.called != nil {
			d.served, d.end = true, now.Add(min(drainMost, p.grace()/2))
		}
	}
	if p.gone || !now.Before(d.end) || !p.anyRunning() {
		return time.Time{}
	}
	if d.called != nil && !d.called() {
		d.called, d.end = nil, earliest(d.end, now.Add(drainSettle))
	}
	if d.called == nil {
		return d.end
	}
	return earliest(d.end, now.Add(drainLook))
}

func (p *pod) anyRunning() bool {
	for _, c := range p.containers {
		if c.running() {
			return true
		}
	}
	return false
}
