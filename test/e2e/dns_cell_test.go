//go:build linux

package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// cell is a machine of its own as far as names go: a network namespace with
// loopback only, a resolv.conf and a /var/lib of its own. A process that does
// nothing holds it.
type cell struct {
	holder *child
	dir    string
}

// newCell needs root. Programs leave out families of which the machine has no
// address but 127.0.0.1 and ::1 (AI_ADDRCONFIG), so that it gets one of each.
// With whole set /etc is a copy, so that files in it can be replaced; else only
// resolv.conf is mounted, as in containers.
func newCell(t testing.TB, resolv string, whole bool) *cell {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("namespaces of the network and of mounts are made by root only")
	}
	for _, p := range []string{"unshare", "nsenter", "ip", "getent"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%s is not installed (hack/deps.sh installs it)", p)
		}
	}
	dir, err := os.MkdirTemp(tools.dir, "cell-")
	if err != nil {
		t.Fatal(err)
	}
	c := &cell{dir: dir}
	mount := `mount --bind "$1/resolv.conf" /etc/resolv.conf`
	if whole {
		mount = `cp -a /etc "$1/etc"; rm -f "$1/etc/resolv.conf"; cp "$1/resolv.conf" "$1/etc/resolv.conf"; mount --bind "$1/etc" /etc`
	}
	if err := os.WriteFile(filepath.Join(dir, "resolv.conf"), []byte(resolv), 0o644); err != nil {
		t.Fatal(err)
	}
	script := "set -e; mount --make-rprivate /; " + mount + "; mount -t tmpfs tmpfs /var/lib; ip link set lo up; ip addr add 198.51.100.1/32 dev lo; ip addr add fd00:200::1/128 dev lo nodad; echo is made; exec sleep 1000000"
	c.holder = start(t, "cell", exec.Command("unshare", "--mount", "--net", "--", "sh", "-c", script, "cell", dir))
	if err := c.holder.waitFor("is made"); err != nil {
		t.Skipf("no namespaces can be had here: %v", err)
	}
	return c
}

func (c *cell) pid() int { return c.holder.cmd.Process.Pid }

// enter makes a command one that runs inside.
func (c *cell) enter(cmd *exec.Cmd) *exec.Cmd {
	in := exec.Command("nsenter", append([]string{"-t", fmt.Sprint(c.pid()), "-m", "-n", "--"}, cmd.Args...)...)
	in.Args[6] = cmd.Args[0]
	if cmd.Path != "" {
		in.Args[6] = cmd.Path
	}
	in.Env, in.Stdin = cmd.Env, cmd.Stdin
	return in
}

// run is a command inside, to its end.
func (c *cell) run(t testing.TB, args ...string) result {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = environ(t, c.dir)
	return finish(t, c.enter(cmd))
}

// within runs f on a thread that is inside the network namespace for that
// long. f must not start goroutines that open sockets. The thread comes back:
// would it end, the kernel would kill the children that it started for others.
func (c *cell) within(f func() error) error { return inNetwork(c.pid(), f) }

// inNetwork is within for the namespace of a process.
func inNetwork(pid int, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			done <- err
			return
		}
		defer home.Close()
		ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
		if err != nil {
			done <- err
			return
		}
		defer ns.Close()
		if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err == nil {
			err = f()
		}
		if e := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); e == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// nameserver answers inside, over UDP and TCP, until the test ends.
func (c *cell) nameserver(t testing.TB, addr string, answer func(q *dns.Msg) *dns.Msg) {
	t.Helper()
	var udp net.PacketConn
	var tcp net.Listener
	if err := c.within(func() (err error) {
		if udp, err = net.ListenPacket("udp4", addr); err == nil {
			tcp, err = net.Listen("tcp4", addr)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	h := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) { _ = w.WriteMsg(answer(q)) })
	for _, s := range []*dns.Server{{PacketConn: udp, Handler: h}, {Listener: tcp, Handler: h}} {
		up, down := make(chan struct{}), make(chan struct{})
		s.NotifyStartedFunc = func() { close(up) }
		go func() { _ = s.ActivateAndServe(); close(down) }()
		<-up
		t.Cleanup(func() { _ = s.Shutdown(); <-down })
	}
}

// upstreamZone is what the name servers of the outer world say.
var upstreamZone = []string{
	"example.com. 60 IN A 192.0.2.80",
	"my.database.example.com. 60 IN A 192.0.2.81",
	"my.database.example.com. 60 IN AAAA 2001:db8::81",
}

func upstream(q *dns.Msg) *dns.Msg {
	m := new(dns.Msg).SetReply(q)
	m.RecursionAvailable, m.Rcode = true, dns.RcodeNameError
	for _, line := range upstreamZone {
		rr, err := dns.NewRR(line)
		if err != nil || !strings.EqualFold(rr.Header().Name, q.Question[0].Name) {
			continue
		}
		if m.Rcode = dns.RcodeSuccess; rr.Header().Rrtype == q.Question[0].Qtype {
			m.Answer = append(m.Answer, rr)
		}
	}
	return m
}

// celled is a system that runs inside a cell.
type celled struct {
	*system
	cell *cell
}

// dev runs the whole system inside.
func (c *cell) dev(t testing.TB, more ...string) *celled {
	t.Helper()
	sys := layout(newSite(t), 1, t.TempDir())
	sys.child = start(t, "dev", c.enter(sys.fingerpost(t, sys.args("dev", more...)...)))
	if err := sys.waitFor("is ready"); err != nil {
		t.Fatal(err)
	}
	return &celled{sys, c}
}

func (s *celled) cli(t testing.TB, args ...string) result {
	t.Helper()
	return finish(t, s.cell.enter(s.fingerpost(t, args...)))
}

func (s *celled) ctl(t testing.TB, stdin string, args ...string) string {
	t.Helper()
	cmd := s.kubectl(t, args...)
	cmd.Stdin = strings.NewReader(stdin)
	r := finish(t, s.cell.enter(cmd))
	if r.code != 0 {
		t.Fatalf("kubectl %s: exit %d\n%s%s", strings.Join(args, " "), r.code, r.out, r.err)
	}
	return r.out
}

// getent gives the addresses that programs get for a name.
func (c *cell) getent(t testing.TB, name string) string {
	t.Helper()
	r := c.run(t, "getent", "ahosts", name)
	var addrs []string
	for line := range strings.Lines(r.out) {
		addrs = append(addrs, strings.Fields(line)[0])
	}
	slices.Sort(addrs)
	return strings.Join(slices.Compact(addrs), " ")
}

func (c *cell) read(t testing.TB, p string) string {
	t.Helper()
	r := c.run(t, "cat", p)
	if r.code != 0 {
		t.Fatalf("%s: %s", p, r.err)
	}
	return r.out
}
