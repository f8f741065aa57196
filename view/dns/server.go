package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fingerpost/fingerpost/catalog"
)

// Config says what to serve and where. The zero value serves cluster.local to
// callers of Resolve only.
type Config struct {
	// Zone is the cluster's domain; "cluster.local" if empty.
	Zone string
	// Addrs are the addresses for UDP and TCP, "127.0.0.1:8053". Port 0 takes
	// any free one: see Server.Addrs. On Linux UDP uses one socket per CPU.
	Addrs []string
	// TTL of every record of the zone, whole seconds; 5 s if 0.
	TTL time.Duration
	// Node is this node's name: addresses that mean something on one node only
	// are shown on that node.
	Node string
	// Upstreams ("ip:port") answer names outside the zone; the first that
	// works is kept to. If empty, ResolvConf names them.
	Upstreams []string
	// ResolvConf is a resolver configuration file, re-read when it changes.
	// Its name servers that are this server are left out. Without any
	// upstream, names outside the zone are refused.
	ResolvConf string
	// UpstreamTimeout is how long one upstream is waited for; 2 s if 0.
	UpstreamTimeout time.Duration
	// MaxConns bounds the TCP connections, MaxForwards the questions that wait
	// for an upstream; 1024 each if 0. Beyond, a connection is closed and a
	// question answered SERVFAIL.
	MaxConns, MaxForwards int
	// IdleTimeout is how long a TCP connection may take for its next question;
	// 10 s if 0.
	IdleTimeout time.Duration

	Log        *slog.Logger          // nil: none
	Registerer prometheus.Registerer // nil: no metrics
	Now        func() time.Time      // nil: time.Now
}

// Server is the DNS view. Apply may be called before, while and after Run.
type Server struct {
	cfg     Config
	log     *slog.Logger
	index   *index
	forward *forwarder
	metrics *metrics

	apply sync.Mutex // one writer of the index

	mu      sync.Mutex // guards what follows
	udp     []*udpSocket
	tcp     []net.Listener
	conns   map[net.Conn]struct{}
	closing atomic.Bool
	slots   chan struct{} // TCP connections
	jobs    sync.WaitGroup
}

var _ catalog.View = (*Server)(nil)

// New makes a server that listens nowhere yet and knows nothing.
func New(cfg Config) (*Server, error) {
	if cfg.Zone == "" {
		cfg.Zone = "cluster.local"
	}
	zone, labels, err := wireName(cfg.Zone)
	if err != nil {
		return nil, fmt.Errorf("view/dns: zone: %w", err)
	}
	// A host, a service and a namespace of 63 characters each must fit before it.
	if longest := maxName - 3*(maxLabel+1) - len("\x03svc"); labels == 0 || len(zone) > longest {
		return nil, fmt.Errorf("view/dns: zone %q: it must have 1 to %d characters", cfg.Zone, longest-2)
	}
	if cfg.TTL == 0 {
		cfg.TTL = 5 * time.Second
	}
	if cfg.TTL < time.Second || cfg.TTL > 24*time.Hour {
		return nil, fmt.Errorf("view/dns: TTL %v: it must be between 1s and 24h", cfg.TTL)
	}
	for _, u := range cfg.Upstreams {
		if _, err := netip.ParseAddrPort(u); err != nil {
			return nil, fmt.Errorf("view/dns: upstream %q: it must be an address with a port, like 192.0.2.1:53", u)
		}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.MaxConns == 0 {
		cfg.MaxConns = 1024
	}
	if cfg.IdleTimeout == 0 {
		cfg.IdleTimeout = 10 * time.Second
	}
	s := &Server{
		cfg:   cfg,
		log:   cfg.Log,
		index: newIndex(zone, labels, uint32(cfg.TTL/time.Second), cfg.Node),
		conns: map[net.Conn]struct{}{},
		slots: make(chan struct{}, cfg.MaxConns),
	}
	s.setHosts(cfg.Addrs)
	if s.metrics, err = newMetrics(cfg.Registerer, text(zone)); err != nil {
		return nil, fmt.Errorf("view/dns: register metrics: %w", err)
	}
	if len(cfg.Upstreams) > 0 || cfg.ResolvConf != "" {
		s.forward = newForwarder(cfg, s.listensOn)
		s.forwards()
	}
	return s, nil
}

// Apply shows a batch to everybody who asks from now on.
func (s *Server) Apply(_ context.Context, b catalog.Batch) error {
	s.apply.Lock()
	defer s.apply.Unlock()
	now := s.cfg.Now()
	s.index.apply(&b, now)
	s.metrics.applied(&b, s.cfg.Now())
	return nil
}

// Addrs gives the addresses that Listen got, as UDP and TCP alike.
func (s *Server) Addrs() []netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	addrs := make([]netip.AddrPort, len(s.tcp))
	for i, l := range s.tcp {
		a := l.Addr().(*net.TCPAddr).AddrPort()
		addrs[i] = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
	}
	return addrs
}

