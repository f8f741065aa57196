package userspace

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/vip"
)

func frontOf(at netip.AddrPort) vip.Front { return vip.Front{Addr: at, Proto: catalog.TCP} }

func TestAffinity(t *testing.T) {
	r := newRig(t)
	at := free(t, "127.96.0.7")
	var all []*backend
	var eps []catalog.Endpoint
	for i := range 5 {
		b := newBackend(t, fmt.Sprint("b", i), "127.0.0.1")
		all, eps = append(all, b), append(eps, b.ep())
		eps[i].Target.Name = b.name
	}
	s := service(at, func(s *catalog.Service) { s.Affinity = time.Hour })
	r.put(s, eps...)
	first := who(t, at)
	mine := slices.IndexFunc(all, func(b *backend) bool { return b.name == first })
	for i := range 20 {
		if got := who(t, at); got != first {
			t.Fatalf("connection %d went to %s, the first to %s", i, got, first)
		}
	}
	if got := newPeer(t, at).who(t); got != first {
		t.Errorf("the service's other port leads to %s, want %s", got, first)
	}
	// Others come and go.
	without := func(i int) []catalog.Endpoint { return slices.Delete(slices.Clone(eps), i, i+1) }
	r.endpoints(s, without((mine+1)%5)...)
	if got := who(t, at); got != first {
		t.Errorf("another endpoint's end moved the session to %s", got)
	}
	// Time passes, with use in between.
	r.later(50 * time.Minute)
	who(t, at)
	r.later(50 * time.Minute)
	if got := who(t, at); got != first {
		t.Errorf("the session ended although it was used: %s", got)
	}
	// Its endpoint goes: the session moves, and stays there.
	r.endpoints(s, without(mine)...)
	second := who(t, at)
	if second == first {
		t.Fatalf("the session stays with an endpoint that is gone")
	}
	r.endpoints(s, eps...)
	if got := who(t, at); got != second {
		t.Errorf("the session went back to %s", got)
	}
	r.later(time.Hour)
	if n := r.d.sessions.len(); n != 0 {
		t.Errorf("%d sessions after the time-out", n)
	}
}

// TestAffinityOfDeadEndpoint: a session does not keep a client on an endpoint
// that does not answer.
func TestAffinityOfDeadEndpoint(t *testing.T) {
	r := newRig(t)
	at := free(t, "127.96.0.7")
	a, b := newBackend(t, "a", "127.0.0.1"), newBackend(t, "b", "127.0.0.1")
	r.put(service(at, func(s *catalog.Service) { s.Affinity = time.Hour }), a.ep(), b.ep())
	other := "b"
	if who(t, at) == "a" {
		a.stop()
	} else {
		b.stop()
		other = "a"
	}
	for range 5 {
		if got := who(t, at); got != other {
			t.Fatalf("got %q, want %q", got, other)
		}
	}
}

func TestSessionsBound(t *testing.T) {
	s := newSessions(3)
	now := time.Unix(0, 0)
	f := &vip.Frontend{Service: catalog.Key{Name: "web"}, Affinity: time.Hour}
	b := vip.Backend{Addr: netip.MustParseAddrPort("10.0.0.1:80")}
	addr := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 1, byte(i)}) }
	for i := range 5 {
		s.remember(f, addr(i), b, now)
		s.remember(f, addr(0), b, now) // always in use
	}
	if s.len() != 3 {
		t.Errorf("%d sessions, want 3", s.len())
	}
	all := []vip.Backend{b}
	if s.find(f, addr(0), all, now) != 0 || s.find(f, addr(4), all, now) != 0 || s.find(f, addr(1), all, now) != -1 {
		t.Error("not the longest unused ones went")
	}
}

func TestNodePortAndExternal(t *testing.T) {
	node := netip.MustParseAddr("127.0.0.9")
	r := newRig(t, func(c *Config) {
		c.NodeAddresses = []netip.Addr{node}
		c.Owned = func(a netip.Addr) bool { return a == netip.MustParseAddr("127.96.9.9") }
	})
	at, np := free(t, "127.96.0.8"), free(t, "127.0.0.9")
	s := service(at, func(s *catalog.Service) {
		s.Type = catalog.NodePort
		s.Ports[0].NodePort = np.Port()
		s.ExternalIPs = []netip.Addr{netip.MustParseAddr("127.96.9.9"), netip.MustParseAddr("127.96.9.10")}
	})
	r.put(s, newBackend(t, "a", "127.0.0.1").ep())
	for _, to := range []netip.AddrPort{at, np, netip.AddrPortFrom(netip.MustParseAddr("127.96.9.9"), at.Port())} {
		if got := who(t, to); got != "a" {
			t.Errorf("%s: %q", to, got)
		}
	}
	for _, to := range []string{"127.0.0.1", "127.96.9.10"} {
		if _, err := dial(netip.AddrPortFrom(netip.MustParseAddr(to), np.Port())); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s: %v, want refused", to, err)
		}
	}
}

