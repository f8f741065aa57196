package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// bridgeAlias marks the bridge as ours.
const bridgeAlias = "fingerpost pod network"

// Network is the pod network of one node.
type Network struct {
	cfg  Config
	host hostNetNS
	nl   *netlink.Handle // of the node's namespace

	pods sync.Map // UID → *sync.Mutex: one change of a pod at a time

	mu     sync.Mutex // guards what follows; never held while a pod is wired
	leases *leases
	peers  []netip.Prefix // ranges of other nodes
	bridge int            // index of the bridge; 0: not set up
	mtu    int

	bridges sync.Mutex // one repair of the bridge at a time

	rules   sync.Mutex // one rewrite of the table, or the routes, at a time
	written string     // what the table was made of, guarded by rules
	relays  relays
	closed  sync.Once
}

// New opens a node's pod network in the network namespace of the calling
// thread. It changes nothing on the machine but Config.Dir; Setup does.
func New(c Config) (*Network, error) {
	c, err := c.complete()
	if err != nil {
		return nil, err
	}
	l, err := openLeases(filepath.Join(c.Dir, "leases"), c.PodCIDRs, c.Log)
	if err != nil {
		return nil, err
	}
	n := &Network{cfg: c, leases: l}
	if n.host.file, err = os.Open(threadNetNS); err != nil {
		return nil, fmt.Errorf("network: this node's network namespace: %w", err)
	}
	// The handle's socket is opened here, so it stays in this namespace
	// whichever thread uses it.
	if n.nl, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		n.host.file.Close()
		return nil, fmt.Errorf("network: netlink: %w", err)
	}
	n.relays.init(n)
	return n, nil
}

// Close ends what runs in this process: the loopback relays of host ports.
// Everything else stays; a later process takes it over.
func (n *Network) Close() {
	n.closed.Do(func() {
		n.relays.close()
		n.nl.Close()
		n.host.file.Close()
	})
}

// Setup makes the machine ready for pods, or repairs it: bridge, addresses,
// forwarding, rules, and the links of the pods that are there.
func (n *Network) Setup() error {
	if err := onThread(n.host.fd(), n.forwarding); err != nil {
		return fmt.Errorf("network: %w", err)
	}
	if err := n.checkOverlap(); err != nil {
		return err
	}
	if _, err := n.newBridge(); err != nil {
		return err
	}
	n.mu.Lock()
	if n.mtu = n.cfg.MTU; n.mtu == 0 {
		n.mtu = n.machineMTU()
	}
	n.mu.Unlock()
	n.adoptPods()
	if err := n.applyRules(true); err != nil {
		return err
	}
	n.mu.Lock()
	all := n.leases.sorted()
	n.mu.Unlock()
	for _, l := range all {
		if isNamespace(n.nsPath(l.UID)) {
			if _, err := n.Attach(context.Background(), l.UID); err != nil {
				n.cfg.Log.Warn("a pod's network could not be repaired", "pod", l.UID, "err", err)
			}
		}
		n.relays.set(l.UID, l)
	}
	return nil
}

// newBridge makes the bridge what it should be, and remembers it.
func (n *Network) newBridge() (int, error) {
	n.bridges.Lock()
	defer n.bridges.Unlock()
	index, err := n.ensureBridge()
	if err == nil {
		n.mu.Lock()
		n.bridge = index
		n.mu.Unlock()
	}
	return index, err
}

// bridgeGone says whether the bridge with this index is there no more.
func (n *Network) bridgeGone(index int) bool {
	link, err := n.nl.LinkByName(n.cfg.Bridge)
	return errors.As(err, &netlink.LinkNotFoundError{}) || err == nil && link.Attrs().Index != index
}

func (n *Network) nsPath(uid string) string { return filepath.Join(n.cfg.NetNSDir, uid) }

func (n *Network) has6() bool {
	for _, p := range n.cfg.PodCIDRs {
		if p.Addr().Is6() {
			return true
		}
	}
	return false
}

// forwarding lets the machine route, on a thread of the node's namespace.
func (n *Network) forwarding() error {
	if err := sysctl("net/ipv4/ip_forward", "1"); err != nil {
		return fmt.Errorf("%w; pods reach nothing beyond the node without it", err)
	}
	if !n.has6() {
		return nil
	}
	if _, err := os.Stat("/proc/sys/net/ipv6"); err != nil {
		return errors.New("this kernel has no IPv6, but the node has an IPv6 pod range; give it an IPv4 one only")
	}
	if got, err := os.ReadFile("/proc/sys/net/ipv6/conf/all/forwarding"); err == nil && string(got) != "1\n" {
		// A router ignores advertisements unless told otherwise: the machine
		// would lose its default route some minutes later.
		dirs, _ := filepath.Glob("/proc/sys/net/ipv6/conf/*/accept_ra")
		for _, d := range dirs {
			if got, err := os.ReadFile(d); err == nil && string(got) == "1\n" {
				if err := sysctl(strings.TrimPrefix(d, "/proc/sys/"), "2"); err != nil {
					n.cfg.Log.Warn("an interface will ignore router advertisements", "err", err)
				}
			}
		}
	}
	return sysctl("net/ipv6/conf/all/forwarding", "1")
}

