package userspace

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fingerpost/fingerpost/catalog"
)

func TestTCP(t *testing.T) {
	networks(t, func(t *testing.T, net func(*Config)) {
		r := newRig(t, net)
		vip := free(t, "127.96.0.5")
		a, b := newBackend(t, "a", "127.0.0.1"), newBackend(t, "b", "127.0.0.1")
		s := service(vip)
		r.put(s)
		if _, err := dial(vip); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatalf("without endpoints: %v, want connection refused", err)
		}
		r.endpoints(s, a.ep(), b.ep())
		seen := map[string]int{}
		for range 40 {
			seen[who(t, vip)]++
		}
		if seen["a"] == 0 || seen["b"] == 0 || len(seen) != 2 {
			t.Errorf("seen %v, want both endpoints", seen)
		}

		c, err := dial(vip)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		first, err := c.ask("1")
		if err != nil {
			t.Fatal(err)
		}
		other := a
		if strings.HasPrefix(first, "a") {
			other = b
		}
		r.endpoints(s, other.ep())
		for range 20 {
			if got := who(t, vip); got != other.name {
				t.Fatalf("new connection went to %s, which was removed", got)
			}
		}
		if again, err := c.ask("1"); err != nil || again != first {
			t.Errorf("the old connection answers %q, %v; want %q as before", again, err, first)
		}
		r.endpoints(s)
		if _, err := dial(vip); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("after the last endpoint: %v, want connection refused", err)
		}
		r.endpoints(s, a.ep())
		if got := who(t, vip); got != "a" {
			t.Errorf("endpoint back: %q", got)
		}
		r.apply(func(t *catalog.Txn) { t.DeleteService(s.Key) })
		if _, err := dial(vip); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("service deleted: %v, want connection refused", err)
		}
		if _, err := c.ask("1"); err != nil {
			t.Errorf("the old connection broke with the service: %v", err)
		}
	})
}

func TestTCPv6(t *testing.T) {
	r := newRig(t)
	vip := free(t, "::1")
	b := newBackend(t, "six", "::1")
	r.put(service(vip), b.ep())
	if got := who(t, vip); got != "six" {
		t.Errorf("got %q", got)
	}
}

func TestHalfClose(t *testing.T) {
	networks(t, func(t *testing.T, net func(*Config)) {
		r := newRig(t, net)
		vip := free(t, "127.96.0.5")
		r.put(service(vip), newBackend(t, "a", "127.0.0.1").ep())
		c, err := dial(vip)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		io.WriteString(c, "one\ntwo\n")
		c.CloseWrite()
		if got, err := io.ReadAll(c.in); err != nil || string(got) != "a one\na two\nend\n" {
			t.Errorf("after half-close: %q, %v", got, err)
		}
	})
}

// TestBulk passes enough for the copying to change its ways, both directions at
// once.
func TestBulk(t *testing.T) {
	networks(t, func(t *testing.T, netKind func(*Config)) {
		r := newRig(t, netKind)
		vip, at := free(t, "127.96.0.5"), free(t, "127.0.0.1")
		l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		sum := make(chan [32]byte, 1)
		data := bytes.Repeat([]byte("0123456789abcdef"), 1<<19) // 8 MiB
		go func() {
			c, err := l.AcceptTCP()
			if err != nil {
				return
			}
			defer c.Close()
			written := make(chan struct{})
			go func() { defer close(written); c.Write(data); c.CloseWrite() }()
			h := sha256.New()
			io.Copy(h, c)
			sum <- [32]byte(h.Sum(nil))
			<-written // to close it earlier would cut what is being written
		}()
		r.put(service(vip), endpoint(at))
		c, err := dial(vip)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		go func() { c.Write(data); c.CloseWrite() }()
		got, err := io.ReadAll(c)
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("received %d bytes of %d, %v", len(got), len(data), err)
		}
		if <-sum != sha256.Sum256(data) {
			t.Error("sent bytes arrived changed")
		}
	})
}

// TestReset: an endpoint that resets is seen as a reset, not as an end.
func TestReset(t *testing.T) {
	r := newRig(t)
	vip, at := free(t, "127.96.0.5"), free(t, "127.0.0.1")
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if c, err := l.AcceptTCP(); err == nil {
			io.ReadFull(c, make([]byte, 1))
			c.SetLinger(0)
			c.Close()
		}
	}()
	r.put(service(vip), endpoint(at))
	c, err := dial(vip)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Write([]byte("x"))
	if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want a reset", err)
	}
}

// TestDeadEndpoints: endpoints that nobody answers at cost no request.
func TestDeadEndpoints(t *testing.T) {
	r := newRig(t)
	vip := free(t, "127.96.0.5")
	b := newBackend(t, "alive", "127.0.0.1")
	s := service(vip)
	r.put(s, dead(t, "127.0.0.1"), dead(t, "127.0.0.2"), b.ep(), dead(t, "127.0.0.3"))
	for range 50 {
		if got := who(t, vip); got != "alive" {
			t.Fatalf("got %q", got)
		}
	}
	b.stop()
	if c, err := dial(vip); err == nil { // the reset may come that early
		defer c.Close()
		if _, err := c.ask("x"); err == nil {
			t.Error("all dead: got an answer")
		}
	}
}

