package network

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"
)

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

// TestReach: pods of two nodes, the nodes and a machine outside, in both
// families, with the kernel's bridge filter and without it.
func TestReach(t *testing.T) {
	for _, filter := range []string{"0", "1"} {
		t.Run("bridge-nf-call-iptables="+filter, func(t *testing.T) {
			a, b, outside := newNode(t), newNode(t), newNode(t)
			wire(a, b, "lan", []string{"192.0.2.1/24", "2001:db8::1/64"}, []string{"192.0.2.2/24", "2001:db8::2/64"})
			wire(a, outside, "wan", []string{"198.51.100.1/24", "2001:db8:1::1/64"}, []string{"198.51.100.9/24", "2001:db8:1::9/64"})
			na := a.ready(config(t, "10.44.1.0/24", "fd44:1::/64"))
			nb := b.ready(config(t, "10.44.2.0/24", "fd44:2::/64"))
			loaded := true
			a.must(a.in(func() error {
				for _, f := range []string{"iptables", "ip6tables"} {
					name := "net/bridge/bridge-nf-call-" + f
					if _, err := os.Stat("/proc/sys/" + name); err != nil {
						loaded = false
						continue
					}
					if err := sysctl(name, filter); err != nil {
						return err
					}
				}
				return nil
			}))
			if filter == "1" && !loaded {
				t.Skip("this kernel has no br_netfilter loaded")
			}
			a.must(na.SetRoutes([]Peer{
				{"b", prefixes("10.44.2.0/24", "fd44:2::/64"), ip("192.0.2.2")},
				{"b", prefixes("10.44.2.0/24", "fd44:2::/64"), ip("2001:db8::2")},
			}))
			b.must(nb.SetRoutes([]Peer{
				{"a", prefixes("10.44.1.0/24", "fd44:1::/64"), ip("192.0.2.1")},
				{"a", prefixes("10.44.1.0/24", "fd44:1::/64"), ip("2001:db8::1")},
			}))
			p, q, r := attach(t, na, "pod-p"), attach(t, na, "pod-q"), attach(t, nb, "pod-r")
			serve(t, pod(p), 80, "p")
			serve(t, pod(q), 80, "q")
			serve(t, pod(r), 80, "r")
			serve(t, a.in, 81, "a")
			serve(t, outside.in, 82, "outside")
			for i, other := range []struct{ node, wan, outside netip.Addr }{
				{ip("192.0.2.1"), ip("198.51.100.1"), ip("198.51.100.9")},
				{ip("2001:db8::1"), ip("2001:db8:1::1"), ip("2001:db8:1::9")},
			} {
				pa, qa, ra := p.Addrs[i], q.Addrs[i], r.Addrs[i]
				expect(t, "pod to pod", pod(p), qa, 80, "q", pa)
				expect(t, "pod to itself", pod(p), pa, 80, "p", pa)
				expect(t, "node to pod", a.in, pa, 80, "p", p.Gateways[i])
				// Over UDP a server on all addresses answers from the nearest one.
				if name, saw, err := ask(pod(p), "tcp", netip.AddrPortFrom(other.node, 81), patience); name != "a" || saw != pa {
					t.Errorf("pod to node: %q saw %s: %v", name, saw, err)
				}
				expect(t, "pod to its gateway", pod(p), p.Gateways[i], 81, "a", pa)
				expect(t, "pod to pod of another node", pod(p), ra, 80, "r", pa)
				expect(t, "and back", pod(r), pa, 80, "p", ra)
				expect(t, "pod to outside", pod(p), other.outside, 82, "outside", other.wan)
			}

			ports := []HostPort{
				{Port: 8080, ContainerPort: 80}, {Port: 8080, Protocol: UDP, ContainerPort: 80},
				{HostIP: ip("192.0.2.1"), Port: 8081, ContainerPort: 80}, {HostIP: ip("192.0.2.1"), Port: 8081, Protocol: UDP, ContainerPort: 80},
			}
			a.must(na.SetHostPorts("pod-p", ports))
			for i, other := range []struct{ node, lan, wan, outside netip.Addr }{
				{ip("192.0.2.1"), ip("192.0.2.2"), ip("198.51.100.1"), ip("198.51.100.9")},
				{ip("2001:db8::1"), ip("2001:db8::2"), ip("2001:db8:1::1"), ip("2001:db8:1::9")},
			} {
				expect(t, "outside to a host port", outside.in, other.wan, 8080, "p", other.outside)
				expect(t, "other node to a host port", b.in, other.node, 8080, "p", other.lan)
				expect(t, "node to its own host port", a.in, other.node, 8080, "p", other.node)
				expect(t, "pod to a host port", pod(q), other.node, 8080, "p", q.Addrs[i])
				expect(t, "pod to its own host port", pod(p), other.node, 8080, "p", p.Gateways[i])
				refused(t, "a pod does not get host ports of its own address", pod(q), q.Addrs[i], 8080)
			}
			expect(t, "limited to an address", b.in, ip("192.0.2.1"), 8081, "p", ip("192.0.2.2"))
			refused(t, "another address of the node", a.in, ip("198.51.100.1"), 8081)
			for _, lo := range []string{"127.0.0.1", "::1"} {
				if name, _, err := ask(a.in, "tcp", netip.AddrPortFrom(ip(lo), 8080), patience); name != "p" {
					t.Errorf("host port at %s: %q %v", lo, name, err)
				}
			}
			if err := na.SetHostPorts("pod-q", ports[:1]); !errors.Is(err, ErrPortTaken) || !strings.Contains(err.Error(), "pod-p") {
				t.Errorf("a port that is taken: %v", err)
			}
			if s := a.ruleset(); s != "" && !strings.Contains(s, "pod pod-p") {
				t.Errorf("the host port does not show who has it:\n%s", s)
			}
			// The port moves on: also a UDP client that never changes its port
			// must reach the new pod.
			a.must(na.Detach(t.Context(), "pod-p"))
			a.must(na.SetHostPorts("pod-q", ports))
			expect(t, "after the port moved", outside.in, ip("198.51.100.1"), 8080, "q", ip("198.51.100.9"))
			a.must(na.SetHostPorts("pod-q", nil))
			a.must(na.SetHostPorts("pod-without-a-network", nil))
			refused(t, "a port that was given back", b.in, ip("192.0.2.1"), 8080)
			refused(t, "on loopback, too", a.in, ip("127.0.0.1"), 8080)
		})
	}
}

