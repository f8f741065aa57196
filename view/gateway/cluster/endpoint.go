package cluster

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/fingerpost/fingerpost/balance"
	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/gateway/route"
	"github.com/fingerpost/fingerpost/view/gateway/socket"
	"github.com/fingerpost/fingerpost/view/gateway/stream"
)

// Endpoint is one address that requests are sent to.
type Endpoint struct {
	identity
	cluster *Cluster
	id      string
	hash    uint64
	since   time.Duration // for slow start; 0: it was there from the beginning
	load    balance.Load

	requests atomic.Uint64
	failures atomic.Uint64

	mu      sync.Mutex
	idle    []*Slot // the one used last at the end
	open    int     // connections, idle ones too, and those that are being opened
	shared  []*sharedConn
	opening *opening      // of a shared one; nil: none
	speaks2 bool          // TLS agreed on HTTP/2 the last time
	suspect time.Duration // when a connection broke
	removed bool          // nothing is kept any more
	final   bool          // and nothing is opened
}

// The errors of Connect that are this package's own.
var (
	// ErrFull: the endpoint has as many connections as Config allows.
	ErrFull = errors.New("cluster: connect: the endpoint has its maximum of connections")
	// ErrRemoved: the endpoint is not of the service any more. Pick another one.
	ErrRemoved = errors.New("cluster: connect: the endpoint was removed")
)

// Outcome is how an exchange ended, as far as it tells about the endpoint.
type Outcome struct {
	// Result: Broken (or Failure, which is the same here) for one that timed out
	// or broke a connection that was Fresh; Nothing for one that broke a kept
	// connection before it answered, and when the client went away. Success with
	// a Status of 500 and above, but for 501, counts as Bad. That an endpoint
	// cannot be reached is noted by Connect itself.
	Result  balance.Result
	Status  int           // of the response; 0: none
	Latency time.Duration // until the head of the response
}

func newEndpoint(c *Cluster, i identity) *Endpoint {
	return &Endpoint{identity: i, cluster: c, id: i.id(), hash: i.hash()}
}

// Addr is where it listens.
func (e *Endpoint) Addr() netip.AddrPort { return e.addr }

// Target is the object behind it.
func (e *Endpoint) Target() catalog.Ref { return e.target }

// ID names the endpoint towards clients (in a cookie): it stays while address
// and target do, on every gateway, and does not spell them out.
func (e *Endpoint) ID() string { return e.id }

// Hash is what hashes are compared with: that of the ID.
func (e *Endpoint) Hash() uint64 { return e.hash }

// Cluster is the cluster that it was picked from.
func (e *Endpoint) Cluster() *Cluster { return e.cluster }

// Done ends what Pick began.
func (e *Endpoint) Done(o Outcome) {
	c := e.cluster
	r := o.Result
	switch {
	case r == balance.Success && o.Status >= 500 && o.Status != 501:
		r = balance.Bad
	case r == balance.Failure:
		// What hangs or breaks on one request may do well with others: it takes
		// several in a row, unlike a connection that cannot be made.
		r = balance.Broken
	}
	var now time.Duration
	if r >= balance.Bad || c.key.Balance.Algorithm == balance.EWMA || e.load.Troubled() {
		now = c.set.now()
	}
	e.requests.Add(1)
	if r >= balance.Bad {
		e.failures.Add(1)
	}
	if c.health.End(&e.load, r, o.Latency, now) {
		e.ejected(now, "status", o.Status)
	}
}

// unreachable notes that no connection could be made.
func (e *Endpoint) unreachable(err error) {
	now := e.cluster.set.now()
	e.cluster.refused.Add(1)
	if !ours(err) && e.cluster.health.Unreachable(&e.load, now) {
		e.ejected(now, "error", err)
	}
}

// ours says that it is the gateway that cannot connect to anybody.
func ours(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ENOBUFS, syscall.EADDRNOTAVAIL} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// ejected is called when the endpoint has just been ejected.
func (e *Endpoint) ejected(now time.Duration, why string, what any) {
	c := e.cluster
	c.ejections.Add(1)
	c.set.log.Warn("endpoint gets no requests for a while: it failed",
		"service", c.key.Service.String(), "endpoint", e.addr.String(), "target", e.target.Name,
		why, what, "for", (e.load.Ejected(now) - now).String())
	c.failedAddress()
	e.mu.Lock()
	e.suspect = now
	e.mu.Unlock()
}

