package userspace

import (
	"errors"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/internal/kernel"
)

// TestNoDescriptorLeft: without a descriptor to accept with, a client is reset
// instead of left waiting, and afterwards everything works again.
func TestNoDescriptorLeft(t *testing.T) {
	r := newRig(t)
	vip := free(t, "127.96.0.5")
	r.put(service(vip), newBackend(t, "a", "127.0.0.1").ep())

	var clients []int
	for range 5 {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 20})
		clients = append(clients, fd)
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	lowest, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0) // all below it are in use
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(lowest)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(lowest), Max: limit.Max}); err != nil {
		t.Fatal(err)
	}
	for i, fd := range clients {
		n := 0
		err := unix.Connect(fd, sockaddr(vip))
		if err == nil {
			n, err = unix.Read(fd, make([]byte, 1))
		}
		// A descriptor that something else just gave back lets the connection in,
		// and then there is none for the endpoint: it is closed without a word.
		if ended := n == 0 && err == nil; !ended && !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("client %d: %v, want a reset", i, err)
		}
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if got := who(t, vip); got != "a" {
		t.Errorf("got %q", got)
	}
}

// TestPrivilegedPort: without the right to a low port the owner is told what to
// do, and the service's other port works.
func TestPrivilegedPort(t *testing.T) {
	r := newRig(t)
	high := free(t, "127.96.0.5")
	s := service(high)
	s.Ports[0].Port = 7
	s.Ports[1].Protocol = catalog.TCP
	s.Ports[1].Name = "tcp"
	b := newBackend(t, "a", "127.0.0.1")
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never given back: the thread ends with its lack of rights
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		if err := unix.Capget(&header, &data[0]); err != nil {
			t.Error(err)
			return
		}
		data[0].Effective &^= 1 << unix.CAP_NET_BIND_SERVICE
		if err := unix.Capset(&header, &data[0]); err != nil {
			t.Error(err)
			return
		}
		if kernel.CanBindPort(7) {
			return // net.ipv4.ip_unprivileged_port_start lets everybody have it
		}
		r.put(s, b.ep())
		ev := r.told()
		if len(ev) != 1 || !strings.Contains(ev[0], "ip_unprivileged_port_start=7") {
			t.Errorf("events %q", ev)
		}
		if got := who(t, high); got != "a" {
			t.Errorf("the other port: %q", got)
		}
	}()
	<-done
}

// TestListenInLocalRange binds addresses of ranges made local, in a network
// namespace of its own.
func TestListenInLocalRange(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to make a network namespace")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never given back: the thread ends with its namespace
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Errorf("no network namespace: %v", err)
			return
		}
		if err := loopbackUp(); err != nil {
			t.Error(err)
			return
		}
		for prefix, inside := range map[string]string{
			"10.96.0.0/16":   "10.96.7.7:80",
			"fd00:96::/108":  "[fd00:96::7:7]:80",
			"127.96.0.0/16":  "127.96.7.7:80",
			"fd00:98:1::/64": "[fd00:99::1]:80", // outside
		} {
			if err := kernel.AddLocalRange(netip.MustParsePrefix(prefix)); err != nil {
				t.Error(err)
			}
			at := netip.MustParseAddrPort(inside)
			for _, kind := range []int{unix.SOCK_STREAM, unix.SOCK_DGRAM} {
				fd, err := open(at, kind)
				if want := inside == "[fd00:99::1]:80"; want != errors.Is(err, unix.EADDRNOTAVAIL) || !want && err != nil {
					t.Errorf("%s: %v", at, err)
				}
				if err == nil {
					unix.Close(fd)
				}
			}
		}
	}()
	<-done
}

func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, ifr)
}
