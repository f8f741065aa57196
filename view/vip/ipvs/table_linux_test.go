package ipvs

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/vip"
)

// needIPVS skips where the kernel has none: make test-vm runs these tests on
// one that has.
func needIPVS(t *testing.T) {
	t.Helper()
	if _, err := open(); err != nil {
		t.Skipf("%v; make test-vm runs this in a virtual machine", err)
	}
}

// onThread runs f on a thread of its own in the namespace of fd, or in a new
// one that it gives.
func onThread(fd int, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

func newNamespace(t *testing.T) *os.File {
	t.Helper()
	got := make(chan *os.File)
	go func() {
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Error(err)
			got <- nil
			return
		}
		f, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			t.Error(err)
		}
		got <- f
	}()
	f := <-got
	if f == nil {
		t.FailNow()
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// pod is a namespace with an address that answers with its name.
func pod(t *testing.T, name string, n int) *os.File {
	t.Helper()
	ns := newNamespace(t)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "to-" + name
	v := netlink.NewVeth(attrs)
	v.PeerName, v.PeerNamespace = "eth0", netlink.NsFd(ns.Fd())
	must(t, netlink.LinkAdd(v))
	t.Cleanup(func() { _ = netlink.LinkDel(v) })
	host, err := netlink.LinkByName(v.Name)
	must(t, err)
	setUp := func(l netlink.Link, cidrs ...string) error {
		for _, c := range cidrs {
			a, err := netlink.ParseAddr(c)
			if err != nil {
				return err
			}
			a.Flags = unix.IFA_F_NODAD
			if err := netlink.AddrAdd(l, a); err != nil {
				return err
			}
		}
		return netlink.LinkSetUp(l)
	}
	must(t, setUp(host, fmt.Sprintf("10.244.%d.1/24", n), fmt.Sprintf("fd24:0:0:%d::1/64", n)))
	must(t, onThread(int(ns.Fd()), func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		// Package net looks once whether there is IPv6, on the loopback device.
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(lo); err != nil {
			return err
		}
		if err := setUp(l, fmt.Sprintf("10.244.%d.2/24", n), fmt.Sprintf("fd24:0:0:%d::2/64", n)); err != nil {
			return err
		}
		for _, gw := range []string{fmt.Sprintf("10.244.%d.1", n), fmt.Sprintf("fd24:0:0:%d::1", n)} {
			if err := netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: net.ParseIP(gw)}); err != nil {
				return err
			}
		}
		tcp, err := net.Listen("tcp", ":8080")
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = tcp.Close() })
		go func() {
			for {
				c, err := tcp.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					for r := bufio.NewReader(c); ; {
						if _, err := r.ReadString('\n'); err != nil {
							return
						}
						fmt.Fprintln(c, name)
					}
				}()
			}
		}()
		udp, err := net.ListenPacket("udp", ":8080")
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = udp.Close() })
		go func() {
			buf := make([]byte, 100)
			for {
				_, from, err := udp.ReadFrom(buf)
				if errors.Is(err, net.ErrClosed) {
					return
				}
				if err == nil {
					_, _ = udp.WriteTo([]byte(name+"\n"), from)
				}
			}
		}()
		return nil
	}))
	return ns
}

func ask(c net.Conn) string {
	_ = c.SetDeadline(time.Now().Add(3 * time.Second))
	if _, err := c.Write([]byte("who\n")); err != nil {
		return err.Error()
	}
	s, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(s)
}

// answers gives who answers n new connections from a namespace.
func answers(ns *os.File, network, to string, n int) string {
	var all []string
	for range n {
		_ = onThread(int(ns.Fd()), func() error {
			c, err := net.DialTimeout(network, to, 3*time.Second)
			if err != nil {
				all = append(all, err.Error())
				return nil
			}
			defer c.Close()
			all = append(all, ask(c))
			return nil
		})
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), " ")
}

func backends(list ...string) (out []vip.Backend) {
	for _, s := range list {
		out = append(out, vip.Backend{Addr: netip.MustParseAddrPort(s), Weight: 100})
	}
	return out
}

func front(s string, p catalog.Protocol) vip.Front {
	return vip.Front{Addr: netip.MustParseAddrPort(s), Proto: p}
}