func TestPolicyOfClients(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Owned = func(netip.Addr) bool { return true } })
	at := free(t, "127.96.0.8")
	lb := netip.AddrPortFrom(netip.MustParseAddr("127.96.9.11"), at.Port())
	s := service(at, func(s *catalog.Service) {
		s.Type, s.LoadBalancerIPs = catalog.LoadBalancer, []netip.Addr{lb.Addr()}
		s.SourceRanges = []netip.Prefix{netip.MustParsePrefix("127.0.0.77/32")}
	})
	r.put(s, newBackend(t, "a", "127.0.0.1").ep())
	from := func(addr string) error {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(addr)}}
		c, err := dialer.Dial("tcp", lb.String())
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(20 * time.Second))
		_, err = (&client{TCPConn: c.(*net.TCPConn), in: nil}).Write([]byte("x\n"))
		if err == nil {
			_, err = c.Read(make([]byte, 1))
		}
		return err
	}
	if err := from("127.0.0.77"); err != nil {
		t.Errorf("inside the source ranges: %v", err)
	}
	if err := from("127.0.0.78"); err == nil {
		t.Error("outside the source ranges: answered")
	}

	f := &vip.Frontend{LocalOnly: true}
	for client, want := range map[string]bool{"127.0.0.1": false, "127.96.9.11": false, "::1": false, "192.0.2.7": true} {
		if got := r.d.outside(netip.MustParseAddr(client), lb.Addr()); got != want {
			t.Errorf("outside(%s) = %v, want %v", client, got, want)
		}
	}
	if all, random := newRoute(f, nil).table(true); len(all) != 0 || !random.Empty() {
		t.Error("externalTrafficPolicy Local without a local endpoint has a way out")
	}
}

// TestLoop: an endpoint that is a virtual IP itself is passed over.
func TestLoop(t *testing.T) {
	r := newRig(t)
	at, at2 := free(t, "127.96.0.8"), free(t, "127.96.0.9")
	b := newBackend(t, "a", "127.0.0.1")
	s := service(at)
	r.put(s, endpoint(at), endpoint(at2), b.ep())
	r.put(service(at2, func(s *catalog.Service) { s.Name = "other" }), endpoint(at), b.ep())
	for range 20 {
		if who(t, at) != "a" || who(t, at2) != "a" {
			t.Fatal("lost in a loop")
		}
	}
	if got := r.d.Reach(s.Key, "tcp", catalog.TCP); !slices.Equal(got, []string{b.at.String()}) {
		t.Errorf("Reach = %v", got)
	}
	r.endpoints(s, endpoint(at))
	if c, err := dial(at); err == nil {
		defer c.Close()
		if _, err := c.ask("x"); err == nil {
			t.Error("nothing but a loop, and an answer")
		}
	}
	if ev := r.told(); !slices.ContainsFunc(ev, func(e string) bool { return strings.HasPrefix(e, "web EndpointLoop: ") }) {
		t.Errorf("events %v", ev)
	}
}

// TestPortInUse: told once, everything else works, and it is served as soon as
// the other program lets go.
func TestPortInUse(t *testing.T) {
	r := newRig(t)
	at, fine := free(t, "127.96.0.8"), free(t, "127.96.0.9")
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b := newBackend(t, "a", "127.0.0.1")
	r.put(service(at), b.ep())
	r.put(service(fine, func(s *catalog.Service) { s.Name = "fine" }), b.ep())
	if got := who(t, fine); got != "a" {
		t.Errorf("the other service: %q", got)
	}
	if got := newPeer(t, at).who(t); got != "a" {
		t.Errorf("the other protocol: %q", got)
	}
	for range 5 {
		r.later(retryMost)
	}
	ev := r.told()
	if len(ev) != 1 || !strings.HasPrefix(ev[0], "web CannotListen: ") || !strings.Contains(ev[0], at.String()) {
		t.Errorf("events %q, want one about %s", ev, at)
	}
	l.Close()
	r.later(retryMost)
	if got := who(t, at); got != "a" {
		t.Errorf("after the other program ended: %q", got)
	}
}

func TestExplain(t *testing.T) {
	at := spot{netip.MustParseAddrPort("127.96.0.5:80"), catalog.TCP}
	for err, want := range map[error]string{
		syscall.EACCES:        "sysctl net.ipv4.ip_unprivileged_port_start=80",
		syscall.EADDRINUSE:    "ss -ltnp 'sport = :80'",
		syscall.EADDRNOTAVAIL: "--service-cidr",
		syscall.EMFILE:        "ulimit -n",
		errProtocol:           "TCP and UDP only",
		errTaken:              "another service",
		syscall.EINVAL:        "invalid argument",
	} {
		got := explain(fmt.Errorf("bind: %w", err), at)
		if !strings.Contains(got, want) || !strings.Contains(got, "127.96.0.5:80/TCP") {
			t.Errorf("%v: %q does not say %q", err, got, want)
		}
	}
}

func TestConflictsAreTold(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Owned = func(netip.Addr) bool { return true } })
	at := free(t, "127.96.0.8")
	b := newBackend(t, "a", "127.0.0.1")
	s := service(at)
	r.put(s, b.ep())
	thief := service(netip.AddrPortFrom(netip.MustParseAddr("127.96.0.99"), at.Port()), func(s *catalog.Service) {
		s.Name, s.ExternalIPs = "thief", []netip.Addr{at.Addr()}
	})
	r.put(thief)
	r.endpoints(s, b.ep(), dead(t, "127.0.0.1"))
	ev := slices.DeleteFunc(r.told(), func(e string) bool { return !strings.HasPrefix(e, "thief VirtualIPConflict: ") })
	if len(ev) != 2 { // TCP and UDP
		t.Errorf("events %q", r.told())
	}
	if got := who(t, at); got != "a" {
		t.Errorf("the address leads to %q", got)
	}
}

// TestSCTP is told and harms nobody.
func TestSCTP(t *testing.T) {
	r := newRig(t)
	at := free(t, "127.96.0.8")
	r.put(service(at, func(s *catalog.Service) {
		s.Ports = append(s.Ports, catalog.Port{Name: "sctp", Protocol: catalog.SCTP, Port: at.Port()})
	}), newBackend(t, "a", "127.0.0.1").ep())
	if got := who(t, at); got != "a" {
		t.Errorf("got %q", got)
	}
	if ev := r.told(); len(ev) != 1 || !strings.HasPrefix(ev[0], "web "+ReasonUnsupported) {
		t.Errorf("events %q", ev)
	}
}