// checkOverlap refuses a pod range that the machine uses otherwise.
func (n *Network) checkOverlap() error {
	links, err := n.nl.LinkList()
	if err != nil {
		return fmt.Errorf("network: list the links: %w", err)
	}
	for _, link := range links {
		if link.Attrs().Name == n.cfg.Bridge {
			continue
		}
		addrs, err := n.nl.AddrList(link, netlink.FAMILY_ALL)
		if err != nil {
			return fmt.Errorf("network: addresses of %s: %w", link.Attrs().Name, err)
		}
		for _, a := range addrs {
			p := prefixOf(a.IPNet)
			for _, r := range n.cfg.PodCIDRs {
				if p.IsValid() && r.Overlaps(p.Masked()) && p.Bits() > 0 {
					return fmt.Errorf("network: pod range %s overlaps %s of the interface %s; give the node another range", r, p, link.Attrs().Name)
				}
			}
		}
	}
	return nil
}

// ensureBridge gives the index of the bridge, which is as it should be then.
func (n *Network) ensureBridge() (int, error) {
	name := n.cfg.Bridge
	link, err := n.nl.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.Alias = name, bridgeAlias
		// A fixed address: it would change with every pod otherwise.
		attrs.HardwareAddr = hardwareAddr(gatewayOf(n.cfg.PodCIDRs[0]))
		snooping := false // IPv6 neighbour discovery is multicast
		err = n.nl.LinkAdd(&netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping})
		if err == nil {
			// Not every version takes an alias when a link is made.
			link, err = n.nl.LinkByName(name)
		}
		if err == nil {
			err = n.nl.LinkSetAlias(link, bridgeAlias)
		}
	}
	if errors.Is(err, unix.EPERM) {
		return 0, fmt.Errorf("network: make the bridge %s: %w; pod networks need root", name, err)
	}
	if err != nil {
		return 0, fmt.Errorf("network: make the bridge %s: %w", name, err)
	}
	if link.Type() != "bridge" {
		return 0, fmt.Errorf("network: the interface %s is there already and is no bridge (%s); remove it or name another bridge", name, link.Type())
	}
	ours := link.Attrs().Alias == bridgeAlias
	addrs, err := n.nl.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return 0, fmt.Errorf("network: addresses of %s: %w", name, err)
	}
	for _, a := range addrs {
		p := prefixOf(a.IPNet)
		if p.Addr().IsLinkLocalUnicast() || n.isGateway(p) {
			continue
		}
		if !ours {
			return 0, fmt.Errorf("network: a bridge %s that is not ours has the address %s; remove it or name another bridge", name, p)
		}
		if ports := n.ports(link.Attrs().Index); ports > 0 {
			return 0, fmt.Errorf("network: the bridge %s has the address %s and %d pods of that range, but the node's range is %s now; remove the pods first (node reset)", name, p, ports, n.cfg.PodCIDRs)
		}
		if err := n.nl.AddrDel(link, &a); err != nil {
			return 0, fmt.Errorf("network: remove %s from %s: %w", p, name, err)
		}
	}
	if !ours {
		if err := n.nl.LinkSetAlias(link, bridgeAlias); err != nil {
			return 0, fmt.Errorf("network: mark the bridge %s: %w", name, err)
		}
	}
	err = onThread(n.host.fd(), func() error {
		// Pods talk to each other through this one interface; that is meant.
		err := sysctl("net/ipv4/conf/"+name+"/send_redirects", "0")
		if n.has6() {
			err = errors.Join(err, sysctl("net/ipv6/conf/"+name+"/disable_ipv6", "0"),
				sysctl("net/ipv6/conf/"+name+"/accept_dad", "0"), sysctl("net/ipv6/conf/"+name+"/accept_ra", "0"))
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("network: bridge %s: %w", name, err)
	}
	if err := n.nl.LinkSetUp(link); err != nil {
		return 0, fmt.Errorf("network: set %s up: %w", name, err)
	}
	for _, p := range n.cfg.PodCIDRs {
		if err := n.nl.AddrReplace(link, address(netip.PrefixFrom(gatewayOf(p), p.Bits()))); err != nil {
			return 0, fmt.Errorf("network: give %s the address %s: %w", name, gatewayOf(p), err)
		}
	}
	return link.Attrs().Index, nil
}

func (n *Network) isGateway(p netip.Prefix) bool {
	for _, r := range n.cfg.PodCIDRs {
		if p == netip.PrefixFrom(gatewayOf(r), r.Bits()) {
			return true
		}
	}
	return false
}

// ports counts the links on a bridge.
func (n *Network) ports(bridge int) int {
	links, err := n.nl.LinkList()
	count := 0
	for _, l := range links {
		if l.Attrs().MasterIndex == bridge {
			count++
		}
	}
	if err != nil && count == 0 {
		return -1
	}
	return count
}

// machineMTU is the smallest MTU on the way out of the machine, as far as its
// own links tell, and at most that of Ethernet.
func (n *Network) machineMTU() int {
	mtu := 1500
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := n.nl.RouteList(nil, family)
		if err != nil {
			continue
		}
		for _, r := range routes {
			if r.Dst != nil && !prefixOf(r.Dst).Addr().IsUnspecified() || r.LinkIndex == 0 {
				continue // only the default routes
			}
			if link, err := n.nl.LinkByIndex(r.LinkIndex); err == nil && link.Attrs().MTU >= 576 {
				mtu = min(mtu, link.Attrs().MTU)
			}
		}
	}
	return mtu
}

// address asks for an address that is usable at once: duplicate address
// detection would take a second, and the node hands out its addresses itself.
func address(p netip.Prefix) *netlink.Addr {
	a := &netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	return a
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func prefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	a, ok := netip.AddrFromSlice(n.IP)
	if !ok {
		return netip.Prefix{}
	}
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), ones)
}
