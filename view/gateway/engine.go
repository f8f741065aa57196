package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/gateway/cert"
	"github.com/fingerpost/fingerpost/view/gateway/cluster"
	"github.com/fingerpost/fingerpost/view/gateway/filter"
	"github.com/fingerpost/fingerpost/view/gateway/h1"
	"github.com/fingerpost/fingerpost/view/gateway/h2"
	"github.com/fingerpost/fingerpost/view/gateway/observe"
	"github.com/fingerpost/fingerpost/view/gateway/route"
	"github.com/fingerpost/fingerpost/view/gateway/socket"
	codec "github.com/fingerpost/fingerpost/wire/http/h1"
)

// Engine is a gateway. It is a catalog.View for the endpoints and takes routes
// with SetRoutes. Make it with New.
type Engine struct {
	cfg      Config
	log      *slog.Logger
	filters  *filter.Set
	clusters *cluster.Set
	http1    *h1.Server
	http2    h2.Config
	certs    *cert.Store
	tls      *tls.Config
	dialer   *dialer
	clock    clock
	server   []byte // the value of Server
	state    atomic.Pointer[state]

	retryAfter []byte

	mu    sync.Mutex // one change of the state at a time
	stale bool       // clusters may be needed no more
	// unchecked are hosts that changed; changed tells housekeep of them.
	unchecked []map[string]*route.Host
	changed   chan struct{}

	asideMu sync.Mutex
	asides  map[cluster.Key]time.Time

	listenMu  sync.Mutex
	listeners []*listener
	conns     registry
	poller    *socket.Poller // nil: there is none here
	crew      crew
	tunnels   tunnels
	stopping  atomic.Bool
	metrics   *observe.Metrics
	access    *observe.Log // nil: none
}

var _ catalog.View = (*Engine)(nil)

// state is what requests are matched against. It is immutable.
type state struct {
	table   *route.Table
	routes  bool // SetRoutes was called
	synced  bool // the catalog was read completely once, in this run or an earlier one
	ready   bool // both
	carried bool // a host's TLS is passed through
}

// New makes an engine that listens nowhere yet.
func New(cfg Config) (*Engine, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	e := &Engine{
		cfg: cfg, log: cfg.Log,
		server:     []byte(cfg.Name),
		retryAfter: []byte("1"),
		asides:     map[cluster.Key]time.Time{},
		changed:    make(chan struct{}, 1),
	}
	var err error
	if e.filters, err = filter.New(cfg.Filter); err != nil {
		return nil, err
	}
	e.metrics = observe.NewMetrics(observe.MetricsConfig{NoAliases: cfg.NoAliases})
	if cfg.AccessLog != nil {
		if e.access, err = observe.NewLog(*cfg.AccessLog); err != nil {
			return nil, err
		}
		e.metrics.Watch(e.access)
	}
	e.http1 = h1.NewServer(h1.Config{
		Limits: cfg.Limits.Head, Idle: cfg.Timeouts.Idle, Head: cfg.Timeouts.Head, Refuse: e.refuse, Go: e.crew.run,
	})
	if err := e.secure(); err != nil {
		return nil, err
	}
	e.dialer = newDialer()
	c := cfg.Cluster
	c.Node, c.Zone, c.Log = cfg.Node, cfg.Zone, cfg.Log
	if c.Dial == nil {
		c.Dial = e.dialer.dial
	}
	limits := &codec.Limits{Head: 64 << 10, Fields: 200}
	c.HTTP1 = func(conn net.Conn, slot *cluster.Slot) cluster.HTTP1 { return h1.NewClient(conn, limits, slot) }
	c.HTTP2 = http2Client
	if e.clusters, err = cluster.New(c); err != nil {
		return nil, err
	}
	if cfg.Registerer != nil {
		if err := cfg.Registerer.Register(scrape{e.metrics, e}); err != nil {
			return nil, fmt.Errorf("gateway: register metrics: %w", err)
		}
		if err := e.clusters.Register(cfg.Registerer); err != nil {
			return nil, fmt.Errorf("gateway: register metrics: %w", err)
		}
	}
	e.state.Store(&state{table: route.Build(&route.Update{}, nil)})
	return e, nil
}

