//go:build linux

package e2e

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// nobody is a user with no rights.
const nobody = 65534

// TestUnprivileged: without root everything works but ports below 1024, and
// who asks for one is told what to do.
func TestUnprivileged(t *testing.T) {
	t.Parallel()
	at := newSite(t)
	dir := filepath.Join(tools.dir, "unprivileged") // t.TempDir is for us only
	sys := layout(at, 1, dir)
	bin := filepath.Join(dir, "bin")
	as := func(cmd *exec.Cmd) *exec.Cmd { return cmd }
	if os.Geteuid() == 0 {
		as = func(cmd *exec.Cmd) *exec.Cmd {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
			return cmd
		}
	}
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	// Copies, as the originals may lie where only we can read.
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	clone(t, filepath.Join(tools.bin(t), "fingerpost"), filepath.Join(bin, "fingerpost"))
	clone(t, self, filepath.Join(bin, "programs"))
	if err := as(exec.Command("true")).Run(); err != nil {
		t.Skipf("no other user can be had here: %v", err)
	}
	for _, d := range []string{sys.home, sys.data} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
		if os.Geteuid() == 0 {
			if err := os.Chown(d, nobody, nobody); err != nil {
				t.Fatal(err)
			}
		}
	}
	fp := func(args ...string) *exec.Cmd {
		cmd := exec.Command(filepath.Join(bin, "fingerpost"), args...)
		cmd.Env, cmd.Dir = append(environ(t, sys.home), "FINGERPOST_DATA="+sys.data, programEnv+"=web"), sys.home
		return as(cmd)
	}
	// The range is the default one.
	sys.child = start(t, "dev", fp("dev", "--no-pods", "--listen", sys.listen, "--metrics-address", sys.obs, "--dns-address", sys.dns, "--node-address", at.ip(0, 1)))
	if err := sys.waitFor("is ready"); err != nil {
		t.Fatal(err)
	}
	start(t, "run", fp("run", "--name", "web", "--port", "0", "--replicas", "2", "--", filepath.Join(bin, "programs"), "-listen", "127.0.0.1:{port}"))
	eventually(t, "two endpoints", func() error { return readyEndpoints(sys, t, "default", "web", 2) })
	ip := sys.must(t, "get", "service", "web", "-o", "jsonpath={.spec.clusterIP}")
	if !strings.HasPrefix(ip, "127.96.") {
		t.Errorf("ClusterIP %s, want one of 127.96.0.0/16", ip)
	}
	eventually(t, "both answer", func() error {
		n := len(answers("http://"+ip+":8080/", 20))
		return unless(n == 2, "%d processes answer at %s", n, ip)
	})
	if curl, err := exec.LookPath("curl"); err == nil {
		if r := finish(t, exec.Command(curl, "-sf", "http://"+ip+":8080/")); r.code != 0 {
			t.Errorf("curl: exit %d %s", r.code, r.err)
		}
	}
	sys.must(t, "create", "service", "nodeport", "np", "--tcp=8080", "--node-port=31111")
	sys.apply(t, "default", instance(node(t), "np", "np", "127.0.0.1", "", "8080="+webPort(t, ip)))
	eventually(t, "the node port answers", func() error {
		code, body := fetch("http://" + at.at(0, 1, 31111) + "/")
		return unless(code == 200, "%d %s", code, body)
	})

	text, _ := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	if n, _ := strconv.Atoi(strings.TrimSpace(string(text))); n <= 80 {
		t.Skipf("every user may listen on port 80 here")
	}
	sys.must(t, "create", "service", "clusterip", "low", "--tcp=80")
	eventually(t, "an Event that says what to do", func() error {
		got := sys.must(t, "describe", "service", "low")
		return unless(strings.Contains(got, "Warning") && strings.Contains(got, "ip_unprivileged_port_start"), "%s", got)
	})
}

// webPort finds the port of one of the processes behind a Service's address:
// any that answers will do.
func webPort(t testing.TB, ip string) string {
	t.Helper()
	var port string
	eventually(t, "the environment of a process", func() error {
		code, body := fetch("http://" + ip + ":8080/env")
		for line := range strings.Lines(body) {
			if v, ok := strings.CutPrefix(line, "PORT="); ok {
				port = strings.TrimSpace(v)
			}
		}
		return unless(port != "", "%d %s", code, body)
	})
	return port
}

// clone copies a program. Another process does: would we write it, children
// that start meanwhile would have it open for a moment, and it could not be run
// ("text file busy").
func clone(t testing.TB, from, to string) {
	t.Helper()
	if out, err := exec.Command("cp", "-L", "--", from, to).CombinedOutput(); err != nil {
		t.Fatalf("copy %s: %v\n%s", from, err, out)
	}
	if err := os.Chmod(to, 0o755); err != nil {
		t.Fatal(err)
	}
}

// TestPrivilegedRange: root takes ClusterIPs from an ordinary range, which is
// made local by a route that is gone afterwards.
func TestPrivilegedRange(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("routes can be added by root only")
	}
	at := newSite(t)
	sys := layout(at, 1, t.TempDir())
	// Benchmarking networks (RFC 2544): nobody's.
	cidr := "198.18." + strconv.Itoa(at.n) + ".0/24"
	args := sys.args("dev")
	for i := range args {
		if args[i] == at.cidr() {
			args[i] = cidr
		}
	}
	sys.child = start(t, "dev", sys.fingerpost(t, args...))
	if err := sys.waitFor("is ready"); err != nil {
		if strings.Contains(sys.text(), "operation not permitted") {
			t.Skip("this root may not add routes")
		}
		t.Fatal(err)
	}
	start(t, "run", sys.fingerpost(t, "run", "--name", "web", "--port", "0", "--service-port", "80", "--", "web", "-listen", "127.0.0.1:{port}"))
	eventually(t, "an endpoint", func() error { return readyEndpoints(sys, t, "default", "web", 1) })
	ip := sys.must(t, "get", "service", "web", "-o", "jsonpath={.spec.clusterIP}")
	if !strings.HasPrefix(ip, "198.18.") {
		t.Errorf("ClusterIP %s, want one of %s", ip, cidr)
	}
	eventually(t, "an answer on port 80", func() error {
		code, body := fetch("http://" + ip + "/")
		return unless(code == 200, "%d %s", code, body)
	})
	eventually(t, "the API at its ClusterIP", func() error {
		r := finish(t, sys.kubectl(t, "--server", "https://198.18."+strconv.Itoa(at.n)+".1", "get", "--raw", "/version"))
		return unless(r.code == 0, "exit %d %s", r.code, r.err)
	})
	sys.stop()
	if l, err := net.Listen("tcp", ip+":0"); err == nil {
		l.Close()
		t.Errorf("%s is still an address of this machine after the end", ip)
	}
}
