package ebpf

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"github.com/fingerpost/fingerpost/catalog"
)

// Every kind of socket, at every kind of address: who answers, and what the
// socket says of its peer.
func TestSockets(t *testing.T) {
	r := newRig(t, func(c *Config) {
		c.NodeAddresses = append(c.NodeAddresses, netip.MustParseAddr("::1"))
	})
	s := service("10.96.0.10", "fd96::10")
	s.ExternalIPs = []netip.Addr{netip.MustParseAddr("203.0.113.10"), netip.MustParseAddr("2001:db8:77::10")}
	s.LoadBalancerIPs = []netip.Addr{netip.MustParseAddr("203.0.113.11")}
	four, six := serve(t, "127.0.0.1"), serve(t, "::1")
	r.put(s, four, six)
	for _, c := range []struct {
		to   string
		want netip.AddrPort
	}{
		{"10.96.0.10:80", four}, {"203.0.113.10:80", four}, {"203.0.113.11:80", four},
		{"127.77.0.1:30080", four}, {"127.0.0.1:30080", four},
		{"[fd96::10]:80", six}, {"[2001:db8:77::10]:80", six}, {"[::1]:30080", six},
	} {
		t.Run(c.to, func(t *testing.T) {
			to := netip.MustParseAddrPort(c.to)
			for _, network := range []string{"tcp", "udp"} {
				if got, err := ask(network, c.to); err != nil || got != c.want.String() {
					t.Errorf("%s: %q, %v, want %s", network, got, err, c.want)
				}
			}
			for _, local := range []string{"0.0.0.0:0", "[::]:0"} {
				unconnected(t, local, to, c.want)
			}
			mapped(t, to, c.want)
		})
	}
	if who, err := ask("tcp", four.String()); err != nil || who != four.String() {
		t.Errorf("an endpoint's own address: %q, %v", who, err)
	}
}

// unconnected sends from a socket without a peer. In Go "[::]:0" is a socket of
// both families.
func unconnected(t *testing.T, local string, to, want netip.AddrPort) {
	t.Helper()
	network := "udp"
	if strings.HasPrefix(local, "0") {
		if network = "udp4"; !to.Addr().Is4() {
			return
		}
	}
	pc, err := net.ListenPacket(network, local)
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	c := pc.(*net.UDPConn)
	deadline(t, c)
	for range 3 {
		if _, err := c.WriteToUDPAddrPort([]byte("who"), to); err != nil {
			t.Fatalf("from %s: %v", local, err)
		}
		buf := make([]byte, 64)
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if err != nil || string(buf[:n]) != want.String() {
			t.Fatalf("from %s: %q, %v, want %s", local, buf[:n], err, want)
		}
		if from := netip.AddrPortFrom(from.Addr().Unmap(), from.Port()); from != to {
			t.Errorf("from %s: the datagram came from %s, want %s", local, from, to)
		}
	}
}

// mapped connects an IPv6 socket, to an IPv4 address if that is one, as Java
// does, and asks it for its peer.
func mapped(t *testing.T, to, want netip.AddrPort) {
	t.Helper()
	for _, kind := range []int{syscall.SOCK_STREAM, syscall.SOCK_DGRAM} {
		fd, err := syscall.Socket(syscall.AF_INET6, kind|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer syscall.Close(fd)
		_ = syscall.SetsockoptInt(fd, syscall.IPPROTO_IPV6, syscall.IPV6_V6ONLY, 0)
		_ = syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &syscall.Timeval{Sec: 30})
		if err := syscall.Connect(fd, &syscall.SockaddrInet6{Addr: to.Addr().As16(), Port: int(to.Port())}); err != nil {
			t.Errorf("IPv6 socket: connect: %v", err)
			continue
		}
		peer, err := syscall.Getpeername(fd)
		if p, ok := peer.(*syscall.SockaddrInet6); !ok || p.Addr != to.Addr().As16() || p.Port != int(to.Port()) {
			t.Errorf("IPv6 socket: the peer is %v, %v", peer, err)
		}
		if _, err := syscall.Write(fd, []byte("who")); err != nil {
			t.Error(err)
		}
		buf := make([]byte, 64)
		n, from, err := syscall.Recvfrom(fd, buf, 0)
		if err != nil || string(buf[:n]) != want.String() {
			t.Errorf("IPv6 socket: %q, %v", buf[:max(n, 0)], err)
		}
		if f, ok := from.(*syscall.SockaddrInet6); kind == syscall.SOCK_DGRAM && (!ok || f.Addr != to.Addr().As16()) {
			t.Errorf("IPv6 socket: the datagram came from %v", from)
		}
	}
}

