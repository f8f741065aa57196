package healthcheck

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fingerpost/fingerpost/catalog"
)

// Config says where to answer. The zero value of a field means what its
// comment says.
type Config struct {
	Node      string       // this node's name
	Addresses []netip.Addr // where to listen; empty: all addresses
	Log       *slog.Logger // nil: no log
	// Failed is told when a port cannot be had, once until it can. nil: nobody.
	Failed func(key catalog.Key, err error)
}

// retryEvery is how often a port that could not be had is tried again.
const retryEvery = 5 * time.Second

// Server is a catalog.View.
type Server struct {
	cfg Config

	mu      sync.Mutex
	byKey   map[catalog.Key]*check
	stopped bool
}

// check is one service.
type check struct {
	key   catalog.Key
	port  uint16
	local atomic.Int64 // ready endpoints here

	listeners []net.Listener
	servers   []*http.Server
	told      bool
}

// New makes a server that answers nowhere yet.
func New(cfg Config) *Server {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Failed == nil {
		cfg.Failed = func(catalog.Key, error) {}
	}
	return &Server{cfg: cfg, byKey: map[catalog.Key]*check{}}
}

// Run tries ports again that could not be had, until ctx ends; then it answers
// nowhere any more.
func (s *Server) Run(ctx context.Context) error {
	tick := time.NewTicker(retryEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			s.mu.Lock()
			defer s.mu.Unlock()
			s.stopped = true
			for _, c := range s.byKey {
				c.close()
			}
			return nil
		case <-tick.C:
			s.retry()
		}
	}
}

// retry opens the ports that could not be had.
func (s *Server) retry() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.byKey {
		if len(c.servers) == 0 {
			s.listen(c)
		}
	}
}

// Apply follows a batch of changes.
func (s *Server) Apply(_ context.Context, b catalog.Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return nil
	}
	var fresh []*check
	for _, change := range b.Changes {
		c := s.byKey[change.Key]
		port := wanted(change.New)
		if c != nil && c.port != port {
			c.close()
			delete(s.byKey, change.Key)
			c = nil
		}
		if port == 0 {
			continue
		}
		if c == nil {
			c = &check{key: change.Key, port: port}
			s.byKey[change.Key] = c
			fresh = append(fresh, c)
		}
		c.local.Store(s.count(change.New))
	}
	// A port may have moved from one service to another within the batch.
	for _, c := range fresh {
		s.listen(c)
	}
	return nil
}

// wanted gives the port of a service, 0 if it has none.
func wanted(e *catalog.Entry) uint16 {
	if e == nil || e.Service == nil || !e.Service.ExternalLocal || e.Service.ProxyName != "" {
		return 0
	}
	return e.Service.HealthCheckNodePort
}

func (s *Server) count(e *catalog.Entry) (n int64) {
	for i := range e.Endpoints {
		ep := &e.Endpoints[i]
		if ep.Ready && !ep.Terminating && ep.Node == s.cfg.Node && ep.UsableOn(s.cfg.Node) {
			n++
		}
	}
	return n
}

// listen opens the sockets of a check. All or none.
func (s *Server) listen(c *check) {
	places := []string{net.JoinHostPort("", strconv.Itoa(int(c.port)))}
	if len(s.cfg.Addresses) > 0 {
		places = nil
		for _, a := range s.cfg.Addresses {
			places = append(places, netip.AddrPortFrom(a, c.port).String())
		}
	}
	for _, at := range places {
		l, err := net.Listen("tcp", at)
		if err != nil {
			c.close()
			if !c.told {
				c.told = true
				s.cfg.Log.Warn("healthcheck: listen for a health check node port", "service", c.key, "address", at, "error", err)
				s.cfg.Failed(c.key, fmt.Errorf("health check node port %d cannot be served on this node: %w", c.port, err))
			}
			return
		}
		srv := &http.Server{Handler: c, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
		c.servers, c.listeners = append(c.servers, srv), append(c.listeners, l)
		go func() {
			if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
				s.cfg.Log.Warn("healthcheck: serve", "service", c.key, "error", err)
			}
		}()
	}
	c.told = false
}

// close gives the ports back before it returns: another service may want them.
func (c *check) close() {
	for _, l := range c.listeners {
		_ = l.Close()
	}
	for _, srv := range c.servers {
		_ = srv.Close()
	}
	c.listeners, c.servers = nil, nil
}

// ServeHTTP answers a load balancer.
func (c *check) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	type service struct {
		Namespace string `json:"namespace"`
		Name      string `json:"name"`
	}
	n := c.local.Load()
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Load-Balancing-Endpoint-Weight", strconv.FormatInt(n, 10))
	if n == 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(struct {
		Service service `json:"service"`
		Local   int64   `json:"localEndpoints"`
		Healthy bool    `json:"serviceProxyHealthy"`
	}{service{c.key.Namespace, c.key.Name}, n, true})
}
