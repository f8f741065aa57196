package viptest

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Node is the name of the node that the driver under test runs on; its zone is
// "z1", that of node b "z2".
const Node = "a"

// NodeConfig is what a driver is told of its node.
type NodeConfig struct {
	Node, Zone   string
	NodeAddrs    []netip.Addr   // where node ports answer
	PodCIDRs     []netip.Prefix // of the cluster: what comes from elsewhere is from off the cluster
	ServiceCIDRs []netip.Prefix
	Dir          string // for files of the driver, kept over restarts
	Variant      string // what else the test binary tells its drivers
}

func nodeConfig(dir string) NodeConfig {
	p := netip.MustParsePrefix
	return NodeConfig{
		Node: Node, Zone: "z1", Dir: dir,
		NodeAddrs:    []netip.Addr{netip.MustParseAddr("192.168.77.1"), netip.MustParseAddr("fd77::1")},
		PodCIDRs:     []netip.Prefix{p("10.244.0.0/16"), p("fd24::/48")},
		ServiceCIDRs: []netip.Prefix{p("10.96.0.0/16"), p("fd96::/112")},
	}
}

// world is the machines of the suite.
type world struct {
	hosts map[string]*host
	names map[netip.Addr]string
	ips   map[string][]netip.Addr // v4, v6
	questions
}

func newWorld(t testing.TB) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	w := &world{hosts: map[string]*host{}, names: map[netip.Addr]string{}, ips: map[string][]netip.Addr{}}
	lan := newHost(t, "lan")
	lan.bridge("br0")
	for name, n := range map[string]int{"a": 1, "b": 2, "o": 9} {
		h := newHost(t, name)
		v4, v6 := fmt.Sprintf("192.168.77.%d", n), fmt.Sprintf("fd77::%d", n)
		h.plug("eth0", lan, "br0", "to-"+name, v4+"/24", v6+"/64")
		w.add(h, v4, v6)
	}
	for n, names := range map[int][]string{1: {"p1", "p2", "p3"}, 2: {"q1", "q2"}} {
		node := w.hosts[string(rune('a'+n-1))]
		gw4, gw6 := fmt.Sprintf("10.244.%d.1", n), fmt.Sprintf("fd24:0:0:%d::1", n)
		node.bridge("br0", gw4+"/24", gw6+"/64")
		w.names[netip.MustParseAddr(gw4)], w.names[netip.MustParseAddr(gw6)] = node.name, node.name
		for i, name := range names {
			p := newHost(t, name)
			v4, v6 := fmt.Sprintf("10.244.%d.%d", n, 11+i), fmt.Sprintf("fd24:0:0:%d::%d", n, 11+i)
			p.plug("eth0", node, "br0", "to-"+name, v4+"/24", v6+"/64")
			p.route("0.0.0.0/0", gw4)
			p.route("::/0", gw6)
			w.add(p, v4, v6)
		}
	}
	a, b, o := w.hosts["a"], w.hosts["b"], w.hosts["o"]
	a.route("10.244.2.0/24", "192.168.77.2")
	a.route("fd24:0:0:2::/64", "fd77::2")
	b.route("10.244.1.0/24", "192.168.77.1")
	b.route("fd24:0:0:1::/64", "fd77::1")
	// A host without a route to an address never asks its packet filter about it.
	a.route("0.0.0.0/0", "192.168.77.9")
	a.route("::/0", "fd77::9")
	for _, to := range []string{"10.96.0.0/16", "203.0.113.0/24", "10.244.1.0/24"} {
		o.route(to, "192.168.77.1")
	}
	for _, to := range []string{"fd96::/112", "2001:db8:77::/64", "fd24:0:0:1::/64"} {
		o.route(to, "fd77::1")
	}
	o.route("10.244.2.0/24", "192.168.77.2")
	o.route("fd24:0:0:2::/64", "fd77::2")
	w.stranger(t, lan)
	var wg sync.WaitGroup
	for _, h := range w.hosts {
		ports := []int{9000}
		if strings.ContainsAny(h.name, "pq") {
			ports = []int{80, 8080, 9376, 5353}
		}
		wg.Go(func() { h.serve(ports...) })
	}
	wg.Wait()
	return w
}

// stranger adds a host of the LAN that thinks that node a is the way to loopback
// addresses, and to those where no one but node a itself has any business.
func (w *world) stranger(t testing.TB, lan *host) {
	h := newHost(t, "s")
	h.plug("eth0", lan, "br0", "to-s", "192.168.77.66/24", "fd77::66/64")
	h.down("lo") // its own loopback addresses go with it
	h.must(h.in(func() error { return os.WriteFile("/proc/sys/net/ipv4/conf/eth0/route_localnet", []byte("1"), 0) }))
	h.route("127.0.0.1/32", "192.168.77.1")
	h.route("192.0.0.8/32", "192.168.77.1")
	h.route("::/0", "fd77::1")
	w.add(h, "192.168.77.66", "fd77::66")
}

func (w *world) add(h *host, addrs ...string) {
	w.hosts[h.name] = h
	for _, s := range addrs {
		a := netip.MustParseAddr(s)
		w.names[a] = h.name
		w.ips[h.name] = append(w.ips[h.name], a)
	}
}

// name gives the host that has an address, or the address.
func (w *world) name(a netip.Addr) string {
	if n, ok := w.names[a]; ok {
		return n
	}
	if a.IsLoopback() {
		return "itself"
	}
	return a.String()
}

// connect makes n new connections and gives the different outcomes. Each may
// take a time.
func (w *world) connect(from *host, network, to string, n int, within time.Duration) []string {
	one := func() string {
		c, err := from.dial(network, to, within)
		if err != nil {
			return failure(err)
		}
		defer c.Close()
		who, saw, err := w.ask(c, within)
		if err != nil {
			return failure(err)
		}
		return who + " sees " + w.name(saw)
	}
	first := one()
	outcomes := map[string]bool{first: true}
	if first != "no answer" {
		var mu sync.Mutex
		var wg sync.WaitGroup
		turns := make(chan struct{}, n)
		for range n - 1 {
			turns <- struct{}{}
		}
		close(turns)
		for range 4 {
			wg.Go(func() {
				for range turns {
					s := one()
					mu.Lock()
					outcomes[s] = true
					mu.Unlock()
				}
			})
		}
		wg.Wait()
	}
	var all []string
	for s := range outcomes {
		all = append(all, s)
	}
	slices.Sort(all)
	return all
}
