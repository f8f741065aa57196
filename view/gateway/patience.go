package gateway

import (
	"errors"
	"syscall"
	"time"

	"github.com/fingerpost/fingerpost/view/gateway/cluster"
)

// Bounds of attempts, besides what a policy says.
const (
	maxConnects = 8  // connections refused for one request before it waits
	maxStale    = 16 // kept connections that turned out to be closed
	maxQuick    = 16 // rounds without a wait
)

// A request that everybody refuses waits for so long, at first and at most, before
// it asks again: pods are called ready before they listen, if nobody said how to
// find out.
const (
	pauseFirst = 10 * time.Millisecond
	pauseMost  = 250 * time.Millisecond
)

// tally counts what became of the attempts of one request.
type tally struct {
	refusals int // since the request began anew
	timeouts int // of connections
	stales   int // connections that had been closed
	losses   int // requests that were lost behind an open connection
	rounds   int
	hopeless bool // waiting will not help
	pause    time.Duration
	began    time.Time // of waiting
}

// refused notes an attempt without a connection.
func (n *tally) refused(err error) {
	n.refusals++
	switch {
	case isTimeout(err):
		n.timeouts++
		n.hopeless = true // it has waited
	case !passing(err):
		n.hopeless = true
	}
}

// passing says of an error of connecting that it may be another one in a moment.
func passing(err error) bool {
	for _, e := range []error{syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.ECONNABORTED, syscall.EHOSTUNREACH, cluster.ErrFull, cluster.ErrRemoved} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// anew lets a request that asked everybody ask all of them again: after a pause if
// connections were refused, for as long as connecting may take since nobody could be
// reached. false: it has waited for long enough, or waiting will not help.
func (x *exchange) anew(c *cluster.Cluster) bool {
	n := &x.tally
	if n.rounds++; n.refusals > 0 {
		if !x.waits(c) {
			return false
		}
	} else if n.rounds > maxQuick {
		return false
	}
	n.refusals = 0
	clear(x.tried)
	x.tried, x.cq.Tried = x.tried[:0], nil
	return true
}

func (x *exchange) waits(c *cluster.Cluster) bool {
	n := &x.tally
	if n.hopeless || x.e.stopping.Load() {
		return false
	}
	now := time.Now()
	if n.began.IsZero() {
		n.began = now
	}
	left := x.at.connect - max(c.Barred(), now.Sub(n.began))
	if w := x.at.policy.Retry.Within; w > 0 {
		left = min(left, w-time.Since(x.now))
	}
	if left <= 0 || !c.Queue() {
		return false
	}
	n.pause = min(max(2*n.pause, pauseFirst), pauseMost, left)
	time.Sleep(n.pause)
	c.Leave()
	return !x.watch.left()
}