func TestRefused(t *testing.T) {
	r := newRig(t, nil)
	four := serve(t, "127.0.0.1")
	r.put(service("10.96.0.10", "fd96::10"))
	refused := func(network, to string) {
		t.Helper()
		if _, err := ask(network, to); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s %s: %v, want refused", network, to, err)
		}
	}
	for _, to := range []string{"10.96.0.10:80", "[fd96::10]:80", "127.77.0.1:30080", "10.96.0.10:81"} {
		refused("tcp", to)
		refused("udp", to)
	}
	pc, err := net.ListenPacket("udp", "[::]:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	for _, to := range []string{"10.96.0.10:80", "[fd96::10]:80"} {
		if _, err := pc.WriteTo([]byte("who"), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to))); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("sendto %s: %v, want refused", to, err)
		}
	}
	r.put(service("10.96.0.10", "fd96::10"), four)
	if who, err := ask("tcp", "10.96.0.10:80"); err != nil || who != four.String() {
		t.Errorf("with an endpoint: %q, %v", who, err)
	}
	refused("tcp", "10.96.0.10:81")
	r.do(func(tx *catalog.Txn) { tx.DeleteService(web) })
	if n := len(r.d.addrs); n != 3 { // the node's
		t.Errorf("%d addresses are left", n)
	}
	for _, m := range []interface{ entries() int }{counted[svcKey, svcValue]{r.d.maps.svc}, counted[slotKey, slotValue]{r.d.maps.slot}, counted[pickKey, slotValue]{r.d.maps.pick}} {
		if m.entries() != 0 {
			t.Errorf("%T: %d entries are left", m, m.entries())
		}
	}
}

// What this driver leaves to another is not touched.
func TestLeft(t *testing.T) {
	r := newRig(t, nil)
	four, other := serve(t, "127.0.0.1"), serve(t, "127.0.0.2")
	s := service("10.96.0.10")
	s.Type, s.LoadBalancerIPs = catalog.LoadBalancer, []netip.Addr{other.Addr()}
	s.Ports[0].Port, s.Ports[1].Port = other.Port(), other.Port()
	s.SourceRanges = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	r.put(s, four)
	if who, err := ask("tcp", other.String()); err != nil || who != other.String() {
		t.Errorf("an address with source ranges: %q, %v, want it untouched", who, err)
	}
	s2 := *s
	s2.SourceRanges = nil
	r.put(&s2, four)
	if who, err := ask("tcp", other.String()); err != nil || who != four.String() {
		t.Errorf("without source ranges: %q, %v", who, err)
	}
	r.put(s, four)
	if who, err := ask("tcp", other.String()); err != nil || who != other.String() {
		t.Errorf("with source ranges again: %q, %v", who, err)
	}
}

// TestGuard: who may bind a node port.
func TestGuard(t *testing.T) {
	r := newRig(t, func(c *Config) { c.GuardNodePorts = true })
	s := service("10.96.0.10")
	r.put(s, serve(t, "127.0.0.1"))
	for _, c := range []struct {
		at string
		ok bool
	}{
		{"127.0.0.1:30080", false}, {"127.77.0.1:30080", false}, {"0.0.0.0:30080", false}, {"[::]:30080", false},
		{"127.0.0.1:30081", true}, {"127.0.0.9:30080", true}, {"[::1]:30080", true}, // the service has no IPv6
		{"127.0.0.1:0", true},
	} {
		for _, network := range []string{"tcp", "udp"} {
			err := bind(network, c.at)
			if c.ok && err != nil || !c.ok && !errors.Is(err, syscall.EADDRINUSE) {
				t.Errorf("%s %s: %v, want that it is free: %v", network, c.at, err, c.ok)
			}
		}
	}
	r.do(func(tx *catalog.Txn) { tx.DeleteService(web) })
	if err := bind("tcp", "0.0.0.0:30080"); err != nil {
		t.Error(err)
	}
}

func bind(network, at string) error {
	if network == "udp" {
		pc, err := net.ListenPacket(network, at)
		if err == nil {
			err = pc.Close()
		}
		return err
	}
	l, err := net.Listen(network, at)
	if err == nil {
		err = l.Close()
	}
	return err
}
