package ebpf

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fingerpost/fingerpost/catalog"
)

// A UDP socket whose endpoint goes away is told; nobody else is.
func TestUDPEndpointGone(t *testing.T) {
	r := newRig(t, nil)
	one, two := serve(t, "127.0.0.1"), serve(t, "127.0.0.1")
	r.put(service("10.96.0.10"), one)
	same := service("10.96.0.11")
	same.Name, same.Ports = "same", same.Ports[1:]
	same.Ports[0].NodePort = 0
	r.put(same, one)
	// Not on loopback: that would be another one in another namespace.
	far := service("10.96.0.12")
	far.Name, far.Ports = "far", far.Ports[1:]
	far.Ports[0].NodePort = 0
	r.put(far, netip.AddrPortFrom(elsewhereAddr(), 9))
	dial := func(network, to string) net.Conn {
		t.Helper()
		c, err := net.Dial(network, to)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	lose := map[string]net.Conn{
		"ClusterIP": dial("udp", "10.96.0.10:80"),
		"node port": dial("udp", "127.0.0.1:30080"),
		"another":   elsewhere(t, "10.96.0.12:80"),
	}
	keep := map[string]net.Conn{
		"TCP": dial("tcp", "10.96.0.10:80"), "direct": dial("udp", one.String()), "other service": dial("udp", "10.96.0.11:80"),
	}
	pc, err := net.ListenPacket("udp", "[::]:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	free := func() string {
		t.Helper()
		deadline(t, pc.(*net.UDPConn))
		if _, err := pc.WriteTo([]byte("who"), net.UDPAddrFromAddrPort(netip.MustParseAddrPort("10.96.0.10:80"))); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 64)
		n, _, err := pc.ReadFrom(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
	r.put(service("10.96.0.10"), one, two)
	first := free()
	for range 20 {
		if who := free(); who != first {
			t.Fatalf("a socket without a peer went from %s to %s", first, who)
		}
	}
	r.put(service("10.96.0.10"), two)
	r.put(far)
	if who := free(); who != two.String() {
		t.Errorf("a socket without a peer went to %s after it had left", who)
	}
	for name, c := range lose {
		deadline(t, c)
		if _, err := c.Read(make([]byte, 64)); !errors.Is(err, syscall.ECONNABORTED) {
			t.Errorf("%s: %v, want that the socket is closed", name, err)
		}
	}
	for name, c := range keep {
		if who, err := talk(c); err != nil || who != one.String() {
			t.Errorf("%s: %q, %v", name, who, err)
		}
	}
}

// elsewhereAddr is an address of the namespace that elsewhere makes.
func elsewhereAddr() netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, 1}) }

// elsewhere connects from a network namespace that no process is in.
func elsewhere(t *testing.T, to string) (c net.Conn) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		lockForGood()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		ns, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			done <- err
			return
		}
		t.Cleanup(func() { _ = unix.Close(ns) })
		if err := loopbackUp(); err != nil {
			done <- err
			return
		}
		c, err = net.Dial("udp", to)
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// TestRestart: with pins there is always somebody who translates, and what
// changed in between is made up for.
func TestRestart(t *testing.T) {
	dir := filepath.Join(pinRoot, "restart")
	r := newRig(t, func(c *Config) { c.PinPath, c.GuardNodePorts = dir, true })
	t.Cleanup(func() { _ = Cleanup(r.cfg) })
	one, two := serve(t, "127.0.0.1"), serve(t, "127.0.0.1")
	gone := service("10.96.0.11")
	gone.Name, gone.Ports = "gone", gone.Ports[:1]
	gone.Ports[0].NodePort = 0
	r.put(service("10.96.0.10"), one)
	r.put(gone, one)
	open, err := net.Dial("tcp", "10.96.0.10:80")
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()

	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var asked atomic.Int64
	bad := make(chan error, 1)
	go func() {
		defer close(bad)
		for ctx.Err() == nil {
			if _, err := ask("tcp", "10.96.0.10:80"); err != nil {
				bad <- err
				return
			}
			asked.Add(1)
		}
	}()
	wait := func() {
		t.Helper()
		for n := asked.Load() + 20; asked.Load() < n; {
			select {
			case err := <-bad:
				t.Fatal("while the proxy was exchanged: ", err)
			case <-time.After(time.Millisecond):
			}
		}
	}
	wait()
	for round := range 3 {
		r.stop()
		wait()
		if who, err := ask("tcp", "10.96.0.10:80"); err != nil || who != one.String() {
			t.Errorf("without a process: %q, %v", who, err)
		}
		r.cfg.MaxFlows, r.cfg.GuardNodePorts = 1000<<round, round == 1 // other sizes and programs
		r.start()
		wait()
		if who, err := ask("udp", "10.96.0.10:80"); err != nil || who != one.String() {
			t.Errorf("before the first change: %q, %v", who, err)
		}
		r.do(func(*catalog.Txn) {})
		wait()
	}
	r.stop()
	r.c.Update(func(tx *catalog.Txn) {
		tx.PutEndpoints(web, endpoints(two))
		tx.DeleteService(gone.Key)
	})
	r.start()
	r.do(func(*catalog.Txn) {})
	if got := r.reached("tcp", "10.96.0.10:80"); len(got) != 1 || got[two.String()] == 0 {
		t.Errorf("after a restart: %v, want %s", got, two)
	}
	if n := (counted[svcKey, svcValue]{r.d.maps.svc}).entries(); n != 4 {
		t.Errorf("%d frontends, want 4: the service that went is still there", n)
	}
	stop()
	<-bad
	if who, err := talk(open); err != nil || who != one.String() {
		t.Errorf("the connection from the beginning: %q, %v", who, err)
	}
	if got := open.RemoteAddr().String(); got != "10.96.0.10:80" {
		t.Error(got)
	}
	r.stop()
	if err := Cleanup(r.cfg); err != nil {
		t.Error(err)
	}
	if untranslated(t) {
		return
	}
	t.Error("it still translates after Cleanup")
}

