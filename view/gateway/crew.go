package gateway

import "sync"

// crew are goroutines that do one thing after the other: one whose stack
// has grown once does not have to grow it for each. A few wait for work; what is
// more than these ends.
type crew struct {
	mu     sync.Mutex
	idle   []chan func()
	closed bool
}

// spare is how many goroutines wait for work.
const spare = 64

// run runs f in a goroutine.
func (c *crew) run(f func()) {
	c.mu.Lock()
	n := len(c.idle)
	if n == 0 {
		c.mu.Unlock()
		go c.work(f)
		return
	}
	w := c.idle[n-1] // worked last, so its memory is near
	c.idle = c.idle[:n-1]
	c.mu.Unlock()
	w <- f
}

func (c *crew) work(f func()) {
	w := make(chan func(), 1)
	for f != nil {
		f()
		f = nil // it is not kept while waiting
		c.mu.Lock()
		if c.closed || len(c.idle) >= spare {
			c.mu.Unlock()
			return
		}
		c.idle = append(c.idle, w)
		c.mu.Unlock()
		f = <-w
	}
}

// close ends those that wait, and others after their connection.
func (c *crew) close() {
	c.mu.Lock()
	idle := c.idle
	c.idle, c.closed = nil, true
	c.mu.Unlock()
	for _, w := range idle {
		w <- nil
	}
}
