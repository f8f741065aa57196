package gateway

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/gateway"
	"github.com/fingerpost/fingerpost/view/gateway/route"
)

// rig is an engine that listens for HTTP and for TLS.
type rig struct {
	t       testing.TB
	e       *gateway.Engine
	cat     *catalog.Catalog
	ca      *authority
	plain   string // host:port
	secure  string
	stop    func() // shuts the engine down, and waits
	stopped <-chan struct{}
	mu      sync.Mutex // of changes of the catalog
}

// host of the site that most tests ask, and its service.
const host = "web.example.com"

// names of every site of the rig's certificate.
var wildcard = []string{"*.example.com"}

func service(name string) catalog.Key { return catalog.Key{Namespace: "default", Name: name} }

// usual is the policy that rules have when nothing is said.
func usual() *route.Policy { return &route.Policy{Retry: route.Retry{Reset: true}} }

func newRig(t testing.TB, cfg gateway.Config) *rig {
	t.Helper()
	if cfg.Timeouts.Drain == 0 {
		cfg.Timeouts.Drain = 5 * time.Second
	}
	cfg.Listeners = append(cfg.Listeners, gateway.Listener{Addr: "127.0.0.1:0"}, gateway.Listener{Addr: "127.0.0.1:0", TLS: true})
	e, err := gateway.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, e: e, cat: catalog.New(nil), ca: newAuthority(t)}
	if err := e.Listen(); err != nil {
		t.Fatal(err)
	}
	n := len(cfg.Listeners)
	r.plain, r.secure = e.Addrs()[n-2].String(), e.Addrs()[n-1].String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := e.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	r.stopped = done
	r.stop = func() { cancel(); <-done }
	t.Cleanup(r.stop)
	e.SetRoutes(route.Update{Replace: true, Certificates: map[string]*route.Certificate{
		"wildcard": {Hosts: wildcard, Chain: r.ca.leaf(t, wildcard...)},
	}})
	r.endpoints("none") // the catalog is known from here on
	return r
}

// site sends what is for a host to the service with this name.
func (r *rig) site(host, name string, p *route.Policy) {
	r.e.SetRoutes(route.Update{Hosts: map[string]*route.Host{host: {Name: host, Rules: []route.Rule{rule("/", name, p)}}}})
}

func rule(path, name string, p *route.Policy) route.Rule {
	if p == nil {
		p = usual()
	}
	return route.Rule{
		Origin: route.Origin{Kind: "Ingress", Namespace: "default", Name: name},
		Path:   route.Path{Value: path}, Backends: []route.Backend{{Service: service(name), Port: "80", Weight: 1}}, Policy: p,
	}
}

// endpoints makes these addresses the endpoints of a service.
func (r *rig) endpoints(name string, addrs ...string) {
	r.t.Helper()
	var list []catalog.Endpoint
	for _, a := range addrs {
		ap, err := netip.ParseAddrPort(a)
		if err != nil {
			r.t.Fatal(err)
		}
		list = append(list, catalog.Endpoint{
			Addr: ap.Addr(), Ports: []catalog.EndpointPort{{Name: "http", Protocol: catalog.TCP, Port: ap.Port()}},
			Ready: true, Serving: true, Weight: 100,
		})
	}
	r.set(name, list)
}

func (r *rig) set(name string, list []catalog.Endpoint) {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	k := service(name)
	before := r.cat.Snapshot().Get(k)
	r.cat.Update(func(t *catalog.Txn) {
		t.PutService(&catalog.Service{Key: k, Type: catalog.ClusterIP, Ports: []catalog.Port{{Name: "http", Protocol: catalog.TCP, Port: 80, Target: "80"}}})
		t.PutEndpoints(k, list)
		t.SetFreshness(catalog.Freshness{Synced: true})
	})
	s := r.cat.Snapshot()
	if err := r.e.Apply(context.Background(), catalog.Batch{Snapshot: s, Changes: []catalog.Change{{Key: k, Old: before, New: s.Get(k)}}}); err != nil {
		r.t.Error(err)
	}
}

// web is a rig with one site, whose endpoint is an HTTP server with this handler.
func web(t testing.TB, cfg gateway.Config, h http.Handler) *rig {
	t.Helper()
	r := newRig(t, cfg)
	r.site(host, "web", nil)
	r.endpoints("web", serve(t, h))
	return r
}

// url is where a site is found by clients that look up names at the rig.
func (r *rig) url(secure bool, path string) string {
	if secure {
		return "https://" + host + path
	}
	return "http://" + host + path
}

// dial connects to the gateway, whatever the address is.
func (r *rig) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	to := r.plain
	if _, port, _ := net.SplitHostPort(addr); port == "443" {
		to = r.secure
	}
	return new(net.Dialer).DialContext(ctx, "tcp", to)
}

// transport is net/http's client towards the gateway.
func (r *rig) transport(two bool) *http.Transport {
	t := &http.Transport{DialContext: r.dial, TLSClientConfig: r.ca.client(), MaxIdleConnsPerHost: 64, Protocols: new(http.Protocols)}
	t.Protocols.SetHTTP1(!two)
	t.Protocols.SetHTTP2(two)
	t.Protocols.SetUnencryptedHTTP2(two)
	r.t.Cleanup(t.CloseIdleConnections)
	return t
}

// newServer makes a server that speaks HTTP/1 and HTTP/2 without TLS.
func newServer(h http.Handler) *http.Server {
	s := &http.Server{Handler: h, ErrorLog: log.New(io.Discard, "", 0), Protocols: new(http.Protocols), MaxHeaderBytes: 1 << 20}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetHTTP2(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	return s
}

// serve runs a server for the test and gives its address.
func serve(t testing.TB, h http.Handler) string {
	t.Helper()
	return serveOn(t, newServer(h), nil)
}

func serveOn(t testing.TB, s *http.Server, c *tls.Config) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if c != nil {
			s.TLSConfig = c
			_ = s.ServeTLS(l, "", "")
		} else {
			_ = s.Serve(l)
		}
	}()
	t.Cleanup(func() { _ = s.Close(); <-done })
	return l.Addr().String()
}

// listen runs a server of bytes: each connection is the handler's.
func listen(t testing.TB, handle func(c net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	ended := false
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			if ended {
				c.Close()
			}
			open[c] = true
			mu.Unlock()
			wg.Go(func() {
				handle(c)
				c.Close()
				mu.Lock()
				delete(open, c)
				mu.Unlock()
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		ended = true
		for c := range open {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return l.Addr().String()
}

// same asks and compares the body of the answer, which must be a 200.
func same(tr http.RoundTripper, req *http.Request, want string) error {
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return err
	}
	b, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil || resp.StatusCode != 200 || string(b) != want {
		return fmt.Errorf("%s %s: want %q, got %d %q %v", req.Method, req.URL, want, resp.StatusCode, short(string(b)), err)
	}
	return nil
}
