package gateway

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fingerpost/fingerpost/balance"
	"github.com/fingerpost/fingerpost/view/gateway/cert"
	"github.com/fingerpost/fingerpost/view/gateway/cluster"
	"github.com/fingerpost/fingerpost/view/gateway/h2"
	"github.com/fingerpost/fingerpost/view/gateway/route"
	"github.com/fingerpost/fingerpost/view/gateway/socket"
)

// secure prepares TLS and HTTP/2 towards clients.
func (e *Engine) secure() error {
	var err error
	if e.certs, err = cert.New(e.cfg.Certificates); err != nil {
		return err
	}
	e.tls = e.certs.Config()
	t := &e.cfg.Timeouts
	e.http2 = h2.Config{
		IdleTimeout: t.Idle, HeadTimeout: t.Head, WriteTimeout: t.Write, Workers: h2.NewWorkers(),
	}
	return nil
}

// certify gives the certificates what changed.
func (e *Engine) certify(u *route.Update) { e.certs.Update(u) }

// failedHandshake counts it, and tells what an operator can do something about.
func (e *Engine) failedHandshake(k *client, err error) {
	e.metrics.HandshakesFailed.Add(1)
	e.log.Debug("TLS handshake failed", "from", k.peer.Remote.String(), "err", err)
}

func http2Client(conn net.Conn) (cluster.HTTP2, error) {
	_, secure := conn.(*tls.Conn)
	c, err := h2.NewClient(conn, h2.Config{HTTPS: secure})
	if err != nil {
		return nil, err
	}
	return c, nil
}

// dialer opens connections to endpoints.
type dialer struct {
	d       net.Dialer
	configs sync.Map // *cluster.TLS -> *tls.Config
	size    atomic.Int64
	poller  atomic.Pointer[socket.Poller] // for those without TLS; nil: the runtime's
}

func newDialer() *dialer {
	return &dialer{d: net.Dialer{KeepAlive: -1}}
}

func (d *dialer) dial(ctx context.Context, addr netip.AddrPort, t *cluster.TLS) (net.Conn, error) {
	if p := d.poller.Load(); t == nil && p != nil && addr.Addr().Zone() == "" {
		c, err := p.Dial(ctx, addr)
		if err != nil {
			return nil, err
		}
		return c, nil
	}
	c, err := d.d.DialTCP(ctx, "tcp", netip.AddrPort{}, addr)
	if err != nil {
		return nil, err
	}
	conn := socket.New(c)
	if t == nil {
		return conn, nil
	}
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	s := tls.Client(conn, d.config(t))
	if err := s.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("gateway: TLS with the endpoint %s: %w", addr, err)
	}
	_ = conn.SetDeadline(time.Time{})
	return s, nil
}

// config gives the same configuration for the same cluster, so that sessions
// are resumed.
func (d *dialer) config(t *cluster.TLS) *tls.Config {
	if c, ok := d.configs.Load(t); ok {
		return c.(*tls.Config)
	}
	c := &tls.Config{
		MinVersion: tls.VersionTLS12, ServerName: t.ServerName, NextProtos: t.Protocols,
		ClientSessionCache: tls.NewLRUClientSessionCache(256), DynamicRecordSizingDisabled: true,
	}
	var roots *x509.CertPool
	if p := t.Endpoint; p != nil {
		c.MinVersion, c.MaxVersion = max(c.MinVersion, p.MinVersion), p.MaxVersion
		if p.ServerName != "" {
			c.ServerName = p.ServerName
		}
		if roots = p.Roots; p.Certificate != nil {
			c.Certificates = []tls.Certificate{*p.Certificate}
		}
	}
	if roots != nil {
		c.RootCAs = roots
	} else {
		// As Ingress says: endpoints are not asked who they are unless a policy
		// names authorities.
		c.InsecureSkipVerify = true
	}
	if c.ServerName == "" {
		c.InsecureSkipVerify = true
		if roots != nil {
			depth := t.Endpoint.Depth
			c.VerifyConnection = func(cs tls.ConnectionState) error { return signed(cs, roots, depth) }
		}
	}
	if p := t.Endpoint; p != nil && roots != nil && p.Depth > 0 && c.VerifyConnection == nil {
		c.VerifyConnection = func(cs tls.ConnectionState) error { return shallow(cs.VerifiedChains, p.Depth) }
	}
	// Clusters come and go; what they leave here does no harm, but is bounded.
	if d.size.Add(1) > 4096 {
		d.configs.Clear()
		d.size.Store(0)
	}
	actual, _ := d.configs.LoadOrStore(t, c)
	return actual.(*tls.Config)
}

// signed checks a chain without a name: that of an endpoint whose policy names
// authorities but no host.
func signed(cs tls.ConnectionState, roots *x509.CertPool, depth int) error {
	if len(cs.PeerCertificates) == 0 {
		return errors.New("gateway: the endpoint shows no certificate")
	}
	o := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
	for _, c := range cs.PeerCertificates[1:] {
		o.Intermediates.AddCert(c)
	}
	chains, err := cs.PeerCertificates[0].Verify(o)
	if err != nil || depth <= 0 {
		return err
	}
	return shallow(chains, depth)
}

// shallow says that one of the chains has no more than so many certificates between
// that of the endpoint and the authority.
func shallow(chains [][]*x509.Certificate, depth int) error {
	for _, c := range chains {
		if len(c)-2 <= depth {
			return nil
		}
	}
	return fmt.Errorf("gateway: more than %d certificates between the endpoint's and an authority", depth)
}

// pass carries TLS to a backend without ending it.
func (k *client) pass(h *route.Host, name string, first []byte) {
	defer k.close()
	e := k.e
	key, err := cluster.KeyOf(h.Passthrough, &route.Policy{})
	if err != nil {
		return
	}
	c := e.clusters.Get(key)
	q := cluster.Query{Hash: balance.Hash(k.peer.Remote.String())}
	for range maxConnects {
		ep, problem := c.Pick(&q)
		if ep == nil {
			e.log.Warn("TLS cannot be passed on: there is no endpoint", "host", name, "service", key.Service.String(), "reason", string(problem))
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), e.cfg.Timeouts.Connect)
		up, err := e.dialer.dial(ctx, ep.Addr(), nil)
		cancel()
		if err != nil {
			ep.Done(cluster.Outcome{Result: balance.Failure})
			q.Tried = append(q.Tried, ep)
			continue
		}
		start := time.Now()
		_ = up.SetWriteDeadline(start.Add(e.cfg.Timeouts.Send))
		if _, err = up.Write(first); err == nil {
			_ = k.c.SetDeadline(time.Time{})
			d, u := duplex{k.c}, duplex{up.(*socket.Conn)}
			id := e.tunnels.add(d, u)
			join(d, u, e.cfg.Timeouts.Tunnel)
			e.tunnels.remove(id)
		}
		_ = up.Close()
		ep.Done(cluster.Outcome{Result: balance.Success})
		return
	}
}

// duplex is a TCP connection as a tunnel.
type duplex struct{ *socket.Conn }