func TestTable(t *testing.T) {
	needIPVS(t)
	self, err := os.Open("/proc/thread-self/ns/net")
	must(t, err)
	defer self.Close()
	for _, key := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
		must(t, os.WriteFile("/proc/sys/net/"+key, []byte("1"), 0))
	}
	lo, err := netlink.LinkByName("lo")
	must(t, err)
	must(t, netlink.LinkSetUp(lo))
	pod(t, "p1", 1)
	pod(t, "p2", 2)
	client := pod(t, "c", 3)
	now := time.Unix(1_700_000_000, 0)
	table := func() *Table {
		tb, err := Open(Options{Now: func() time.Time { return now }})
		must(t, err)
		must(t, tb.Adopt())
		return tb
	}
	t.Cleanup(func() {
		if err := Cleanup(Config{}); err != nil {
			t.Error(err)
		}
	})
	expect := func(from *os.File, network, to, want string) {
		t.Helper()
		if got := answers(from, network, to, 8); got != want {
			t.Errorf("%s %s: %q answered, want %q", network, to, got, want)
		}
	}
	tb := table()
	both4, both6 := backends("10.244.1.2:8080", "10.244.2.2:8080"), backends("[fd24:0:0:1::2]:8080", "[fd24:0:0:2::2]:8080")
	tcp4, udp4 := front("10.96.0.10:80", catalog.TCP), front("10.96.0.10:53", catalog.UDP)
	tcp6, udp6 := front("[fd96::10]:80", catalog.TCP), front("[fd96::10]:53", catalog.UDP)
	for f, b := range map[vip.Front][]vip.Backend{tcp4: both4, udp4: both4, tcp6: both6, udp6: both6} {
		must(t, tb.Put(f, b, 0, true))
		must(t, tb.Settle())
		expect(client, strings.ToLower(string(f.Proto)), f.Addr.String(), "p1 p2")
		expect(self, strings.ToLower(string(f.Proto)), f.Addr.String(), "p1 p2")
	}

	// A connection stays with the server that leaves; new ones do not come.
	var held net.Conn
	must(t, onThread(int(client.Fd()), func() (err error) { held, err = net.Dial("tcp", tcp4.Addr.String()); return err }))
	defer held.Close()
	leaves, stays := both4[:1], both4[1:]
	who := ask(held)
	if who == "p2" {
		leaves, stays = stays, leaves
	}
	must(t, tb.Put(tcp4, stays, 0, true))
	other := map[string]string{"p1": "p2", "p2": "p1"}[who]
	expect(client, "tcp", tcp4.Addr.String(), other)
	must(t, tb.Drain())
	if got := ask(held); got != who {
		t.Errorf("the connection to the server that left: %q, want %q", got, who)
	}
	// A restart takes over.
	tb = table()
	if got := ask(held); got != who {
		t.Errorf("the connection after a restart: %q, want %q", got, who)
	}
	expect(client, "tcp", tcp4.Addr.String(), other)
	now = now.Add(time.Hour)
	must(t, tb.Drain())
	reals, err := tb.k.reals(tb.servers[tcp4].server)
	if err != nil || len(reals) != 1 || reals[0].addr != stays[0].Addr {
		t.Errorf("after the time to drain %v stands behind it (%v), want %v", reals, err, stays)
	}

	// Affinity.
	must(t, tb.Put(tcp6, both6, time.Minute, true))
	if got := answers(client, "tcp", tcp6.Addr.String(), 10); got != "p1" && got != "p2" {
		t.Errorf("with affinity %q answered", got)
	}
	// What nobody puts again goes.
	must(t, tb.Forget())
	if tb.servers[tcp6] == nil || tb.servers[udp4] != nil {
		t.Errorf("after Forget there are %v", tb.servers)
	}
	must(t, tb.Remove(tcp4))
	must(t, tb.Remove(tcp6))
	if held, err := tb.held(); err != nil || len(held) > 0 {
		t.Errorf("the device has %v (%v)", held, err)
	}
}

func TestSchedulers(t *testing.T) {
	needIPVS(t)
	for _, s := range Schedulers() {
		tb, err := Open(Options{Scheduler: s})
		must(t, err)
		f := front("10.96.0.11:80", catalog.TCP)
		must(t, tb.Put(f, backends("10.244.1.2:8080"), 0, true))
		all, err := tb.k.servers()
		if err != nil || len(all) != 1 || all[0] != tb.servers[f].server {
			t.Errorf("%s: the kernel has %v (%v), want %v", s, all, err, tb.servers[f].server)
		}
		must(t, tb.Remove(f))
	}
	must(t, Cleanup(Config{}))
	if _, err := Open(Options{Scheduler: "best"}); err == nil {
		t.Error("a scheduler that nobody knows is taken")
	}
}

func TestMissing(t *testing.T) {
	for err, want := range map[error]bool{nil: false, syscall.ENOENT: true, syscall.ESRCH: true, syscall.EPERM: false} {
		if missing(err) != want {
			t.Errorf("missing(%v) is %v", err, !want)
		}
	}
}

// TestWire: what is written is read back.
func TestWire(t *testing.T) {
	for _, s := range []server{
		{netip.MustParseAddrPort("10.96.0.1:443"), unix.IPPROTO_TCP, policy{"rr", 0}},
		{netip.MustParseAddrPort("[fd96::1]:53"), unix.IPPROTO_UDP, policy{"wrr", 3 * time.Hour}},
	} {
		msg := append(make([]byte, 4), s.attr(true).Serialize()...)
		if got, ok := parseServer(msg); !ok || got != s {
			t.Errorf("%v became %v", s, got)
		}
		d := destination{addr: s.addr, weight: 7}
		msg = append(make([]byte, 4), d.attr(true).Serialize()...)
		if got, ok := parseReal(msg, unix.AF_INET); !ok || got != d {
			t.Errorf("%v became %v", d, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	s := server{netip.MustParseAddrPort("10.96.0.1:443"), unix.IPPROTO_TCP, policy{"rr", 0}}
	f.Add(append(make([]byte, 4), s.attr(true).Serialize()...))
	f.Add(append(make([]byte, 4), destination{addr: s.addr}.attr(true).Serialize()...))
	f.Fuzz(func(t *testing.T, msg []byte) {
		if s, ok := parseServer(msg); ok && !s.addr.IsValid() {
			t.Error("a server without an address")
		}
		if d, ok := parseReal(msg, unix.AF_INET); ok && !d.addr.IsValid() {
			t.Error("a destination without an address")
		}
	})
}
