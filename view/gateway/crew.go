package gateway

import "sync"

// crew are goroutines that serve connections one after the other: one whose stack
// has grown once does not have to grow it for each. A few wait for work; what is
// more than these ends.
type crew struct {
	mu     sync.Mutex
	idle   []chan *client
	closed bool
}

// spare is how many goroutines wait for work.
const spare = 64

// serve serves a connection in a goroutine.
func (c *crew) serve(k *client) {
	c.mu.Lock()
	n := len(c.idle)
	if n == 0 {
		c.mu.Unlock()
		go c.work(k)
		return
	}
	w := c.idle[n-1] // worked last, so its memory is near
	c.idle = c.idle[:n-1]
	c.mu.Unlock()
	w <- k
}

func (c *crew) work(k *client) {
	w := make(chan *client, 1)
	for k != nil {
		k.serve()
		k = nil // it is not kept while waiting
		c.mu.Lock()
		if c.closed || len(c.idle) >= spare {
			c.mu.Unlock()
			return
		}
		c.idle = append(c.idle, w)
		c.mu.Unlock()
		k = <-w
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
