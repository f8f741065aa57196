package cluster

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fingerpost/fingerpost/balance"
	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/gateway/route"
	"github.com/fingerpost/fingerpost/view/gateway/stream"
)

// Config is what a Set needs. Only HTTP1 is required, and HTTP2 for clusters
// whose protocol may be HTTP/2.
type Config struct {
	// Node and Zone are where the gateway runs; empty: not known.
	Node, Zone string

	// Dial opens a connection; t is nil for one without TLS. A connection with
	// TLS tells the protocol that was agreed on by ConnectionState, as
	// crypto/tls.Conn does. nil: plain TCP only.
	Dial func(ctx context.Context, addr netip.AddrPort, t *TLS) (net.Conn, error)
	// HTTP1 makes the codec of a new connection. It tells slot when an exchange
	// is over.
	HTTP1 func(conn net.Conn, slot *Slot) HTTP1
	// HTTP2 makes the codec of a new connection.
	HTTP2 func(conn net.Conn) (HTTP2, error)
	// Lookup resolves the host of an external backend; nil: the system's resolver.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)

	// MaxIdle bounds the idle connections of an endpoint; 0: 8192. Those used last
	// are used first, so that in any case there are no more than were needed at
	// once within IdleTimeout.
	MaxIdle        int
	MaxConnections int           // per endpoint; 0: no limit
	IdleTimeout    time.Duration // 0: 60 s; less than what common servers have
	CheckAfter     time.Duration // idle for so long, a connection is looked at; 0: 10 ms
	Refresh        time.Duration // of external names; 0: 30 s
	SlowStart      time.Duration // 0: none
	Ejection       balance.Ejection
	RetryPercent   int // of requests; 0: 20
	RetryPerSecond int // in any case; 0: 10

	Log *slog.Logger
}

// TLS is how to make a connection with TLS. It stays the same pointer for the
// life of a cluster, so what is derived from it can be kept by it.
type TLS struct {
	Endpoint   *route.EndpointTLS // nil: any certificate will do
	ServerName string             // if Endpoint has none: the host of an external backend; may be ""
	Protocols  []string           // for ALPN
}

// HTTP1 is the codec of a connection that carries one exchange at a time.
type HTTP1 interface {
	// Open begins an exchange. kept: the connection had one before, so it is
	// not stream.Upstream.Fresh. At its end the codec calls Slot.Keep or Slot.Drop.
	Open(kept bool) stream.Upstream
	// Close closes the connection; it is idle.
	Close() error
}

// HTTP2 is the codec of a connection that carries many exchanges.
type HTTP2 interface {
	Open() (stream.Upstream, error)
	// Full: no further exchange now. Gone: never again, and it closes itself
	// when those under way are over.
	Full() bool
	Gone() bool
	// Drain closes the connection when the exchanges under way are over.
	Drain()
}

// Set holds the clusters of a gateway. It is a catalog.View. Make it with New.
type Set struct {
	cfg   Config
	log   *slog.Logger
	start time.Time
	clock func() time.Duration // now, made once for all picks
	noted atomic.Int64         // see Note; 0: nobody did

	mu       sync.Mutex
	snap     *catalog.Snapshot
	clusters map[Key]*Cluster
	services map[catalog.Key][]*Cluster // without external ones
	wake     chan struct{}              // for Run: a new external cluster
}