// Apply follows the catalog.
func (e *Engine) Apply(ctx context.Context, b catalog.Batch) error {
	if err := e.clusters.Apply(ctx, b); err != nil {
		return err
	}
	// A catalog of an earlier run will do: it is marked as stale, not as synced.
	if f := b.Snapshot.Freshness(); !e.state.Load().synced && (f.Synced || f.Stale() && services(b.Snapshot) > 0) {
		e.mu.Lock()
		defer e.mu.Unlock()
		n := *e.state.Load()
		n.synced = true
		e.publish(&n)
	}
	return nil
}

func services(s *catalog.Snapshot) int {
	n, _ := s.Len()
	return n
}

// SetRoutes takes what changed of the routes. The first call makes them known,
// so it holds all of them. It returns when requests follow them.
func (e *Engine) SetRoutes(u route.Update) {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := *e.state.Load()
	n.table = n.table.With(&u, e.compile)
	n.routes = true
	e.stale = true
	if u.Replace || len(u.Hosts) > 0 {
		n.carried = e.passes(&n, &u)
	}
	e.certify(&u)
	e.meet(&u)
	e.publish(&n)
}

// passes says whether TLS of any host is passed through.
func (e *Engine) passes(n *state, u *route.Update) bool {
	for _, h := range u.Hosts {
		if h != nil && h.Passthrough != nil {
			return true
		}
	}
	if !n.carried {
		return false
	}
	for h := range n.table.All {
		if h.Passthrough != nil {
			return true
		}
	}
	return false
}

func (e *Engine) publish(n *state) {
	n.ready = n.routes && n.synced
	e.state.Store(n)
}

// Ready says whether the gateway can serve; if not, why.
func (e *Engine) Ready() (bool, string) {
	s := e.state.Load()
	switch {
	case e.stopping.Load():
		return false, "the gateway is shutting down"
	case !s.routes:
		return false, "the routes are not known yet"
	case !s.synced:
		return false, "the services are not known yet"
	}
	return true, ""
}

// Run listens and serves until ctx ends, and then drains: see the package's
// guarantees. It returns nil after an orderly end.
func (e *Engine) Run(ctx context.Context) error {
	if err := e.Listen(); err != nil {
		return err
	}
	inner, cancel := context.WithCancel(context.Background())
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { _ = e.clusters.Run(inner) })
	wg.Go(func() { e.housekeep(inner) })
	if e.access != nil {
		wg.Go(func() { _ = e.access.Run(inner) })
	}
	if p, err := socket.NewPoller(); err == nil {
		e.poller = p
		e.dialer.poller.Store(p)
		defer p.Close()
	} else if !errors.Is(err, errors.ErrUnsupported) {
		e.log.Warn("connections are served by a goroutine each, which costs more", "err", err)
	}
	var accepting sync.WaitGroup
	for _, l := range e.listeners {
		if !e.poll(l) {
			accepting.Go(func() { e.accept(l) })
		}
	}
	<-ctx.Done()
	e.stopping.Store(true)
	if d := e.cfg.Timeouts.Lameduck; d > 0 {
		e.log.Info("shutting down: still accepting, so that load balancers notice", "for", d)
		time.Sleep(d)
	}
	for _, l := range e.listeners {
		l.close()
	}
	accepting.Wait()
	e.drain()
	e.crew.close()
	e.http2.Workers.Close()
	cancel()
	wg.Wait()
	return nil
}

// drain lets exchanges under way end, for a while.
func (e *Engine) drain() {
	e.conns.quit()
	deadline := time.Now().Add(e.cfg.Timeouts.Drain)
	t := time.NewTimer(e.cfg.Timeouts.Drain)
	defer t.Stop()
	// Tunnels do not end by themselves; they get half the time.
	half := time.AfterFunc(e.cfg.Timeouts.Drain/2, e.tunnels.end)
	defer half.Stop()
	select {
	case <-e.conns.empty():
	case <-t.C:
		n := e.conns.kill()
		e.log.Warn("connections were cut at the end of the time to drain", "connections", n, "deadline", deadline)
		// What waits for an endpoint still does not matter to anybody.
		select {
		case <-e.conns.empty():
		case <-time.After(time.Second):
		}
	}
}

// Addrs are where the gateway listens, in the order of Config.Listeners.
func (e *Engine) Addrs() []net.Addr {
	e.listenMu.Lock()
	defer e.listenMu.Unlock()
	var out []net.Addr
	for _, l := range e.listeners {
		out = append(out, l.addr)
	}
	return out
}