// listensOn says whether an address is this server's own.
func (s *Server) listensOn(up netip.AddrPort) bool {
	for _, a := range s.Addrs() {
		if a.Port() == up.Port() && (a.Addr() == up.Addr() || a.Addr().IsUnspecified() && up.Addr().IsLoopback()) {
			return true
		}
	}
	return false
}

// forwards says whether there is anybody to forward to.
func (s *Server) forwards() bool {
	if s.forward == nil {
		return false
	}
	yes := len(s.forward.servers()) > 0
	if s.index.upstream.Load() != yes {
		s.index.upstream.Store(yes)
	}
	return yes
}

// setHosts takes the name server's own addresses from where it listens.
func (s *Server) setHosts(addrs []string) {
	var hosts []netip.Addr
	for _, a := range addrs {
		if ap, err := netip.ParseAddrPort(a); err == nil && !ap.Addr().IsUnspecified() && !slices.Contains(hosts, plain(ap.Addr())) {
			hosts = append(hosts, plain(ap.Addr()))
		}
	}
	s.index.hosts.Store(&hosts)
}

// Listen opens the sockets, so that a port in use is known before anything
// else starts. It is part of Run if it was not called before.
func (s *Server) Listen() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.tcp) > 0 {
		return nil
	}
	for _, addr := range s.cfg.Addrs {
		if err := s.listen(addr); err != nil {
			s.closeAll()
			return fmt.Errorf("view/dns: listen on %s: %w", addr, advise(err))
		}
	}
	var addrs []string
	for _, l := range s.tcp {
		addrs = append(addrs, l.Addr().String()) // host names are resolved now
	}
	s.setHosts(addrs)
	if s.forward != nil && s.forward.file != nil {
		s.forward.file.forget()
	}
	return nil
}

// advise adds what the user can do.
func advise(err error) error {
	switch {
	case isInUse(err):
		return fmt.Errorf("port in use: another program answers there; stop it or choose another address with --dns-address: %w", err)
	case errors.Is(err, errPermission):
		return fmt.Errorf("no permission: ports below 1024 need root or CAP_NET_BIND_SERVICE; choose another with --dns-address: %w", err)
	}
	return err
}

// listen opens TCP first: it fails if anybody has the port, while UDP sockets
// that share a port would take part of another server's packets.
func (s *Server) listen(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("it must be an address with a port, like 127.0.0.1:8053: %w", err)
	}
	tcp := "tcp"
	if a, err := netip.ParseAddr(host); err == nil {
		tcp = network(tcp, a)
	}
	for try := 0; ; try++ {
		l, err := net.Listen(tcp, net.JoinHostPort(host, port))
		if err != nil {
			return err
		}
		socks, err := listenUDP(l.Addr().(*net.TCPAddr).AddrPort(), min(runtime.GOMAXPROCS(0), 16))
		if err == nil {
			s.tcp = append(s.tcp, l)
			for _, u := range socks {
				u.stats = s.metrics.stats("dns://"+l.Addr().String(), "udp")
				s.udp = append(s.udp, u)
			}
			return nil
		}
		_ = l.Close()
		if port != "0" || try == 16 || !isInUse(err) {
			return err
		}
	}
}

// network says which family a socket is of: Go takes "tcp" with 0.0.0.0 for
// both. The unspecified IPv6 address is for both.
func network(proto string, a netip.Addr) string {
	if a.Unmap().Is4() {
		return proto + "4"
	}
	return proto
}

func (s *Server) closeAll() {
	for _, l := range s.tcp {
		_ = l.Close()
	}
	for _, u := range s.udp {
		_ = u.conn.Close()
	}
	s.tcp, s.udp = nil, nil
}

// grace is how long questions that wait for an upstream may hold up the end.
const grace = time.Second

// Run serves until ctx ends. Then it takes no more questions, answers those
// that it has and returns nil. The error is that of a socket. A server runs
// once.
func (s *Server) Run(ctx context.Context) error {
	if err := s.Listen(); err != nil {
		return err
	}
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	failed := make(chan error, 1)
	fail := func(err error) {
		select {
		case failed <- err:
		default:
		}
	}
	var serving sync.WaitGroup
	s.mu.Lock()
	udp, tcp := s.udp, s.tcp
	s.mu.Unlock()
	for _, u := range udp {
		serving.Go(func() { s.serveUDP(work, u, fail) })
	}
	for _, l := range tcp {
		serving.Go(func() { s.serveTCP(work, l, fail) })
	}
	s.log.Info("answering DNS", "zone", s.cfg.Zone, "addresses", s.Addrs())

	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	s.closing.Store(true)
	s.mu.Lock()
	for _, u := range udp {
		_ = u.conn.SetReadDeadline(time.Unix(1, 0))
	}
	for _, l := range tcp {
		_ = l.Close()
	}
	for c := range s.conns {
		_ = c.SetReadDeadline(time.Unix(1, 0))
	}
	s.mu.Unlock()
	defer time.AfterFunc(grace, stop).Stop() // for what waits for an upstream
	serving.Wait()
	s.jobs.Wait()
	s.mu.Lock()
	s.closeAll()
	s.mu.Unlock()
	return err
}