// TestSuspects: a failed endpoint is avoided for a while, but not when it is
// all there is.
func TestSuspects(t *testing.T) {
	r := newRig(t)
	vip := free(t, "127.96.0.5")
	gone := dead(t, "127.0.0.1")
	s := service(vip)
	r.put(s, newBackend(t, "alive", "127.0.0.1").ep(), gone)
	at := netip.AddrPortFrom(gone.Addr, gone.Ports[0].Port)
	r.d.suspects.add(catalog.TCP, at, r.d.cfg.Now())
	route := r.d.byFront[frontOf(vip)][0].route.Load()
	for range 100 {
		if b, ok := r.d.pick(route, netip.MustParseAddr("127.0.0.1"), false, nil); !ok || b.Addr == at {
			t.Fatal("picked an endpoint that failed a moment ago")
		}
	}
	r.endpoints(s, gone)
	route = r.d.byFront[frontOf(vip)][0].route.Load()
	if b, ok := r.d.pick(route, netip.MustParseAddr("127.0.0.1"), false, nil); !ok || b.Addr != at {
		t.Error("did not fall back to the only one")
	}
	alive := newBackend(t, "alive too", "127.0.0.1").ep()
	r.endpoints(s, alive)
	r.endpoints(s, alive, gone) // taken out and put in again: somebody looked at it
	if r.d.suspects.has(catalog.TCP, at, r.d.cfg.Now) {
		t.Error("suspected although it came back")
	}
	r.d.suspects.add(catalog.TCP, at, r.d.cfg.Now())
	r.later(suspicion)
	if r.d.suspects.has(catalog.TCP, at, r.d.cfg.Now) {
		t.Error("suspected for ever")
	}
}

// TestHoldsRefusingAddress: an address without endpoints refuses, and nobody
// else gets it.
func TestHoldsRefusingAddress(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux can keep an address and refuse")
	}
	r := newRig(t)
	vip := free(t, "127.96.0.5")
	s := service(vip)
	check := func(when string) {
		t.Helper()
		for _, addr := range []netip.Addr{vip.Addr(), netip.IPv4Unspecified()} {
			at := netip.AddrPortFrom(addr, vip.Port())
			if l, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(at)); err == nil {
				l.Close()
				t.Errorf("%s: somebody else could listen on %s/TCP", when, at)
			}
			if l, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at)); err == nil {
				l.Close()
				t.Errorf("%s: somebody else could listen on %s/UDP", when, at)
			}
		}
	}
	r.put(s)
	check("from the start")
	r.endpoints(s, newBackend(t, "a", "127.0.0.1").ep())
	check("with an endpoint")
	r.endpoints(s)
	check("without endpoints again")
	if _, err := dial(vip); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("got %v, want connection refused", err)
	}
}

// TestRestart: a new proxy gets the addresses of the old one at once, with
// connections in TIME_WAIT and connections still open.
func TestRestart(t *testing.T) {
	vip := free(t, "127.96.0.5")
	b := newBackend(t, "a", "127.0.0.1")
	for range 3 {
		r := newRig(t)
		r.put(service(vip), b.ep())
		if ev := r.told(); len(ev) != 0 {
			t.Fatalf("could not listen: %v", ev)
		}
		who(t, vip)
		c, err := dial(vip)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.ask("x")
		r.stop()
		if _, err := c.ask("x"); err == nil {
			t.Error("the connection outlived the proxy")
		}
	}
}

// TestDrain: a connection may end by itself after Run was told to stop.
func TestDrain(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Drain = time.Minute })
	vip := free(t, "127.96.0.5")
	r.put(service(vip), newBackend(t, "a", "127.0.0.1").ep())
	c, err := dial(vip)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.ask("before"); err != nil {
		t.Fatal(err)
	}
	stopped := make(chan struct{})
	go func() { r.stop(); close(stopped) }()
	for { // until nobody new is let in
		n, err := dial(vip)
		if errors.Is(err, syscall.ECONNREFUSED) {
			break
		}
		if err == nil {
			n.Close()
		}
		runtime.Gosched()
	}
	if got, err := c.ask("after"); err != nil || got != "a after" {
		t.Errorf("while draining: %q, %v", got, err)
	}
	c.Close()
	<-stopped
	if err := r.d.Apply(t.Context(), catalog.Batch{}); err == nil {
		t.Error("Apply after the end gives no error")
	}
}

func TestMaxConnections(t *testing.T) {
	r := newRig(t, func(c *Config) { c.MaxConnections = 1 })
	vip := free(t, "127.96.0.5")
	r.put(service(vip), newBackend(t, "a", "127.0.0.1").ep())
	c, err := dial(vip)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.ask("x"); err != nil {
		t.Fatal(err)
	}
	n, err := dial(vip)
	if err == nil {
		defer n.Close()
		if _, err := n.ask("x"); err == nil {
			t.Error("one connection too many")
		}
	}
	if _, err := c.ask("x"); err != nil {
		t.Errorf("the first suffered: %v", err)
	}
}