// New makes an empty Set.
func New(cfg Config) (*Set, error) {
	if cfg.HTTP1 == nil {
		return nil, errors.New("cluster: Config.HTTP1 is required")
	}
	if cfg.Dial == nil {
		cfg.Dial = dialPlain
	}
	if cfg.Lookup == nil {
		cfg.Lookup = lookup
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.MaxIdle == 0 {
		cfg.MaxIdle = 8192
	}
	orDefault(&cfg.IdleTimeout, time.Minute)
	orDefault(&cfg.CheckAfter, 10*time.Millisecond)
	orDefault(&cfg.Refresh, 30*time.Second)
	s := &Set{
		cfg: cfg, log: cfg.Log,
		// Times before that would be 0 or less, which means never.
		start:    time.Now().Add(-time.Second),
		snap:     catalog.New(nil).Snapshot(),
		clusters: map[Key]*Cluster{},
		services: map[catalog.Key][]*Cluster{},
		wake:     make(chan struct{}, 1),
	}
	s.clock = s.now
	return s, nil
}

func orDefault(d *time.Duration, value time.Duration) {
	if *d == 0 {
		*d = value
	}
}

func dialPlain(ctx context.Context, addr netip.AddrPort, t *TLS) (net.Conn, error) {
	if t != nil {
		return nil, errors.New("cluster: dial: TLS towards endpoints is not set up")
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", addr.String())
}

func lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}

// now is what balance counts time by.
func (s *Set) now() time.Duration { return time.Since(s.start) }

// Note tells what time it is. Whoever looks at the clock for each exchange anyway
// spares this the same when connections are taken and given back: the ages of
// those that are kept need not be exact.
func (s *Set) Note(t time.Time) { s.noted.Store(int64(t.Sub(s.start))) }

// about is now as it was noted last.
func (s *Set) about() time.Duration {
	if d := s.noted.Load(); d != 0 {
		return time.Duration(d)
	}
	return s.now()
}

// Apply follows the catalog.
func (s *Set) Apply(_ context.Context, b catalog.Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	synced := s.snap.Freshness().Synced
	s.snap = b.Snapshot
	if synced != b.Snapshot.Freshness().Synced {
		// What a missing service means has changed.
		for _, c := range s.clusters {
			s.update(c)
		}
		return nil
	}
	for _, ch := range b.Changes {
		for _, c := range s.services[ch.Key] {
			s.update(c)
		}
	}
	return nil
}

func (s *Set) update(c *Cluster) {
	if c.key.External == "" {
		c.follow(s.snap.Get(c.key.Service), s.snap.Freshness().Synced)
	}
}

// Get gives the cluster of a key, and makes it if there is none.
func (s *Set) Get(k Key) *Cluster {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.clusters[k]; c != nil {
		return c
	}
	c := newCluster(s, k)
	s.clusters[k] = c
	if k.External == "" {
		s.services[k.Service] = append(s.services[k.Service], c)
		s.update(c)
		return c
	}
	c.external()
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return c
}

// Keep closes every cluster that is not used any more: its connections are not
// kept. Exchanges that have it from before go on.
func (s *Set) Keep(used func(Key) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, c := range s.clusters {
		if used(k) {
			continue
		}
		delete(s.clusters, k)
		if k.External == "" {
			left := slices.DeleteFunc(s.services[k.Service], func(o *Cluster) bool { return o == c })
			if s.services[k.Service] = left; len(left) == 0 {
				delete(s.services, k.Service)
			}
		}
		c.close()
	}
}

// All gives the clusters, in no order: for metrics and people.
func (s *Set) All() []*Cluster {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*Cluster, 0, len(s.clusters))
	for _, c := range s.clusters {
		out = append(out, c)
	}
	return out
}

// Run closes what was idle for too long and keeps the addresses of external
// backends up to date, until ctx ends; then it closes all that is idle.
func (s *Set) Run(ctx context.Context) error {
	sweep := time.NewTicker(min(s.cfg.IdleTimeout/4, 5*time.Second))
	defer sweep.Stop()
	names := newNames(s)
	defer names.stop()
	for {
		select {
		case <-ctx.Done():
			s.Keep(func(Key) bool { return false })
			return ctx.Err()
		case <-sweep.C:
			now := s.now()
			for _, c := range s.All() {
				for _, e := range c.list.Load().endpoints {
					e.sweep(now)
				}
			}
		case <-s.wake:
		case <-names.timer.C:
		case <-names.done:
			names.busy--
		}
		names.refresh(ctx)
	}
}