// untranslated says whether a connected UDP socket says the endpoint of
// service web. Nothing is sent.
func untranslated(t *testing.T) bool {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	err = syscall.Connect(fd, &syscall.SockaddrInet4{Addr: [4]byte{10, 96, 0, 10}, Port: 80})
	if err != nil {
		return !errors.Is(err, syscall.ECONNREFUSED)
	}
	local, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return local.(*syscall.SockaddrInet4).Addr[0] != 127 // the endpoints are on loopback
}

func TestWithoutPins(t *testing.T) {
	r := newRig(t, nil)
	r.put(service("10.96.0.10"), serve(t, "127.0.0.1"))
	if untranslated(t) {
		t.Error("it does not translate")
	}
	r.stop()
	if !untranslated(t) {
		t.Error("it translates although the process is done")
	}
	if err := r.d.Apply(context.Background(), catalog.Batch{}); err == nil {
		t.Error("Apply succeeds although the driver has stopped")
	}
}

func TestAffinity(t *testing.T) {
	r := newRig(t, nil)
	s := service("10.96.0.10", "fd96::10")
	s.Affinity = time.Hour
	var all []netip.AddrPort
	for range 6 {
		all = append(all, serve(t, "127.0.0.1"))
	}
	// Endpoints on one address: what the door of processes gives.
	r.put(s, all...)
	only := func(network, to string) string {
		t.Helper()
		got := r.reached(network, to)
		if len(got) != 1 {
			t.Fatalf("%s %s: %v, want one endpoint", network, to, got)
		}
		for who := range got {
			return who
		}
		return ""
	}
	first := only("tcp", "10.96.0.10:80")
	for _, to := range []string{"10.96.0.10:80", "127.0.0.1:30080"} {
		for _, network := range []string{"tcp", "udp"} {
			if who := only(network, to); who != first {
				t.Errorf("%s %s leads to %s, want %s as before", network, to, who, first)
			}
		}
	}
	mine := netip.MustParseAddrPort(first)
	r.put(s, append([]netip.AddrPort{serve(t, "127.0.0.1"), mine}, all[:2]...)...)
	if who := only("tcp", "10.96.0.10:80"); who != first {
		t.Errorf("others came and went, and %s became %s", first, who)
	}
	rest := slices.DeleteFunc(slices.Clone(all), func(a netip.AddrPort) bool { return a == mine })
	r.put(s, rest...)
	second := only("tcp", "10.96.0.10:80")
	if second == first {
		t.Error("the endpoint has left")
	}
	r.put(s, all...)
	if who := only("tcp", "10.96.0.10:80"); who != second {
		t.Errorf("the first came back, and %s became %s", second, who)
	}
}

