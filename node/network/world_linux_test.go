package network

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// node is a network namespace that stands for a machine.
type node struct {
	t    testing.TB
	file *os.File
	nl   *netlink.Handle
}

func newNode(t testing.TB) *node {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to make network namespaces")
	}
	n := &node{t: t}
	err := onThread(-1, func() (err error) {
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		if n.file, err = os.Open(threadNetNS); err != nil {
			return err
		}
		if n.nl, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
			return err
		}
		// Cables that are plugged in just now must carry IPv6 at once.
		return sysctl("net/ipv6/conf/default/accept_dad", "0")
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		n.nl.Close()
		n.file.Close()
	})
	if err := setUp(n.nl, "lo"); err != nil {
		t.Fatal(err)
	}
	return n
}

func (n *node) must(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
}

// in runs f on a thread inside the node.
func (n *node) in(f func() error) error { return onThread(int(n.file.Fd()), f) }

// wire joins two nodes by a cable, with an address at each end.
func wire(a, b *node, name string, atA, atB []string) {
	a.t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	pair := netlink.NewVeth(attrs)
	pair.PeerName, pair.PeerNamespace = name, netlink.NsFd(b.file.Fd())
	a.must(a.nl.LinkAdd(pair))
	for _, end := range []struct {
		n     *node
		addrs []string
	}{{a, atA}, {b, atB}} {
		link, err := end.n.nl.LinkByName(name)
		a.must(err)
		a.must(end.n.nl.LinkSetUp(link))
		for _, s := range end.addrs {
			a.must(end.n.nl.AddrAdd(link, address(netip.MustParsePrefix(s))))
		}
	}
}

// network opens a pod network on the node; the same dir is the same network.
func (n *node) network(c Config) *Network {
	n.t.Helper()
	var net *Network
	n.must(n.in(func() (err error) {
		net, err = New(c)
		return err
	}))
	n.t.Cleanup(net.Close)
	return net
}

func config(t testing.TB, ranges ...string) Config {
	dir := t.TempDir()
	return Config{Dir: filepath.Join(dir, "state"), NetNSDir: filepath.Join(dir, "netns"), PodCIDRs: prefixes(ranges...)}
}

// ready is a network that is set up, and is torn down at the end.
func (n *node) ready(c Config) *Network {
	n.t.Helper()
	net := n.network(c)
	n.must(net.Setup())
	n.t.Cleanup(func() {
		if err := net.Teardown(); err != nil {
			n.t.Errorf("teardown: %v", err)
		}
		n.clean(c)
	})
	return net
}

// clean checks that nothing of a network is left.
func (n *node) clean(c Config) {
	n.t.Helper()
	links, err := n.nl.LinkList()
	n.must(err)
	for _, l := range links {
		if name := l.Attrs().Name; strings.HasPrefix(name, vethPrefix) || l.Type() == "bridge" {
			n.t.Errorf("link %s is left", name)
		}
	}
	if routes, err := (&Network{nl: n.nl}).ownRoutes(); err != nil || len(routes) > 0 {
		n.t.Errorf("routes left: %v %v", routes, err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	n.must(err)
	if strings.Contains(string(mounts), c.NetNSDir) {
		n.t.Error("mounts of namespaces are left")
	}
	if _, err := os.Stat(c.NetNSDir); err == nil {
		n.t.Error("the directory of the namespaces is left")
	}
	if files, _ := os.ReadDir(filepath.Join(c.Dir, "leases")); len(files) > 0 {
		n.t.Errorf("%d records are left", len(files))
	}
	if s := n.ruleset(); strings.Contains(s, tableName) {
		n.t.Errorf("rules are left:\n%s", s)
	}
}

// ruleset asks the nft program what is there, if the machine has it.
func (n *node) ruleset() string {
	n.t.Helper()
	nft, err := exec.LookPath("nft")
	if err != nil {
		n.t.Log("no nft program on this machine: the rules were not listed")
		return ""
	}
	var out []byte
	n.must(n.in(func() error {
		out, err = exec.Command(nft, "list", "ruleset").CombinedOutput()
		return err
	}))
	return string(out)
}

func attach(t testing.TB, n *Network, uid string) Attachment {
	t.Helper()
	a, err := n.Attach(t.Context(), uid)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// inPod runs f on a thread inside a pod.
func inPod(a Attachment, f func() error) error {
	file, err := os.Open(a.NetNS)
	if err != nil {
		return err
	}
	defer file.Close()
	return onThread(int(file.Fd()), f)
}

type within func(func() error) error

func pod(a Attachment) within { return func(f func() error) error { return inPod(a, f) } }

// serve answers with a name and the address of the caller, over TCP and UDP.
func serve(t testing.TB, in within, port uint16, name string) {
	t.Helper()
	var l net.Listener
	var u *net.UDPConn
	err := in(func() (err error) {
		if l, err = net.Listen("tcp", fmt.Sprintf(":%d", port)); err != nil {
			return err
		}
		u, err = net.ListenUDP("udp", &net.UDPAddr{Port: int(port)})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		l.Close()
		u.Close()
	})
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprintf(c, "%s %s\n", name, c.RemoteAddr())
			c.Close()
		}
	}()
	go func() {
		b := make([]byte, 100)
		for {
			k, from, err := u.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			if k > 0 {
				u.WriteToUDPAddrPort([]byte(name+" "+from.String()+"\n"), from)
			}
		}
	}()
}

// patience is how long an answer may take on a busy machine.
const patience = 20 * time.Second

// ask calls a server and gives its name and whom it saw.
func ask(in within, network string, to netip.AddrPort, limit time.Duration) (name string, saw netip.Addr, err error) {
	var c net.Conn
	err = in(func() (err error) {
		d := net.Dialer{Timeout: limit}
		c, err = d.Dial(network, to.String())
		return err
	})
	if err != nil {
		return "", saw, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(limit))
	if network == "udp" {
		if _, err := io.WriteString(c, "?"); err != nil {
			return "", saw, err
		}
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return "", saw, err
	}
	name, from, ok := strings.Cut(strings.TrimSpace(line), " ")
	if !ok {
		return "", saw, errors.New("answer: " + line)
	}
	p, err := netip.ParseAddrPort(from)
	return name, p.Addr().Unmap(), err
}

// expect wants an answer of a server that saw the caller with an address; the
// zero address is any.
func expect(t testing.TB, what string, in within, to netip.Addr, port uint16, name string, saw netip.Addr) {
	t.Helper()
	for _, network := range []string{"tcp", "udp"} {
		got, from, err := ask(in, network, netip.AddrPortFrom(to, port), patience)
		switch {
		case err != nil:
			t.Errorf("%s, %s: %v", what, network, err)
		case got != name:
			t.Errorf("%s, %s: %s answered, want %s", what, network, got, name)
		case saw.IsValid() && from != saw:
			t.Errorf("%s, %s: the server saw %s, want %s", what, network, from, saw)
		}
	}
}

// refused wants no answer over TCP.
func refused(t testing.TB, what string, in within, to netip.Addr, port uint16) {
	t.Helper()
	if name, _, err := ask(in, "tcp", netip.AddrPortFrom(to, port), 2*time.Second); err == nil {
		t.Errorf("%s: %s answered, want a refusal", what, name)
	}
}
