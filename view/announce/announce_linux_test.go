package announce

import (
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestFrames(t *testing.T) {
	hw := []byte{2, 0, 0, 0, 0, 1}
	arp := hex.EncodeToString(gratuitousARP(hw, netip.MustParseAddr("192.0.2.10")))
	if want := "ffffffffffff0200000000010806" + "0001080006040001" + "020000000001c000020a" + "000000000000c000020a"; arp != want {
		t.Errorf("ARP\n%s\n%s", arp, want)
	}
	na := neighbourAdvertisement(hw, netip.MustParseAddr("fd00::10"))
	if len(na) != 14+40+32 || hex.EncodeToString(na[:14]) != "33330000000102000000000186dd" {
		t.Errorf("neighbour advertisement: %x", na)
	}
	// The checksum over everything, itself included, is zero.
	body := na[54:]
	pseudo := append(append([]byte(nil), na[22:54]...), 0, 0, 0, byte(len(body)), 0, 0, 0, 58)
	if sum := checksum(append(pseudo, body...)); sum != 0 {
		t.Errorf("checksum is off by %#x", sum)
	}
}

// TestFailOver: two nodes and a client on one network. The address moves from
// one node to the other, and the client follows at once, although it remembers
// the first one's hardware address.
func TestFailOver(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("network namespaces are made by root only")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("ip is not installed (hack/deps.sh installs it)")
	}
	id := strconv.Itoa(os.Getpid())
	ip := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("ip", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("ip %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	ns := func(name string) string { return "fpan" + id + name }
	for _, n := range []string{"sw", "n1", "n2", "c"} {
		ip("netns", "add", ns(n))
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", ns(n)).Run() })
		ip("-n", ns(n), "link", "set", "lo", "up")
	}
	ip("-n", ns("sw"), "link", "add", "br0", "type", "bridge")
	ip("-n", ns("sw"), "link", "set", "br0", "up")
	for i, n := range []string{"n1", "n2", "c"} {
		ip("-n", ns("sw"), "link", "add", n, "type", "veth", "peer", "name", "eth0", "netns", ns(n))
		ip("-n", ns("sw"), "link", "set", n, "master", "br0", "up")
		ip("-n", ns(n), "link", "set", "eth0", "up")
		ip("-n", ns(n), "addr", "add", "192.0.2."+strconv.Itoa(i+1)+"/24", "dev", "eth0")
		ip("-n", ns(n), "addr", "add", "fd00::"+strconv.Itoa(i+1)+"/64", "dev", "eth0", "nodad")
	}
	within := func(name string, f func()) {
		t.Helper()
		runtime.LockOSThread()
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			t.Fatal(err)
		}
		defer home.Close()
		to, err := os.Open(filepath.Join("/run/netns", ns(name)))
		if err != nil {
			t.Fatal(err)
		}
		defer to.Close()
		if err := unix.Setns(int(to.Fd()), unix.CLONE_NEWNET); err != nil {
			t.Fatal(err)
		}
		f()
		if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
			t.Fatal(err)
		}
		runtime.UnlockOSThread()
	}
	vips := []netip.Addr{netip.MustParseAddr("192.0.2.50"), netip.MustParseAddr("fd00::50")}
	a, b := node(t), node(t)
	set := func(name string, x *Announcer, want []netip.Addr) {
		t.Helper()
		within(name, func() {
			if _, err := x.Set(want); err != nil {
				t.Fatal(err)
			}
		})
	}
	owner := func(vip string) string {
		t.Helper()
		within("c", func() {
			// Nobody listens: the owner's kernel says so.
			if _, err := net.DialTimeout("tcp", net.JoinHostPort(vip, "7"), 2*time.Second); !errors.Is(err, unix.ECONNREFUSED) {
				t.Fatalf("the client does not reach %s: %v", vip, err)
			}
		})
		hw := strings.Fields(ip("-n", ns("c"), "neigh", "show", vip))
		for i, w := range hw {
			if w != "lladdr" {
				continue
			}
			for _, n := range []string{"n1", "n2"} {
				if strings.Contains(ip("-n", ns(n), "link", "show", "eth0"), hw[i+1]) {
					return n
				}
			}
		}
		t.Fatalf("nobody's hardware address: %v", hw)
		return ""
	}
	set("n1", a, vips)
	for _, v := range vips {
		if got := owner(v.String()); got != "n1" {
			t.Fatalf("%s is at %s", v, got)
		}
	}
	shown := ip("-n", ns("n1"), "addr", "show", "dev", "eth0")
	if !strings.Contains(shown, "192.0.2.50/32") || !strings.Contains(shown, "deprecated") || !strings.Contains(shown, "valid_lft") {
		t.Errorf("the address is not as it should be:\n%s", shown)
	}
	set("n1", a, nil)
	set("n2", b, vips)
	for _, v := range vips {
		if got := owner(v.String()); got != "n2" {
			t.Errorf("%s is at %s after the move", v, got)
		}
	}
	if shown := ip("-n", ns("n1"), "addr"); strings.Contains(shown, "192.0.2.50") || strings.Contains(shown, "fd00::50") {
		t.Errorf("the first node has not given it up:\n%s", shown)
	}
	within("n2", func() {
		if _, err := node(t).Set([]netip.Addr{netip.MustParseAddr("192.0.2.2")}); err == nil {
			t.Error("the node's own address was taken for a load balancer")
		}
		b.keep(b.held[vips[0]].next, true)
		if b.held[vips[0]].told != 2 {
			t.Errorf("told %d times", b.held[vips[0]].told)
		}
		if err := b.stop(); err != nil {
			t.Error(err)
		}
	})
	if shown := ip("-n", ns("n2"), "addr"); strings.Contains(shown, "192.0.2.50") {
		t.Errorf("an address stayed:\n%s", shown)
	}
}

func node(t *testing.T) *Announcer {
	t.Helper()
	a, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	return a
}