// TestWeights counts connections.
func TestWeights(t *testing.T) {
	r := newRig(t, nil)
	one, two := serve(t, "127.0.0.1"), serve(t, "127.0.0.1")
	eps := endpoints(one, two)
	eps[0].Weight = 300
	r.do(func(tx *catalog.Txn) { tx.PutService(service("10.96.0.10")); tx.PutEndpoints(web, eps) })
	got := map[string]int{}
	for range 10 {
		for who, n := range r.reached("tcp", "10.96.0.10:80") {
			got[who] += n
		}
	}
	if share := float64(got[one.String()]) / 600; share < 0.65 || share > 0.85 { // 0.75, 5 sigma
		t.Errorf("the heavier endpoint got %.2f of the connections", share)
	}
}

// TestRepair: somebody else writes to our maps.
func TestRepair(t *testing.T) {
	r := newRig(t, nil)
	one := serve(t, "127.0.0.1")
	r.put(service("10.96.0.10"), one)
	for k, f := range r.d.fronts {
		if k.Scope == scopeAddr {
			_ = r.d.maps.svc.Delete(&k)
		} else {
			_ = r.d.maps.slot.Delete(&slotKey{f.id, 0})
		}
	}
	if err := r.d.maps.slot.Put(&slotKey{4711, 0}, &slotValue{}); err != nil {
		t.Fatal(err)
	}
	for k := range r.d.addrs {
		_ = r.d.maps.addr.Delete(&k)
	}
	if _, err := ask("tcp", "127.0.0.1:30080"); err == nil {
		t.Error("nothing was broken")
	}
	r.d.audit()
	for _, to := range []string{"10.96.0.10:80", "127.0.0.1:30080"} {
		if who, err := ask("tcp", to); err != nil || who != one.String() {
			t.Errorf("%s: %q, %v", to, who, err)
		}
	}
	if n := (counted[slotKey, slotValue]{r.d.maps.slot}).entries(); n != 4 {
		t.Errorf("%d slots, want 4", n)
	}
}

// TestFull: a service that does not fit is named, and the others go on.
func TestFull(t *testing.T) {
	r := newRig(t, func(c *Config) { c.MaxSlots = 16 })
	one := serve(t, "127.0.0.1")
	small, big := service("10.96.0.10"), service("10.96.0.11")
	big.Name, big.Ports = "big", big.Ports[:1]
	big.Ports[0].NodePort = 0
	small.Ports = small.Ports[:1]
	var many []netip.AddrPort
	for i := range 40 {
		many = append(many, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 1, 1, byte(i)}), 80))
	}
	r.put(small, one)
	r.c.Update(func(tx *catalog.Txn) { tx.PutService(big); tx.PutEndpoints(big.Key, endpoints(many...)) })
	if err := r.d.Apply(context.Background(), r.sub.TryNext()); err == nil {
		t.Error("no error")
	}
	r.d.tick()
	r.mu.Lock()
	events := strings.Join(r.events, ", ")
	r.mu.Unlock()
	if events != "big "+ReasonFull {
		t.Errorf("events: %s", events)
	}
	if got := r.reached("tcp", "10.96.0.10:80"); got[one.String()] != 60 {
		t.Errorf("the other service: %v", got)
	}
	r.c.Update(func(tx *catalog.Txn) { tx.PutEndpoints(big.Key, endpoints(one)) })
	_ = r.d.Apply(context.Background(), r.sub.TryNext())
	r.d.tick()
	if who, err := ask("tcp", "10.96.0.11:80"); err != nil || who != one.String() {
		t.Errorf("when it fits: %q, %v", who, err)
	}
}

func TestRefusals(t *testing.T) {
	cgroup := needKernel(t)
	for _, c := range []struct {
		cfg  Config
		want string
	}{
		{Config{CgroupPath: "/tmp"}, "not in a cgroup2 hierarchy"},
		{Config{CgroupPath: filepath.Join(cgroup, "nowhere")}, "not in a cgroup2 hierarchy"},
		{Config{CgroupPath: cgroup, PinPath: t.TempDir()}, "mount -t bpf"},
	} {
		if err := Probe(c.cfg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Probe: %v, want %q", err, c.want)
		}
		if _, err := New(c.cfg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("New: %v, want %q", err, c.want)
		}
	}
	if err := Cleanup(Config{PinPath: filepath.Join(pinRoot, "never")}); err != nil {
		t.Error(err)
	}
}