// Stats is what is known of an endpoint, for metrics and people.
type Stats struct {
	Active      int // requests
	Idle, Open  int // connections
	Requests    uint64
	Failures    uint64
	Ejected     time.Duration // for so long yet; 0: it is not
	Latency     time.Duration // expected, with EWMA only
	Connections int           // shared ones of HTTP/2
}

// Stats gives them.
func (e *Endpoint) Stats() Stats {
	now := e.cluster.set.now()
	s := Stats{
		Active: e.load.Active(), Requests: e.requests.Load(), Failures: e.failures.Load(),
		Latency: e.load.Latency(now),
	}
	if until := e.load.Ejected(now); until > 0 {
		s.Ejected = until - now
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	s.Idle, s.Open, s.Connections = len(e.idle), e.open, len(e.shared)
	return s
}

// Connect begins an exchange: on a connection that is there, or a new one if
// that can be opened within the time (0: as long as ctx). ctx ends only the
// opening.
func (e *Endpoint) Connect(ctx context.Context, within time.Duration) (stream.Upstream, error) {
	switch e.cluster.key.Protocol {
	case route.H2C, route.H2:
		return e.connectShared(ctx, within)
	case route.HTTPS:
		e.mu.Lock()
		two := e.speaks2
		e.mu.Unlock()
		if two {
			return e.connectShared(ctx, within)
		}
	}
	if s := e.take(nil); s != nil {
		return s.codec.Open(true), nil
	}
	return e.connectNew(ctx, within)
}

// Kept is Connect for who cannot wait: it gives a connection of HTTP/1 that is there,
// best one that the same core serves as beside, or nil.
func (e *Endpoint) Kept(beside *socket.Conn) stream.Upstream {
	if e.cluster.key.Protocol != route.HTTP {
		return nil
	}
	if s := e.take(beside); s != nil {
		return s.codec.Open(true)
	}
	return nil
}

// Dial opens a connection for bytes that are not HTTP (TLS that is passed on). It
// is the caller's: it is not kept, not counted among the open ones, and stays when
// the endpoint is removed.
func (e *Endpoint) Dial(ctx context.Context, within time.Duration) (net.Conn, error) {
	conn, err := e.dial(ctx, within)
	if err == nil {
		e.forget()
	}
	return conn, err
}

// connectNew opens a connection for an exchange.
func (e *Endpoint) connectNew(ctx context.Context, within time.Duration) (stream.Upstream, error) {
	conn, err := e.dial(ctx, within)
	if err != nil {
		return nil, err
	}
	if e.cluster.tls != nil && agreed(conn) == "h2" {
		return e.share(conn)
	}
	s := newSlot(e, conn)
	s.codec = e.cluster.set.cfg.HTTP1(conn, s)
	return s.codec.Open(false), nil
}

// dial opens a connection and counts it.
func (e *Endpoint) dial(ctx context.Context, within time.Duration) (net.Conn, error) {
	c := e.cluster
	e.mu.Lock()
	if e.final {
		e.mu.Unlock()
		return nil, ErrRemoved
	}
	if most := c.set.cfg.MaxConnections; most > 0 && e.open >= most {
		e.mu.Unlock()
		return nil, ErrFull
	}
	e.open++
	e.mu.Unlock()
	limited := ctx
	if within > 0 {
		var cancel context.CancelFunc
		limited, cancel = context.WithTimeout(ctx, within)
		defer cancel()
	}
	conn, err := c.set.cfg.Dial(limited, e.addr, c.tls)
	if err != nil {
		e.forget()
		if ctx.Err() == nil { // else it was not the endpoint that took too long
			e.unreachable(err)
		}
		return nil, err
	}
	c.opened.Add(1)
	if e.load.Troubled() {
		c.health.Reached(&e.load, c.set.now())
	}
	return conn, nil
}

func (e *Endpoint) forget() {
	e.mu.Lock()
	e.open--
	e.mu.Unlock()
}

// remove closes what is idle. What is in use is closed when it is given back.
// final: no connection is opened to it any more either.
func (e *Endpoint) remove(final bool) {
	e.mu.Lock()
	e.removed, e.final = true, final
	idle, shared := e.idle, e.shared
	e.idle, e.shared = nil, nil
	e.open -= len(idle) + len(shared)
	e.mu.Unlock()
	for _, s := range idle {
		s.codec.Close()
	}
	for _, s := range shared {
		s.codec.Drain()
	}
}
