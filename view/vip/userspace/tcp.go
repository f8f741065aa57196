package userspace

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/fingerpost/fingerpost/catalog"
)

// accept is called on the network's goroutine: it only starts another.
func (l *listener) accept(open func() (*net.TCPConn, error)) {
	d := l.d
	d.conns.wg.Go(func() {
		client, err := open()
		if err != nil {
			return
		}
		if limit := d.cfg.MaxConnections; limit > 0 && d.conns.len() >= limit {
			d.refuse(client, refusedLimit)
			return
		}
		l.serve(client)
	})
}

func (d *Driver) refuse(c *net.TCPConn, reason string) {
	d.metrics.refused.WithLabelValues(reason).Inc()
	reset(c)
}

// reset ends a connection so that the other side sees a reset, not an end.
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}

// serve finds an endpoint for a client and passes bytes until both are done.
func (l *listener) serve(client *net.TCPConn) {
	d := l.d
	r := l.route.Load()
	remote, ok := client.RemoteAddr().(*net.TCPAddr)
	if !ok {
		d.refuse(client, refusedNoEndpoint)
		return
	}
	whole := unmap(remote.AddrPort())
	if !d.cfg.Admit(catalog.TCP, whole, l.at.addr) {
		d.refuse(client, refusedNotAdmitted)
		return
	}
	from := whole.Addr()
	outside := d.outside(from, l.at.addr.Addr())
	if !d.admits(r.front, from, outside) {
		d.refuse(client, refusedSource)
		return
	}
	p := &pair{client: client}
	if !d.conns.add(p) {
		reset(client)
		return
	}
	defer d.conns.remove(p)
	backend := d.dial(r, from, outside)
	if backend == nil {
		d.refuse(client, refusedNoEndpoint)
		return
	}
	if !p.join(backend) {
		return // ended meanwhile
	}
	d.metrics.connections.Inc()
	d.metrics.active.Inc()
	out, in := d.relay(client, backend)
	d.metrics.active.Dec()
	d.metrics.bytes.WithLabelValues("sent").Add(float64(out))
	d.metrics.bytes.WithLabelValues("received").Add(float64(in))
}

// dial tries endpoints until one answers; nil if none does. It gives up after
// five time-outs: the client has long lost patience.
func (d *Driver) dial(r *route, client netip.Addr, outside bool) *net.TCPConn {
	var tried []netip.AddrPort
	end := time.Now().Add(5 * d.cfg.DialTimeout)
	for {
		b, ok := d.pick(r, client, outside, tried)
		if !ok {
			return nil
		}
		dialer := net.Dialer{Timeout: d.cfg.DialTimeout, KeepAliveConfig: net.KeepAliveConfig{
			Enable: true, Idle: keepAliveIdle * time.Second, Interval: keepAliveInterval * time.Second, Count: keepAliveCount,
		}}
		c, err := dialer.DialTCP(d.conns.ctx, "tcp", netip.AddrPort{}, b.Addr)
		if err == nil {
			d.suspects.clear(r.front.Proto, b.Addr)
			r.hit(b.Addr)
			if r.front.Affinity > 0 {
				d.sessions.remember(r.front, client, b, d.cfg.Now())
			}
			return c
		}
		if d.conns.ctx.Err() != nil {
			return nil
		}
		d.metrics.dialFailures.Inc()
		d.suspects.add(r.front.Proto, b.Addr, d.cfg.Now())
		d.cfg.Log.Debug("userspace: endpoint does not answer", "service", r.front.Service, "endpoint", b.Addr, "error", err)
		tried = append(tried, b.Addr)
		if time.Now().After(end) {
			return nil
		}
	}
}

// relay passes bytes both ways until both directions have ended.
func (d *Driver) relay(client, backend *net.TCPConn) (out, in int64) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		out = d.forward(backend, client)
	}()
	in = d.forward(client, backend)
	<-done
	client.Close()
	backend.Close()
	return out, in
}

// forward passes one direction. At the end of the stream the other side is
// told that no more comes; an error ends both sides with a reset, as it would
// have been without a proxy between.
func (d *Driver) forward(to, from *net.TCPConn) int64 {
	n, err := d.copier.copy(to, from)
	if err != nil {
		reset(to)
		reset(from)
		return n
	}
	_ = to.CloseWrite()
	return n
}

// pair is a client and its endpoint.
type pair struct {
	client *net.TCPConn

	mu      sync.Mutex
	backend *net.TCPConn
	ended   bool
}

// join adds the endpoint; false if the pair was ended meanwhile.
func (p *pair) join(backend *net.TCPConn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		reset(backend)
		return false
	}
	p.backend = backend
	return true
}

func (p *pair) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	reset(p.client)
	if p.backend != nil {
		reset(p.backend)
	}
}

// conns is the set of connections that are open.
type conns struct {
	wg     sync.WaitGroup
	ctx    context.Context // ends the attempts to reach an endpoint
	cancel context.CancelFunc

	mu    sync.Mutex
	open  map[*pair]struct{}
	ended bool
}

// add is false once all connections have been ended.
func (c *conns) add(p *pair) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return false
	}
	if c.open == nil {
		c.open = map[*pair]struct{}{}
	}
	c.open[p] = struct{}{}
	return true
}

func (c *conns) remove(p *pair) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.open, p)
}

func (c *conns) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.open)
}

// drain waits for the connections to end, and ends those left after a while.
// No connection may be accepted any more.
func (c *conns) drain(patience time.Duration) {
	defer c.cancel()
	done := make(chan struct{})
	go func() {
		c.wg.Wait()
		close(done)
	}()
	if patience > 0 {
		t := time.NewTimer(patience)
		defer t.Stop()
		select {
		case <-done:
			return
		case <-t.C:
		}
	}
	c.cancel()
	c.mu.Lock()
	c.ended = true
	for p := range c.open {
		p.end()
	}
	c.mu.Unlock()
	<-done
}
