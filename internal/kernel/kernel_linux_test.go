package kernel

import (
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// inNetns runs f on a thread of its own in a new network namespace with only a
// loopback device. The thread is never given back, so it ends with f.
func inNetns(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to make a network namespace")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Errorf("no network namespace: %v", err)
			return
		}
		f(t)
	}()
	<-done
}

func setLoopbackUp(t *testing.T) {
	t.Helper()
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(s)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		t.Fatal(err)
	}
	ifr.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, ifr); err != nil {
		t.Fatal(err)
	}
}

func TestLocalRange(t *testing.T) {
	for _, tc := range []struct{ name, prefix, inside, other string }{
		{"IPv4", "10.96.0.0/16", "10.96.201.7", "10.97.0.1"},
		{"IPv6", "fd00:96::/108", "fd00:96::7:7", "fd00:97::1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inNetns(t, func(t *testing.T) {
				prefix, inside := netip.MustParsePrefix(tc.prefix), netip.MustParseAddr(tc.inside)
				if err := AddLocalRange(prefix); err == nil || !strings.Contains(err.Error(), "ip link set lo up") {
					t.Errorf("with lo down: %v, want the advice to set it up", err)
				}
				setLoopbackUp(t)
				if IsLocalAddress(inside) {
					t.Error("local before it was added")
				}
				for range 2 {
					if err := AddLocalRange(prefix); err != nil {
						t.Fatal(err)
					}
				}
				if !IsLocalAddress(inside) || IsLocalAddress(netip.MustParseAddr(tc.other)) {
					t.Error("the range is not what became local")
				}
				roundTrip(t, inside)
				for range 2 {
					if err := RemoveLocalRange(prefix); err != nil {
						t.Fatal(err)
					}
				}
				if IsLocalAddress(inside) {
					t.Error("still local after it was removed")
				}
			})
		})
	}
}

// roundTrip listens on an address, connects to it and gets an answer.
func roundTrip(t *testing.T, addr netip.Addr) {
	t.Helper()
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		if addr.Is6() {
			c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, 1) })
		}
		return err
	}}
	l, err := lc.Listen(t.Context(), "tcp", netip.AddrPortFrom(addr, 0).String())
	if err != nil {
		t.Error(err)
		return
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		io.Copy(c, c)
		c.Close()
	}()
	c, err := net.DialTCP("tcp", nil, l.Addr().(*net.TCPAddr))
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	c.Write([]byte("hello"))
	c.CloseWrite()
	if b, err := io.ReadAll(c); string(b) != "hello" {
		t.Errorf("answer %q, %v", b, err)
	}
}

func TestLocalRangeRefused(t *testing.T) {
	inNetns(t, func(t *testing.T) {
		setLoopbackUp(t)
		// Somebody else's route inside the range: same shape, other protocol.
		theirs := netip.MustParsePrefix("10.96.5.0/24")
		m := newMessage(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
		m.rtmsg(unix.AF_INET, 24, unix.RT_TABLE_MAIN, unix.RTPROT_STATIC, unix.RT_SCOPE_UNIVERSE, unix.RTN_BLACKHOLE)
		m.attr(unix.RTA_DST, theirs.Addr().AsSlice())
		if _, err := m.roundTrip(); err != nil {
			t.Error(err)
			return
		}
		err := AddLocalRange(netip.MustParsePrefix("10.96.0.0/16"))
		if err == nil || !strings.Contains(err.Error(), "10.96.5.0/24") {
			t.Errorf("got %v, want a refusal that names 10.96.5.0/24", err)
		}
		if err := RemoveLocalRange(theirs); err != nil {
			t.Error(err)
		}
		routes, err := listRoutes(theirs.Addr())
		if err != nil || !slices.ContainsFunc(routes, func(r route) bool { return r.dst == theirs && r.typ == "blackhole" }) {
			t.Errorf("somebody else's route was removed: %v, %v", routes, err)
		}
		if err := AddLocalRange(netip.MustParsePrefix("127.96.0.0/16")); err != nil {
			t.Errorf("a range of the loopback network needs nothing: %v", err)
		}
	})
}

func TestRaiseFileLimit(t *testing.T) {
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &before)
	got, err := RaiseFileLimit(before.Cur + 1)
	if err != nil {
		t.Fatal(err)
	}
	var after unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &after); err != nil || after.Cur != got || got < before.Cur {
		t.Errorf("said %d, the limit is %d (%v), it was %d", got, after.Cur, err, before.Cur)
	}
	if again, err := RaiseFileLimit(1); err != nil || again != got {
		t.Errorf("a smaller wish changed the limit: %d, %v", again, err)
	}
}

func TestCanBind(t *testing.T) {
	if !CanBindPort(65535) {
		t.Error("the last port should need no rights")
	}
	// The answer must be what the kernel says: port 1 of an address nobody uses.
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 96, 255, 1), Port: 1})
	if err == nil {
		l.Close()
	}
	if got := CanBindPrivileged(); got != (err == nil) {
		t.Errorf("CanBindPrivileged = %v, but binding said %v", got, err)
	}
}

func FuzzParseAnswers(f *testing.F) {
	m := newMessage(unix.RTM_NEWROUTE, 0)
	m.rtmsg(unix.AF_INET, 16, 255, routeProtocol, 254, unix.RTN_LOCAL)
	m.attr(unix.RTA_DST, []byte{10, 96, 0, 0})
	m.attrUint32(unix.RTA_OIF, 1)
	native.PutUint32(m.buf, uint32(len(m.buf)))
	f.Add(m.buf)
	f.Add(m.buf[:20])
	f.Fuzz(func(t *testing.T, b []byte) {
		_, all, _ := parseAnswers(b)
		for _, a := range all {
			parseRoute(a.body, nil)
		}
	})
}
