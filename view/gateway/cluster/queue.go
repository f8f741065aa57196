package cluster

import "time"

// maxQueue bounds the requests of a cluster that wait until somebody can be reached.
const maxQueue = 1024

// Barred notes that all endpoints refused a request's connections, and says for how
// long that has been so. Reached, and an endpoint that is new, begin anew.
func (c *Cluster) Barred() time.Duration {
	now := c.set.now()
	if c.barred.CompareAndSwap(0, int64(now)) {
		return 0
	}
	return now - time.Duration(c.barred.Load())
}

// Reached notes that an endpoint took a connection.
func (c *Cluster) Reached() {
	if c.barred.Load() != 0 {
		c.barred.Store(0)
	}
}

// Queue lets a request wait; false: too many do. Leave must follow.
func (c *Cluster) Queue() bool {
	if c.queued.Add(1) > maxQueue {
		c.queued.Add(-1)
		return false
	}
	return true
}

// Leave ends what Queue began.
func (c *Cluster) Leave() { c.queued.Add(-1) }