func TestRestartAndRepair(t *testing.T) {
	n := newNode(t)
	c := config(t, "10.44.1.0/24", "fd44:1::/64")
	first := n.network(c)
	n.must(first.Setup())
	t.Cleanup(func() {
		n.must(n.network(c).Teardown())
		n.clean(c)
	})
	p := attach(t, first, "pod-p")
	serve(t, pod(p), 80, "p")
	q := attach(t, first, "pod-q")
	n.must(first.SetHostPorts("pod-p", []HostPort{{Port: 8080, ContainerPort: 80}}))
	works := func(what string) {
		t.Helper()
		expect(t, what, n.in, p.Addrs[0], 80, "p", p.Gateways[0])
		expect(t, what, pod(q), p.Addrs[1], 80, "p", q.Addrs[1])
		if name, _, err := ask(pod(q), "tcp", netip.AddrPortFrom(p.Gateways[0], 8080), patience); name != "p" {
			t.Errorf("%s: host port: %q %v", what, name, err)
		}
	}
	works("at first")
	link := func(name string) netlink.Link {
		t.Helper()
		l, err := n.nl.LinkByName(name)
		n.must(err)
		return l
	}
	again := func(what string) *Network {
		t.Helper()
		net := n.network(c)
		n.must(net.Setup())
		if got := attach(t, net, "pod-p"); fmt.Sprint(got) != fmt.Sprint(p) {
			t.Errorf("%s: pod-p has %v, had %v", what, got, p)
		}
		list, err := net.List()
		if err != nil || len(list) != 2 {
			t.Errorf("%s: %v %v", what, list, err)
		}
		works(what)
		return net
	}
	first.Close()
	again("after a restart").Close()
	n.must(n.nl.LinkDel(link("fp0")))
	again("without the bridge").Close()
	gone := again("before the bridge goes")
	n.must(n.nl.LinkDel(link("fp0")))
	attach(t, gone, "pod-q") // without Setup
	attach(t, gone, "pod-p")
	works("after the bridge went while it was in use")
	gone.Close()
	n.must(n.nl.LinkDel(link(vethName("pod-p"))))
	again("without the link").Close()
	n.must(n.nl.LinkSetNoMaster(link(vethName("pod-p"))))
	again("with the link off the bridge").Close()
	n.must(os.Remove(filepath.Join(c.Dir, "leases", "pod-q.json")))
	again("without a record").Close()
	net := again("without a record, again")
	n.must(net.removeRules())
	net.Close()
	net = again("without the rules")
	n.must(net.Detach(t.Context(), "pod-p"))
	n.must(net.Detach(t.Context(), "pod-p"))
	refused(t, "after detach", n.in, p.Addrs[0], 80)
	// A file without namespace, as after a restart of the machine.
	n.must(os.WriteFile(filepath.Join(c.NetNSDir, "pod-x"), nil, 0o444))
	attach(t, net, "pod-x")
	// A link that lost its namespace's file.
	n.must(removeNamespace(filepath.Join(c.NetNSDir, "pod-x")))
	x := attach(t, net, "pod-x")
	serve(t, pod(x), 80, "x")
	expect(t, "after a crash", n.in, x.Addrs[0], 80, "x", x.Gateways[0])
	n.must(os.WriteFile(filepath.Join(c.NetNSDir, "pod-stray"), nil, 0o444))
	list, err := net.List()
	if err != nil || len(list) != 3 || list[2].PodUID != "pod-stray" {
		t.Errorf("list %v %v", list, err)
	}
	n.must(net.Detach(t.Context(), "pod-stray"))
	n.must(net.Teardown())
	n.clean(c)
	n.must(net.Setup())
}

