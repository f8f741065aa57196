package dns

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
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
	"github.com/fingerpost/fingerpost/view/dns/forward"
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
	// Upstreams answer names outside the zone; the first that works is kept
	// to. See forward.Zone for their forms. If empty, ResolvConf names them.
	Upstreams []string
	// Forward names other upstreams for some zones (stub domains).
	Forward []forward.Zone
	// ResolvConf is a resolver configuration file, re-read when it changes.
	// Its name servers that are this server are left out. Without any
	// upstream, names outside the zone are refused.
	ResolvConf string
	// UpstreamTimeout is how long a forwarded question may take in all; 3 s if
	// 0. CacheSize bounds the memory for upstreams' answers, in bytes: 4 MiB if
	// 0, none if negative.
	UpstreamTimeout time.Duration
	CacheSize       int
	// Pods says what the names of pods, 1-2-3-4.ns.pod.<zone>, are true for;
	// PodsInsecure if empty.
	Pods PodMode
	// Autopath makes the answer to the first name that a client's search list
	// leads to be that of the first one that exists. It is for clients that
	// have an address of an endpoint, and off by default.
	Autopath bool
	// Records are custom records: see SetRecords. Names of the catalog hide
	// them.
	Records []string
	// Workers is how many sockets and threads answer UDP on Linux; one for
	// each CPU, at most 16, if 0. PlainUDP makes them read and write one
	// packet at a time, as on other systems.
	Workers  int
	PlainUDP bool
	// MaxConns bounds the TCP connections, MaxForwards the questions that wait
	// for an upstream; 1024 each if 0. Beyond, a connection is closed and a
	// question answered SERVFAIL.
	MaxConns, MaxForwards int
	// IdleTimeout is how long a TCP connection may take for its next question;
	// 10 s if 0.
	IdleTimeout time.Duration

	// TLSAddrs are the addresses for DNS over TLS (RFC 7858), HTTPSAddrs those
	// for DNS over HTTPS (RFC 8484) at the path /dns-query. MaxConns and
	// IdleTimeout hold for each of the three kinds of connections.
	TLSAddrs, HTTPSAddrs []string
	// Certificate is asked for the certificate of each TLS connection. It must
	// be set if there are addresses for TLS.
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)

	// QueryLog says which questions are written to QueryLogTo, one line each.
	QueryLog   QueryLog
	QueryLogTo io.Writer // nil: nowhere

	Log        *slog.Logger          // nil: none
	Registerer prometheus.Registerer // nil: no metrics
	Now        func() time.Time      // nil: time.Now
}

// Server is the DNS view. Apply may be called before, while and after Run.
type Server struct {
	cfg     Config
	log     *slog.Logger
	index   *index
	forward *forward.Forwarder // nil: nobody is asked
	waits   chan struct{}      // questions that wait for it
	metrics *metrics

	apply sync.Mutex        // one writer of the index, and of what can be reloaded
	shown *catalog.Snapshot // the last that was applied
	stubs atomic.Bool       // some zones have upstreams of their own

	queries *queryLog

	mu      sync.Mutex // guards what follows
	udp     []*udpSocket
	tcp     []net.Listener
	secure  []*secureListener
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
	if err := cfg.checkTTL(); err != nil {
		return nil, err
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
	if cfg.MaxForwards == 0 {
		cfg.MaxForwards = 1024
	}
	if cfg.Workers == 0 {
		cfg.Workers = min(runtime.GOMAXPROCS(0), 16)
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
		waits: make(chan struct{}, cfg.MaxForwards),
	}
	if cfg.QueryLogTo == nil {
		cfg.QueryLogTo = io.Discard
	}
	s.queries = newQueryLog(cfg.QueryLogTo, cfg.QueryLog)
	if len(cfg.TLSAddrs)+len(cfg.HTTPSAddrs) > 0 && cfg.Certificate == nil {
		return nil, errors.New("view/dns: DNS over TLS and HTTPS need a certificate")
	}
	s.setHosts(cfg.Addrs)
	if s.metrics, err = newMetrics(cfg.Registerer, text(zone)); err != nil {
		return nil, fmt.Errorf("view/dns: register metrics: %w", err)
	}
	s.metrics.unlogged = s.queries.dropped.Load
	if err := s.index.configure(&cfg); err != nil {
		return nil, fmt.Errorf("view/dns: %w", err)
	}
	if len(cfg.Upstreams)+len(cfg.Forward) > 0 || cfg.ResolvConf != "" {
		if s.forward, err = forward.New(s.forwardConfig(&cfg)); err != nil {
			return nil, fmt.Errorf("view/dns: %w", err)
		}
		s.stubs.Store(len(cfg.Forward) > 0)
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
	s.shown = b.Snapshot
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
	yes := s.stubs.Load() || s.forward.Serves([]byte{0})
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
	if len(s.tcp)+len(s.secure) > 0 {
		return nil
	}
	for _, addr := range s.cfg.Addrs {
		if err := s.listen(addr); err != nil {
			s.closeAll()
			return fmt.Errorf("view/dns: listen on %s: %w", addr, advise(err))
		}
	}
	if err := s.listenSecure(); err != nil {
		s.closeAll()
		return err
	}
	var addrs []string
	for _, l := range s.tcp {
		addrs = append(addrs, l.Addr().String()) // host names are resolved now
	}
	s.setHosts(addrs)
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
		socks, err := listenUDP(l.Addr().(*net.TCPAddr).AddrPort(), s.cfg.Workers, s.cfg.PlainUDP)
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
		u.close()
	}
	for _, l := range s.secure {
		_ = l.Close()
	}
	s.tcp, s.udp, s.secure = nil, nil, nil
}

// grace is how long questions that wait for an upstream may hold up the end:
// as long as it may take to find an upstream that answers.
const grace = 3 * time.Second

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
	udp, tcp, secure := s.udp, s.tcp, s.secure
	s.mu.Unlock()
	logged := make(chan struct{})
	logging, endLog := context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		defer close(logged)
		s.queries.run(logging)
	}()
	defer func() {
		endLog()
		<-logged
	}()
	if s.forward != nil {
		forwarding, end := context.WithCancel(context.WithoutCancel(ctx))
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = s.forward.Run(forwarding)
		}()
		defer func() {
			end()
			<-ended
		}()
	}
	for _, u := range udp {
		serving.Go(func() { s.serveUDP(work, u, fail) })
	}
	for _, l := range tcp {
		serving.Go(func() { s.serveTCP(work, l, fail) })
	}
	for _, l := range secure {
		serving.Go(func() { s.serveSecure(work, l, fail) })
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
		u.stop()
	}
	for _, l := range tcp {
		_ = l.Close()
	}
	for _, l := range secure {
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
