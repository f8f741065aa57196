//go:build linux

package e2e

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"testing"
)

// site is a network within 127.0.0.0/8 that nobody else uses: the lower half
// is for ClusterIPs, the rest for servers and what they find. So addresses and
// ports can be written down, and no test needs a free port from the kernel,
// which another could take before it is used.
type site struct {
	n    int
	lock net.Listener
}

// claimSite finds a free one. Who holds the socket has the network.
func claimSite() (*site, error) {
	var last error
	for range 200 {
		n := 100 + rand.IntN(150)
		l, err := net.Listen("tcp", fmt.Sprintf("127.%d.255.254:65000", n))
		if err == nil {
			return &site{n, l}, nil
		}
		last = err
	}
	return nil, fmt.Errorf("e2e: no network 127.N.0.0/16 is free: %w", last)
}

func newSite(t testing.TB) *site {
	t.Helper()
	s, err := claimSite()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.release)
	return s
}

func (s *site) release() { _ = s.lock.Close() }

// cidr is the range for ClusterIPs.
func (s *site) cidr() string { return fmt.Sprintf("127.%d.0.0/17", s.n) }

// ip is an address of the site's upper half.
func (s *site) ip(net, host int) string { return fmt.Sprintf("127.%d.%d.%d", s.n, 128+net, host) }

func (s *site) at(net, host, port int) string { return s.ip(net, host) + ":" + strconv.Itoa(port) }

// contains says whether a ClusterIP is of this site.
func (s *site) contains(ip string) bool {
	a, err := netip.ParseAddr(ip)
	return err == nil && netip.MustParsePrefix(s.cidr()).Contains(a)
}

// needLowPorts skips a test of ports below 1024 where this user may not
// listen on them.
func needLowPorts(t testing.TB) {
	t.Helper()
	l, err := net.Listen("tcp", "127.99.255.254:81")
	if err != nil {
		t.Skipf("ports below 1024 cannot be listened on here (%v): run as root, or sysctl net.ipv4.ip_unprivileged_port_start=80", err)
	}
	_ = l.Close()
}

// machineAddress is an address of this machine that is not a loopback one.
func machineAddress(t testing.TB) string {
	t.Helper()
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() && n.IP.To4() != nil {
			return n.IP.String()
		}
	}
	t.Skip("this machine has no IPv4 address but loopback ones")
	return ""
}