func TestRefusals(t *testing.T) {
	n, other := newNode(t), newNode(t)
	wire(n, other, "lan", []string{"192.0.2.1/24"}, []string{"192.0.2.2/24"})
	wants := func(c Config, want string) {
		t.Helper()
		err := n.network(c).Setup()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	wants(config(t, "192.0.2.0/25"), "overlaps 192.0.2.1/24 of the interface lan")
	c := config(t, "10.44.1.0/30")
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "br9"
	bridge := &netlink.Bridge{LinkAttrs: attrs}
	n.must(n.nl.LinkAdd(bridge))
	n.must(n.nl.AddrAdd(bridge, address(netip.MustParsePrefix("10.9.0.1/16"))))
	foreign := c
	foreign.Bridge = "br9"
	wants(foreign, "br9 that is not ours has the address 10.9.0.1/16")
	n.must(n.nl.LinkDel(bridge))
	foreign.Bridge = "lan"
	wants(foreign, "no bridge")

	net := n.network(c)
	if _, err := net.Attach(t.Context(), "early"); err == nil || !strings.Contains(err.Error(), "not set up") {
		t.Errorf("attach before setup: %v", err)
	}
	net = n.ready(c)
	attach(t, net, "one")
	if _, err := net.Attach(t.Context(), "two"); !errors.Is(err, ErrExhausted) {
		t.Errorf("a full range: %v", err)
	}
	if list, _ := net.List(); len(list) != 1 {
		t.Errorf("a failed attach left %v", list)
	}
	for _, uid := range []string{"", "..", "a/b", "../../x", strings.Repeat("x", 200)} {
		if _, err := net.Attach(t.Context(), uid); err == nil {
			t.Errorf("UID %q was taken", uid)
		}
	}
	moved := c
	moved.PodCIDRs = prefixes("10.45.1.0/24")
	wants(moved, "node reset")
	n.must(net.Detach(t.Context(), "one"))
	n.must(n.network(moved).Setup())
	n.must(net.Setup())

	peer := Peer{"b", prefixes("10.46.0.0/24"), ip("203.0.113.7")}
	good := Peer{"c", prefixes("10.47.0.0/24"), ip("192.0.2.2")}
	err := net.SetRoutes([]Peer{peer, good, {"d", prefixes("10.44.0.0/16"), ip("192.0.2.2")}})
	if err == nil || !strings.Contains(err.Error(), "node b") || !strings.Contains(err.Error(), "node d") || strings.Contains(err.Error(), "node c") {
		t.Errorf("bad peers: %v", err)
	}
	if routes, err := net.ownRoutes(); err != nil || len(routes) != 1 {
		t.Errorf("routes %v %v", routes, err)
	}
	n.must(net.SetRoutes(nil))
	if routes, err := net.ownRoutes(); err != nil || len(routes) != 0 {
		t.Errorf("routes that nobody wants: %v %v", routes, err)
	}
}

// TestManyAtOnce: pods come and go at the same time, some twice.
func TestManyAtOnce(t *testing.T) {
	n := newNode(t)
	net := n.ready(config(t, "10.44.0.0/23", "fd44:1::/64"))
	var wg sync.WaitGroup
	for i := range 40 {
		for range 2 {
			wg.Go(func() {
				if _, err := net.Attach(t.Context(), fmt.Sprintf("pod-%d", i)); err != nil {
					t.Error(err)
				}
				if err := net.SetHostPorts(fmt.Sprintf("pod-%d", i), []HostPort{{Port: uint16(9000 + i), ContainerPort: 80}}); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	list, err := net.List()
	if err != nil || len(list) != 40 {
		t.Fatalf("%d pods, %v", len(list), err)
	}
	seen := map[netip.Addr]bool{}
	for _, a := range list {
		if seen[a.Addrs[0]] || seen[a.Addrs[1]] {
			t.Errorf("%v was given twice", a.Addrs)
		}
		seen[a.Addrs[0]], seen[a.Addrs[1]] = true, true
	}
	serve(t, pod(list[0]), 80, "first")
	expect(t, "among many", pod(list[39]), list[0].Addrs[1], 80, "first", list[39].Addrs[1])
	for _, a := range list[1:] {
		wg.Go(func() {
			if err := net.Detach(t.Context(), a.PodUID); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if list, err := net.List(); err != nil || len(list) != 1 {
		t.Errorf("%d pods are left, %v", len(list), err)
	}
}

func BenchmarkAttachDetach(b *testing.B) {
	n := newNode(b)
	net := n.ready(config(b, "10.44.0.0/16", "fd44:1::/64"))
	for b.Loop() {
		attach(b, net, "pod")
		b.StopTimer()
		n.must(net.Detach(b.Context(), "pod"))
		b.StartTimer()
	}
}

func BenchmarkReattach(b *testing.B) {
	n := newNode(b)
	net := n.ready(config(b, "10.44.0.0/16", "fd44:1::/64"))
	for b.Loop() {
		attach(b, net, "pod")
	}
}

func BenchmarkSetHostPorts(b *testing.B) {
	n := newNode(b)
	net := n.ready(config(b, "10.44.0.0/16"))
	for i := range 50 {
		attach(b, net, fmt.Sprint("pod", i))
		n.must(net.SetHostPorts(fmt.Sprint("pod", i), []HostPort{{Port: uint16(9000 + i), ContainerPort: 80, Protocol: SCTP}}))
	}
	i := 0
	for b.Loop() {
		i++
		n.must(net.SetHostPorts("pod0", []HostPort{{Port: uint16(20000 + i%1000), ContainerPort: 80, Protocol: SCTP}}))
	}
}
