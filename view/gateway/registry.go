package gateway

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/fingerpost/fingerpost/view/gateway/stream"
)

// registry knows the connections of clients.
type registry struct {
	mu      sync.Mutex
	all     map[*client]struct{}
	none    chan struct{}
	refused atomic.Uint64 // over the limit
	total   atomic.Uint64
}

// add takes a connection in; over the limit those that have been idle for longest
// are closed for it, and if there are none, false.
func (r *registry) add(c *client, limit int) bool {
	r.mu.Lock()
	if r.all == nil {
		r.all = map[*client]struct{}{}
	}
	full := len(r.all) >= limit
	if !full {
		r.all[c] = struct{}{}
		r.mu.Unlock()
		r.total.Add(1)
		return true
	}
	r.mu.Unlock()
	// Looking for idle ones costs time, so that several are closed at once. They
	// go away in a moment; until then the limit may be exceeded by as many.
	if r.shed(max(1, limit/64)) == 0 {
		r.refused.Add(1)
		return false
	}
	r.mu.Lock()
	r.all[c] = struct{}{}
	r.mu.Unlock()
	r.total.Add(1)
	return true
}

func (r *registry) remove(c *client) {
	r.mu.Lock()
	delete(r.all, c)
	if len(r.all) == 0 && r.none != nil {
		close(r.none)
		r.none = nil
	}
	r.mu.Unlock()
}

func (r *registry) list() []*client {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]*client, 0, len(r.all))
	for c := range r.all {
		out = append(out, c)
	}
	return out
}

// shed closes up to n connections that have been idle for longest.
func (r *registry) shed(n int) int {
	type idler struct {
		c     *client
		since int64
	}
	var idle []idler
	for _, c := range r.list() {
		if since, ok := c.idle(); ok {
			idle = append(idle, idler{c, since})
		}
	}
	slices.SortFunc(idle, func(a, b idler) int { return int(a.since - b.since) })
	n = min(n, len(idle))
	for _, i := range idle[:n] {
		i.c.quit()
	}
	return n
}

// quit asks all connections to end.
func (r *registry) quit() {
	for _, c := range r.list() {
		c.quit()
	}
}

// kill ends all connections at once.
func (r *registry) kill() int {
	all := r.list()
	for _, c := range all {
		c.kill()
	}
	return len(all)
}

// empty is closed when there is no connection.
func (r *registry) empty() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.all) == 0 {
		c := make(chan struct{})
		close(c)
		return c
	}
	if r.none == nil {
		r.none = make(chan struct{})
	}
	return r.none
}

// tunnels are the upgraded exchanges.
type tunnels struct {
	mu   sync.Mutex
	next int
	all  map[int][2]stream.Tunnel
}

func (t *tunnels) add(down, up stream.Tunnel) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.all == nil {
		t.all = map[int][2]stream.Tunnel{}
	}
	t.next++
	t.all[t.next] = [2]stream.Tunnel{down, up}
	return t.next
}

func (t *tunnels) remove(id int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.all, id)
}

func (t *tunnels) len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.all)
}

// end tells both sides of each tunnel that nothing more follows.
func (t *tunnels) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.all {
		_ = p[0].CloseWrite()
		_ = p[1].CloseWrite()
	}
}
