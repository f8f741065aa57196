package userspace

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/vip/viptest"
)

// rig is a proxy with a catalog in front of it. Changes are in effect when the
// call that makes them returns.
type rig struct {
	t    testing.TB
	d    *Driver
	c    *catalog.Catalog
	sub  *catalog.Subscription
	stop func()

	offset atomic.Int64 // added to the clock, which stands but for it

	mu     sync.Mutex
	events []string
}

func newRig(t testing.TB, change ...func(*Config)) *rig {
	t.Helper()
	r := &rig{t: t, c: catalog.New(nil)}
	r.sub = r.c.Subscribe()
	began := time.Now()
	cfg := Config{
		Node:  "a",
		Now:   func() time.Time { return began.Add(time.Duration(r.offset.Load())) },
		Drain: -1,
		Events: func(k catalog.Key, reason, message string) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.events = append(r.events, k.Name+" "+reason+": "+message)
		},
	}
	for _, f := range change {
		f(&cfg)
	}
	var err error
	if r.d, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.d.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		r.sub.Close()
		noGoroutines(t)
	})
	t.Cleanup(r.stop)
	return r
}

// noGoroutines finds goroutines of this package that outlived Run.
func noGoroutines(t testing.TB) {
	t.Helper()
	var left []string
	// A goroutine that has done its work may still be on its way out.
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); <-time.After(time.Millisecond) {
		buf := make([]byte, 1<<20)
		left = left[:0]
		for g := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			if strings.Contains(g, "vip/userspace.(*") && !strings.Contains(g, "_test.go") {
				left = append(left, g)
			}
		}
		if len(left) == 0 {
			return
		}
	}
	t.Errorf("%d goroutines left:\n%s", len(left), strings.Join(left, "\n\n"))
}

func (r *rig) apply(f func(*catalog.Txn)) {
	r.t.Helper()
	r.c.Update(f)
	if err := r.d.Apply(context.Background(), r.sub.TryNext()); err != nil {
		r.t.Fatal(err)
	}
}

// put makes a service with the endpoints given.
func (r *rig) put(s *catalog.Service, eps ...catalog.Endpoint) {
	r.t.Helper()
	r.apply(func(t *catalog.Txn) {
		t.PutService(s)
		t.PutEndpoints(s.Key, eps)
	})
}

func (r *rig) endpoints(s *catalog.Service, eps ...catalog.Endpoint) {
	r.t.Helper()
	r.apply(func(t *catalog.Txn) { t.PutEndpoints(s.Key, eps) })
}

// later moves the clock and lets time do its work.
func (r *rig) later(d time.Duration) {
	r.d.tick(r.d.cfg.Now().Add(d))
	r.offset.Add(int64(d))
}

func (r *rig) told() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

var ports viptest.Ports

// free finds a port that nobody has on an address, for TCP and UDP. In a network
// namespace of our own nobody else will have it either.
func free(t testing.TB, addr string) netip.AddrPort {
	t.Helper()
	for range 50 {
		l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(addr), ports.Next())))
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			t.Skipf("no socket on %s here: %v", addr, err)
		}
		at := l.Addr().(*net.TCPAddr).AddrPort()
		l.Close()
		if u, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at)); err == nil {
			u.Close()
			return at
		}
	}
	t.Fatal("no free port found")
	return netip.AddrPort{}
}

// service makes a service "web" with one TCP port and one UDP port at an
// address.
func service(at netip.AddrPort, change ...func(*catalog.Service)) *catalog.Service {
	s := &catalog.Service{
		Key:        catalog.Key{Namespace: "default", Name: "web"},
		Type:       catalog.ClusterIP,
		ClusterIPs: []netip.Addr{at.Addr()},
		Ports: []catalog.Port{
			{Name: "tcp", Protocol: catalog.TCP, Port: at.Port()},
			{Name: "udp", Protocol: catalog.UDP, Port: at.Port()},
		},
	}
	for _, f := range change {
		f(s)
	}
	return s
}

// endpoint makes a ready endpoint for both ports of service.
func endpoint(at netip.AddrPort) catalog.Endpoint {
	return catalog.Endpoint{
		Addr: at.Addr(), Ready: true, Serving: true, Weight: 100, Node: "a",
		Ports: []catalog.EndpointPort{
			{Name: "tcp", Protocol: catalog.TCP, Port: at.Port()},
			{Name: "udp", Protocol: catalog.UDP, Port: at.Port()},
		},
	}
}

// backend answers each line, and each datagram, with its name and what it got.
type backend struct {
	name string
	at   netip.AddrPort
	tcp  *net.TCPListener
	udp  *net.UDPConn
	wg   sync.WaitGroup
	once sync.Once
}

func newBackend(t testing.TB, name, addr string) *backend {
	t.Helper()
	b := &backend{name: name}
	for b.tcp == nil || b.udp == nil { // somebody may have come first
		b.at = free(t, addr)
		var err error
		if b.tcp, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(b.at)); err != nil {
			continue
		}
		if b.udp, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(b.at)); err != nil {
			b.tcp.Close()
		}
	}
	b.wg.Go(func() {
		for {
			c, err := b.tcp.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil { // no descriptor left, for now
				runtime.Gosched()
				continue
			}
			b.wg.Go(func() {
				defer c.Close()
				lines := bufio.NewScanner(c)
				for lines.Scan() {
					if _, err := io.WriteString(c, b.name+" "+lines.Text()+"\n"); err != nil {
						return
					}
				}
				io.WriteString(c, "end\n") // only a half-closed client sees it
			})
		}
	})
	b.wg.Go(func() {
		buf := make([]byte, maxDatagram)
		for {
			n, from, err := b.udp.ReadFromUDPAddrPort(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				answer := b.name + " " + string(buf[:n])
				if n > 1000 {
					answer = string(buf[:n]) // whole, to see what fits
				}
				b.udp.WriteToUDPAddrPort([]byte(answer), from)
			}
		}
	})
	t.Cleanup(b.stop)
	return b
}

func (b *backend) ep() catalog.Endpoint { return endpoint(b.at) }

// stop takes no more clients; connections there are end with their clients.
func (b *backend) stop() {
	b.once.Do(func() {
		b.tcp.Close()
		b.udp.Close()
	})
}

// dead is an endpoint where nobody listens.
func dead(t testing.TB, addr string) catalog.Endpoint { return endpoint(free(t, addr)) }

// client is a connection that speaks lines.
type client struct {
	*net.TCPConn
	in *bufio.Reader
}

func dial(at netip.AddrPort) (*client, error) {
	c, err := net.DialTimeout("tcp", at.String(), 60*time.Second)
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Now().Add(60 * time.Second)) // a hang fails instead of hanging
	return &client{c.(*net.TCPConn), bufio.NewReader(c)}, nil
}

func (c *client) ask(q string) (string, error) {
	if _, err := io.WriteString(c, q+"\n"); err != nil {
		return "", err
	}
	s, err := c.in.ReadString('\n')
	return strings.TrimSuffix(s, "\n"), err
}

// who gives the name of the backend that a new connection reaches.
func who(t testing.TB, at netip.AddrPort) string {
	t.Helper()
	c, err := dial(at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := c.ask("x")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(s, " x")
}

// networks runs a test with each kind of network that this system has.
func networks(t *testing.T, f func(t *testing.T, net func(*Config))) {
	t.Run("native", func(t *testing.T) { f(t, func(*Config) {}) })
	t.Run("portable", func(t *testing.T) { f(t, func(c *Config) { c.net = newPortable() }) })
}
