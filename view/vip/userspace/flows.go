package userspace

import (
	"net/netip"
	"sync"
	"time"
)

// flows is the table of UDP flows.
type flows struct {
	d *Driver

	mu     sync.Mutex
	by     map[*listener]*flowsOf
	busy   map[*listener]*flowsOf // those of by that have a flow
	count  int
	closed bool
}

// flowsOf are the flows of one listener, with the socket that answers.
type flowsOf struct {
	server  packetServer
	clients map[netip.AddrPort]*flow
}

func newFlows(d *Driver) *flows {
	return &flows{d: d, by: map[*listener]*flowsOf{}, busy: map[*listener]*flowsOf{}}
}

func (t *flows) get(l *listener, client netip.AddrPort) *flow {
	t.mu.Lock()
	defer t.mu.Unlock()
	if of := t.by[l]; of != nil {
		return of.clients[client]
	}
	return nil
}

// serve names the socket that answers for a listener: from now on it may have
// flows.
func (t *flows) serve(l *listener, s packetServer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.by[l] = &flowsOf{server: s}
}

// server gives the socket that answers a flow's client, nil if the flow has
// ended.
func (t *flows) server(f *flow) packetServer {
	t.mu.Lock()
	defer t.mu.Unlock()
	if of := t.by[f.l]; of != nil && of.clients[f.client] == f {
		return of.server
	}
	return nil
}

// add enters a flow, in place of an older one of the same client; false if the
// listener is closed.
func (t *flows) add(f *flow) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	of := t.by[f.l]
	if t.closed || of == nil {
		return false
	}
	if old := of.clients[f.client]; old != nil {
		t.end(of, old)
	}
	for t.count >= t.d.cfg.MaxFlows && t.evictOne() {
	}
	if of.clients == nil {
		of.clients = map[netip.AddrPort]*flow{}
	}
	f.last.Store(t.d.elapsed(t.d.cfg.Now()))
	of.clients[f.client] = f
	t.busy[f.l] = of
	t.count++
	t.d.metrics.flowsTotal.Inc()
	t.d.metrics.flows.Set(float64(t.count))
	return true
}

func (t *flows) remove(f *flow) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if of := t.by[f.l]; of != nil && of.clients[f.client] == f {
		t.end(of, f)
	}
}

func (t *flows) end(of *flowsOf, f *flow) {
	delete(of.clients, f.client)
	if len(of.clients) == 0 {
		delete(t.busy, f.l)
	}
	t.count--
	t.d.metrics.flows.Set(float64(t.count))
	f.gone.Store(true)
	f.conn.close()
}

// evict ends one flow to make room; false if there is none.
func (t *flows) evict() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.evictOne()
}

// evictOne ends the longest unused of a sample. A map yields its keys in a
// random order, which makes the first few a sample.
func (t *flows) evictOne() bool {
	var oldest *flow
	seen := 0
	for _, of := range t.busy {
		for _, f := range of.clients {
			if oldest == nil || f.last.Load() < oldest.last.Load() {
				oldest = f
			}
			if seen++; seen >= 16 {
				break
			}
		}
		if seen >= 16 {
			break
		}
	}
	if oldest == nil {
		return false
	}
	t.end(t.by[oldest.l], oldest)
	return true
}

// recheck ends the flows that a listener's new route does not allow.
func (t *flows) recheck(l *listener, r *route) {
	t.mu.Lock()
	defer t.mu.Unlock()
	of := t.by[l]
	if of == nil {
		return
	}
	for _, f := range of.clients {
		if !r.has(f.outside, f.backend.Addr) {
			t.end(of, f)
		}
	}
}

// drop ends all flows of a listener that is closed.
func (t *flows) drop(l *listener) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if of := t.by[l]; of != nil {
		for _, f := range of.clients {
			t.end(of, f)
		}
		delete(t.by, l)
	}
}

// expire ends the flows that have been idle too long.
func (t *flows) expire(now time.Time) {
	limit := t.d.elapsed(now) - int64(t.d.cfg.UDPIdle)
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, of := range t.busy {
		for _, f := range of.clients {
			if f.last.Load() <= limit {
				t.end(of, f)
			}
		}
	}
}

func (t *flows) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for _, of := range t.busy {
		for _, f := range of.clients {
			t.end(of, f)
		}
	}
	clear(t.by)
}

func (t *flows) len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.count
}
