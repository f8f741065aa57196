package userspace

import (
	"maps"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/vip"
)

// hits gives the counts of a port of service web.
func (r *rig) hits(port string) map[netip.AddrPort]uint64 {
	r.t.Helper()
	all, ok, err := r.d.Hits()
	if !ok || err != nil {
		r.t.Fatalf("no counts: %v, %v", ok, err)
	}
	out := map[netip.AddrPort]uint64{}
	for _, h := range all {
		if h.Service.Name != "web" || (h.Port == "tcp") != (h.Proto == catalog.TCP) {
			r.t.Errorf("%+v", h)
		}
		if h.Port == port {
			out[h.Backend] += h.Count
		}
	}
	return out
}

// ask sends a datagram until it is answered.
func askUDP(t testing.TB, at netip.AddrPort) {
	t.Helper()
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(at))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); {
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		_, _ = c.Write([]byte("x\n"))
		if _, err = c.Read(make([]byte, 64)); err == nil {
			return
		}
	}
	t.Fatal(err)
}

// TestHits: clients are counted for the endpoint that they got, whichever
// address of the service they came by, and counts survive a change.
func TestHits(t *testing.T) {
	at, np := free(t, "127.96.0.61"), free(t, "127.0.0.61")
	r := newRig(t, func(c *Config) { c.NodeAddresses = []netip.Addr{np.Addr()} })
	one, two := newBackend(t, "one", "127.0.0.1"), newBackend(t, "two", "127.0.0.1")
	s := service(at, func(s *catalog.Service) {
		s.Type, s.Ports[0].NodePort = catalog.NodePort, np.Port()
	})
	r.put(s, one.ep(), dead(t, "127.0.0.1"))
	for range 5 {
		who(t, at)
		who(t, np)
	}
	askUDP(t, at)
	if got, want := r.hits("tcp"), (map[netip.AddrPort]uint64{one.at: 10}); !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	// A datagram may have gone to the other one first: that was its turn, too.
	if got := r.hits("udp"); got[one.at] == 0 {
		t.Errorf("%v", got)
	}
	r.endpoints(s, one.ep(), two.ep())
	if got := r.hits("tcp"); got[one.at] != 10 {
		t.Errorf("after another endpoint came: %v", got)
	}
	r.endpoints(s, two.ep())
	who(t, at)
	if got, want := r.hits("tcp"), (map[netip.AddrPort]uint64{two.at: 1}); !maps.Equal(got, want) {
		t.Errorf("after one left: %v, want %v", got, want)
	}
	r.put(service(at, func(s *catalog.Service) { s.ExternalLocal = true }), two.ep()) // two lists, one count
	who(t, at)
	if got := r.hits("tcp"); got[two.at] != 2 {
		t.Errorf("with policy Local: %v", got)
	}
}

// TestAdmit: whoever is not admitted gets nothing, and costs no endpoint
// anything.
func TestAdmit(t *testing.T) {
	at := free(t, "127.96.0.62")
	var admit atomic.Bool
	var asked atomic.Int64
	r := newRig(t, func(c *Config) {
		c.Admit = func(_ catalog.Protocol, client, to netip.AddrPort) bool {
			if to != at || !client.IsValid() {
				t.Errorf("asked about %s to %s", client, to)
			}
			asked.Add(1)
			return admit.Load()
		}
	})
	b := newBackend(t, "one", "127.0.0.1")
	r.put(service(at), b.ep())
	if c, err := dial(at); err == nil {
		if _, err := c.ask("x"); err == nil {
			t.Error("answered")
		}
		c.Close()
	}
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(at))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	was := asked.Load()
	for asked.Load() == was { // until the datagram has come
		_, _ = c.Write([]byte("x\n"))
		<-time.After(time.Millisecond)
	}
	if n := len(r.hits("tcp")) + len(r.hits("udp")); n != 0 || r.d.flows.len() != 0 {
		t.Errorf("%d hits, %d flows", n, r.d.flows.len())
	}
	admit.Store(true)
	who(t, at)
	askUDP(t, at)
}

// TestNodePortsOnly: what another driver serves is left to it.
func TestNodePortsOnly(t *testing.T) {
	at, np := free(t, "127.96.0.63"), free(t, "127.0.0.63")
	r := newRig(t, func(c *Config) {
		c.NodeAddresses, c.NodePortsOnly = []netip.Addr{np.Addr()}, true
		c.Owned = func(netip.Addr) bool { return true }
	})
	b := newBackend(t, "one", "127.0.0.1")
	r.put(service(at, func(s *catalog.Service) {
		s.Type, s.Ports[0].NodePort, s.ExternalIPs = catalog.NodePort, np.Port(), []netip.Addr{netip.MustParseAddr("127.0.0.64")}
	}), b.ep())
	if got := who(t, np); got != "one" {
		t.Errorf("the node port leads to %q", got)
	}
	if len(r.d.spots) != 1 || r.d.table.Get(vip.Front{Addr: at, Proto: catalog.TCP}) == nil {
		t.Errorf("%d sockets, want that of the node port", len(r.d.spots))
	}
}
