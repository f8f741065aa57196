package ebpf

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	cilium "github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"

	"github.com/fingerpost/fingerpost/catalog"
)

// rig is a driver with a catalog, and servers on 127.0.0.0/8 and ::1.
type rig struct {
	t   testing.TB
	d   *Driver
	c   *catalog.Catalog
	sub *catalog.Subscription
	cfg Config

	stop func() // the driver of now

	mu     sync.Mutex
	events []string
}

func newRig(t testing.TB, change func(*Config)) *rig {
	t.Helper()
	r := &rig{t: t, c: catalog.New(nil)}
	r.cfg = Config{
		CgroupPath: needKernel(t), Node: "here", MaxSlots: 1 << 12, MaxFrontends: 1 << 12,
		NodeAddresses: []netip.Addr{netip.MustParseAddr("127.77.0.1")},
		Log:           slog.New(slog.NewTextHandler(t.Output(), nil)),
		Events: func(k catalog.Key, reason, message string) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.events = append(r.events, k.Name+" "+reason)
		},
	}
	if change != nil {
		change(&r.cfg)
	}
	r.c.Update(func(tx *catalog.Txn) { tx.SetFreshness(catalog.Freshness{Synced: true}) })
	r.start()
	return r
}

// start makes the driver and runs it until the test ends or stop is called.
func (r *rig) start() {
	r.t.Helper()
	d, err := New(r.cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	r.d, r.sub = d, r.c.Subscribe()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	var once sync.Once
	r.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				r.t.Error(err)
			}
			r.sub.Close()
		})
	}
	r.t.Cleanup(r.stop)
}

// do changes the catalog and has the driver follow.
func (r *rig) do(f func(*catalog.Txn)) {
	r.t.Helper()
	r.c.Update(f)
	if err := r.d.Apply(context.Background(), r.sub.TryNext()); err != nil {
		r.t.Fatal(err)
	}
}

var web = catalog.Key{Namespace: "default", Name: "web"}

// service has TCP and UDP on port 80 and on node port 30080.
func service(ips ...string) *catalog.Service {
	s := &catalog.Service{Key: web, Type: catalog.NodePort, Ports: []catalog.Port{
		{Name: "tcp", Protocol: catalog.TCP, Port: 80, NodePort: 30080},
		{Name: "udp", Protocol: catalog.UDP, Port: 80, NodePort: 30080},
	}}
	for _, ip := range ips {
		s.ClusterIPs = append(s.ClusterIPs, netip.MustParseAddr(ip))
	}
	return s
}

func endpoints(addrs ...netip.AddrPort) (out []catalog.Endpoint) {
	for _, a := range addrs {
		out = append(out, catalog.Endpoint{
			Addr: a.Addr(), Ready: true, Serving: true, Weight: 100, Node: "here",
			Ports: []catalog.EndpointPort{
				{Name: "tcp", Protocol: catalog.TCP, Port: a.Port()}, {Name: "udp", Protocol: catalog.UDP, Port: a.Port()},
			},
		})
	}
	return out
}

// put makes service web have the endpoints.
func (r *rig) put(s *catalog.Service, addrs ...netip.AddrPort) {
	r.t.Helper()
	r.do(func(tx *catalog.Txn) { tx.PutService(s); tx.PutEndpoints(s.Key, endpoints(addrs...)) })
}

// serve answers on TCP and UDP at a free port of an address, with its own
// address and port.
func serve(t testing.TB, addr string) netip.AddrPort {
	t.Helper()
	for range 20 {
		l, err := net.Listen("tcp", net.JoinHostPort(addr, "0"))
		if err != nil {
			t.Fatal(err)
		}
		at := l.Addr().(*net.TCPAddr).AddrPort()
		pc, err := net.ListenPacket("udp", at.String())
		if err != nil { // another program has this port for UDP
			_ = l.Close()
			continue
		}
		t.Cleanup(func() { _ = l.Close(); _ = pc.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					buf := make([]byte, 64)
					for {
						if _, err := c.Read(buf); err != nil {
							return
						}
						if _, err := c.Write([]byte(at.String())); err != nil {
							return
						}
					}
				}()
			}
		}()
		go func() {
			buf := make([]byte, 64)
			for {
				_, from, err := pc.ReadFrom(buf)
				if errors.Is(err, net.ErrClosed) {
					return
				}
				if err == nil {
					_, _ = pc.WriteTo([]byte(at.String()), from)
				}
			}
		}()
		return at
	}
	t.Fatal("no port is free for both TCP and UDP")
	return netip.AddrPort{}
}

const patience = 30 * time.Second

// talk sends a word and gives the answer.
func talk(c net.Conn) (string, error) {
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Write([]byte("who")); err != nil {
		return "", err
	}
	buf := make([]byte, 64)
	n, err := c.Read(buf)
	return string(buf[:n]), err
}

// ask connects, and gives who answers.
func ask(network, to string) (string, error) {
	c, err := net.DialTimeout(network, to, patience)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if got := c.RemoteAddr().String(); got != to {
		return "", fmt.Errorf("connected to %s, the socket says %s", to, got)
	}
	return talk(c)
}

// reached asks often and gives all who answer.
func (r *rig) reached(network, to string) map[string]int {
	r.t.Helper()
	out := map[string]int{}
	for range 60 {
		who, err := ask(network, to)
		if err != nil {
			r.t.Fatalf("%s %s: %v", network, to, err)
		}
		out[who]++
	}
	return out
}

// lockForGood gives the goroutine a thread that ends with it.
func lockForGood() { runtime.LockOSThread() }

// loopbackUp brings up lo in the namespace of this thread.
func loopbackUp() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(lo, &netlink.Addr{IPNet: netlink.NewIPNet(elsewhereAddr().AsSlice())}); err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}

// deadline keeps a test from waiting for ever.
func deadline(t testing.TB, c net.Conn) {
	t.Helper()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
}

// counted is a map whose entries can be counted.
type counted[K, V comparable] struct{ m *cilium.Map }

func (c counted[K, V]) entries() int {
	all, err := dump[K, V](c.m)
	if err != nil {
		return -1
	}
	return len(all)
}
