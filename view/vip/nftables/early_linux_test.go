package nftables

import (
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	nft "github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fingerpost/fingerpost/catalog"
	machine "github.com/fingerpost/fingerpost/internal/kernel"
)

// TestEarlyConnection: a client that began to connect before there were rules
// gets through with one of its repetitions.
func TestEarlyConnection(t *testing.T) {
	r := newRig(t, nil)
	ns := fmt.Sprintf("/proc/self/fd/%d", r.d.cfg.netns)
	in := func(f func() error) {
		t.Helper()
		if err := machine.InNamespace(ns, f); err != nil {
			t.Fatal(err)
		}
	}
	var server net.Listener
	in(func() (err error) {
		// What is sent to the ClusterIP goes to a neighbour that does not answer.
		if err = netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "out"}, PeerName: "hole"}); err != nil {
			return err
		}
		var out netlink.Link
		for _, name := range []string{"lo", "hole", "out"} {
			if out, err = netlink.LinkByName(name); err != nil {
				return err
			}
			if err = netlink.LinkSetUp(out); err != nil {
				return err
			}
		}
		if err = netlink.AddrAdd(out, &netlink.Addr{IPNet: ipNet("192.0.2.1/24")}); err != nil {
			return err
		}
		if err = netlink.NeighAdd(&netlink.Neigh{
			LinkIndex: out.Attrs().Index, State: unix.NUD_PERMANENT, IP: net.IPv4(192, 0, 2, 9), HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 9},
		}); err != nil {
			return err
		}
		if err = netlink.RouteAdd(&netlink.Route{Dst: ipNet("10.96.0.0/16"), Gw: net.IPv4(192, 0, 2, 9)}); err != nil {
			return err
		}
		server, err = net.Listen("tcp", "192.0.2.1:8080")
		return err
	})
	defer server.Close()
	go func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	}()
	// Conntrack works where a rule asks for it, as those of a node's firewall do.
	if err := r.d.k.commit(func(c *nft.Conn) error {
		table := c.AddTable(&nft.Table{Family: nft.TableFamilyIPv4, Name: "firewall"})
		chain := c.AddChain(&nft.Chain{Table: table, Name: "out", Type: nft.ChainTypeFilter, Hooknum: nft.ChainHookOutput, Priority: nft.ChainPriorityFilter})
		c.AddRule(&nft.Rule{Table: table, Chain: chain, Exprs: []expr.Any{&expr.Ct{Key: expr.CtKeySTATE, Register: 1}, &expr.Counter{}}})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	connected := make(chan error, 1)
	go func() {
		connected <- machine.InNamespace(ns, func() error {
			c, err := net.DialTimeout("tcp", "10.96.0.10:80", 30*time.Second)
			if err == nil {
				err = c.Close()
			}
			return err
		})
	}()
	for n := 0; n == 0; runtime.Gosched() { // until the first packet was seen
		in(func() error {
			flows, err := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
			n = len(flows)
			return err
		})
	}
	if err := r.apply(func(txn *catalog.Txn) {
		key := catalog.Key{Namespace: "default", Name: "web"}
		txn.PutService(&catalog.Service{
			Key: key, Type: catalog.ClusterIP, ClusterIPs: []netip.Addr{netip.MustParseAddr("10.96.0.10")},
			Ports: []catalog.Port{{Name: "http", Protocol: catalog.TCP, Port: 80}},
		})
		txn.PutEndpoints(key, []catalog.Endpoint{{
			Addr: netip.MustParseAddr("192.0.2.1"), Ready: true, Serving: true, Weight: 100,
			Ports: []catalog.EndpointPort{{Name: "http", Protocol: catalog.TCP, Port: 8080}},
		}})
	}); err != nil {
		t.Fatal(err)
	}
	if err := <-connected; err != nil {
		t.Errorf("the connection that was begun early: %v", err)
	}
}

func ipNet(s string) *net.IPNet {
	n, err := netlink.ParseIPNet(s)
	if err != nil {
		panic(err)
	}
	return n
}
