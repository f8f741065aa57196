package userspace

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fingerpost/fingerpost/catalog"
)

// peer is a UDP client. It is not connected, so that it sees who answers.
type peer struct {
	*net.UDPConn
	to netip.AddrPort
}

func newPeer(t testing.TB, to netip.AddrPort) *peer {
	t.Helper()
	local := "127.0.0.1:0"
	if to.Addr().Is6() {
		local = "[::1]:0"
	}
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(local)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second)) // a hang fails instead of hanging
	return &peer{c, to}
}

func (p *peer) ask(q string) (string, error) {
	if _, err := p.WriteToUDPAddrPort([]byte(q), p.to); err != nil {
		return "", err
	}
	buf := make([]byte, maxDatagram)
	n, from, err := p.ReadFromUDPAddrPort(buf)
	if err == nil && from != p.to {
		err = fmt.Errorf("the answer comes from %s, not from %s", from, p.to)
	}
	return string(buf[:n]), err
}

func (p *peer) who(t testing.TB) string {
	t.Helper()
	s, err := p.ask("x")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(s, " x")
}

func TestUDP(t *testing.T) {
	networks(t, func(t *testing.T, net func(*Config)) {
		r := newRig(t, net)
		vip := free(t, "127.96.0.6")
		a, b := newBackend(t, "a", "127.0.0.1"), newBackend(t, "b", "127.0.0.1")
		s := service(vip)
		r.put(s, a.ep(), b.ep())
		seen := map[string]int{}
		for range 40 {
			p := newPeer(t, vip)
			first := p.who(t)
			seen[first]++
			if again := p.who(t); again != first {
				t.Fatalf("one flow went to %s, then to %s", first, again)
			}
		}
		if seen["a"] == 0 || seen["b"] == 0 {
			t.Errorf("seen %v, want both endpoints", seen)
		}

		p := newPeer(t, vip)
		other := a
		if p.who(t) == "a" {
			other = b
		}
		r.endpoints(s, other.ep())
		if got := p.who(t); got != other.name {
			t.Errorf("after its endpoint was removed the flow goes to %q, want %q", got, other.name)
		}
		r.endpoints(s)
		if n := r.d.flows.len(); n != 0 {
			t.Errorf("%d flows left without endpoints", n)
		}
		r.endpoints(s, a.ep())
		if got := p.who(t); got != "a" {
			t.Errorf("endpoint back: %q", got)
		}
	})
}

func TestUDPRefused(t *testing.T) {
	networks(t, func(t *testing.T, netKind func(*Config)) {
		r := newRig(t, netKind)
		vip := free(t, "127.96.0.6")
		s := service(vip)
		b := newBackend(t, "a", "127.0.0.1")
		ask := func() error {
			c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(vip))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(20 * time.Second))
			c.Write([]byte("x"))
			_, err = c.Read(make([]byte, 10))
			return err
		}
		r.put(s)
		if err := ask(); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("without endpoints: %v, want refused", err)
		}
		r.endpoints(s, b.ep())
		if err := ask(); err != nil {
			t.Errorf("with an endpoint: %v", err)
		}
		r.endpoints(s)
		if err := ask(); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("without endpoints again: %v, want refused", err)
		}
	})
}

func TestUDPv6(t *testing.T) {
	r := newRig(t)
	vip := free(t, "::1")
	r.put(service(vip), newBackend(t, "six", "::1").ep())
	if got := newPeer(t, vip).who(t); got != "six" {
		t.Errorf("got %q", got)
	}
}

func TestUDPLargest(t *testing.T) {
	networks(t, func(t *testing.T, net func(*Config)) {
		r := newRig(t, net)
		vip := free(t, "127.96.0.6")
		r.put(service(vip), newBackend(t, "a", "127.0.0.1").ep())
		p := newPeer(t, vip)
		for _, n := range []int{0, 1, 1472, 9000, 65507} {
			q := string(bytes.Repeat([]byte("q"), n))
			want := q
			if n <= 1000 {
				want = "a " + q
			}
			if got, err := p.ask(q); err != nil || got != want {
				t.Errorf("%d bytes: got %d bytes, %v", n, len(got), err)
			}
		}
	})
}

// TestUDPDeadEndpoints: "port unreachable" sends the same datagram to another
// endpoint; the client need not ask twice.
func TestUDPDeadEndpoints(t *testing.T) {
	networks(t, func(t *testing.T, net func(*Config)) {
		if runtime.GOOS != "linux" {
			t.Skip("other systems do not report it reliably")
		}
		r := newRig(t, net)
		vip := free(t, "127.96.0.6")
		b := newBackend(t, "alive", "127.0.0.1")
		s := service(vip)
		r.put(s, dead(t, "127.0.0.1"), dead(t, "127.0.0.2"), b.ep())
		for i := range 20 {
			if got := newPeer(t, vip).who(t); got != "alive" {
				t.Fatalf("flow %d: %q", i, got)
			}
			r.later(suspicion) // the dead ones are tried again
		}
	})
}

// TestUDPEndpointDies: a flow that was answered moves on after its endpoint
// died, losing at most the datagram that found out.
func TestUDPEndpointDies(t *testing.T) {
	r := newRig(t)
	vip := free(t, "127.96.0.6")
	a, b := newBackend(t, "a", "127.0.0.1"), newBackend(t, "b", "127.0.0.1")
	r.put(service(vip), a.ep(), b.ep())
	p := newPeer(t, vip)
	dying, other := a, "b"
	if p.who(t) == "b" {
		dying, other = b, "a"
	}
	dying.stop()
	p.WriteToUDPAddrPort([]byte("lost"), vip)
	for r.d.flows.len() > 0 { // until the refusal has been noticed
		runtime.Gosched()
	}
	if got := p.who(t); got != other {
		t.Errorf("got %q, want %q", got, other)
	}
}

func TestUDPIdle(t *testing.T) {
	r := newRig(t)
	vip := free(t, "127.96.0.6")
	r.put(service(vip), newBackend(t, "a", "127.0.0.1").ep())
	p := newPeer(t, vip)
	p.who(t)
	r.later(20 * time.Second)
	p.who(t)
	r.later(20 * time.Second)
	if n := r.d.flows.len(); n != 1 {
		t.Fatalf("%d flows, want the one that was used meanwhile", n)
	}
	r.later(11 * time.Second)
	if n := r.d.flows.len(); n != 0 {
		t.Errorf("%d flows after the idle time", n)
	}
	if got := p.who(t); got != "a" {
		t.Errorf("got %q", got)
	}
}

func TestMaxFlows(t *testing.T) {
	r := newRig(t, func(c *Config) { c.MaxFlows = 8 })
	vip := free(t, "127.96.0.6")
	r.put(service(vip), newBackend(t, "a", "127.0.0.1").ep())
	for range 50 {
		newPeer(t, vip).who(t)
		if n := r.d.flows.len(); n > 8 {
			t.Fatalf("%d flows, at most 8 were allowed", n)
		}
	}
}

func TestUDPServiceDeleted(t *testing.T) {
	r := newRig(t)
	vip := free(t, "127.96.0.6")
	s := service(vip)
	r.put(s, newBackend(t, "a", "127.0.0.1").ep())
	newPeer(t, vip).who(t)
	r.apply(func(t *catalog.Txn) { t.DeleteService(s.Key) })
	if n := r.d.flows.len(); n != 0 {
		t.Errorf("%d flows of a service that is gone", n)
	}
}
