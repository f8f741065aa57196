//go:build linux

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// machine is a computer of its own as far as programs can tell: network,
// mounts, processes and host name. Its first process holds it; all others end
// with that one, so that nothing stays of a test that was killed.
type machine struct {
	name   string
	addr   string // of eth0
	dir    string
	holder *child
	first  int // number of its first process, as seen from here
	jobs   chan job
}

type job struct {
	cmd  *exec.Cmd
	done chan error
}

// boot makes a machine that is connected to nothing.
func boot(bin, name, addr string) (*machine, error) {
	dir, err := os.MkdirTemp(tools.dir, "machine-")
	if err != nil {
		return nil, err
	}
	// What answers for names outside of the cluster is nowhere.
	if err := os.WriteFile(filepath.Join(dir, "resolv.conf"), []byte("nameserver 192.0.2.53\noptions timeout:1 attempts:1\n"), 0o644); err != nil {
		return nil, err
	}
	script := `set -e; mount --make-rprivate /; mount --bind "$1/resolv.conf" /etc/resolv.conf
mount -t tmpfs tmpfs /var/lib; mount -t tmpfs tmpfs /run; hostname "$2"; ip link set lo up
sleep 1000000 & echo is made; while :; do wait; done`
	m := &machine{name: name, addr: addr, dir: dir, jobs: make(chan job)}
	m.holder, err = spawn("machine-"+name, tools.dir, exec.Command("unshare", "--mount", "--net", "--pid", "--uts", "--ipc",
		"--fork", "--kill-child", "--mount-proc", "--", "sh", "-c", script, "machine", dir, name))
	if err != nil {
		return nil, err
	}
	if err := m.holder.waitFor("is made"); err != nil {
		return nil, err
	}
	pid := m.holder.cmd.Process.Pid
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err == nil {
		_, err = fmt.Sscan(string(text), &m.first)
	}
	if err != nil {
		return nil, fmt.Errorf("e2e: find the first process of %s: %w", name, err)
	}
	up := make(chan error)
	go m.serve(up)
	return m, <-up
}

// serve starts what is to run inside, on a thread that stays there. It never
// ends: the kernel would kill what the thread had started for others before.
func (m *machine) serve(up chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == os.Getpid() { // the process would be inside, as far as /proc goes
		other := make(chan error)
		go m.serve(other)
		up <- <-other
		runtime.UnlockOSThread()
		return
	}
	err := unix.Unshare(unix.CLONE_FS)
	var files []*os.File
	for _, ns := range []string{"net", "uts", "ipc", "pid", "mnt"} {
		var f *os.File
		if err == nil {
			f, err = os.Open(fmt.Sprintf("/proc/%d/ns/%s", m.first, ns))
			files = append(files, f)
		}
	}
	for _, f := range files {
		if err == nil {
			err = unix.Setns(int(f.Fd()), 0)
		}
		_ = f.Close()
	}
	up <- err
	for j := range m.jobs {
		j.done <- j.cmd.Start()
	}
	select {}
}

// halt ends everything that runs inside.
func (m *machine) halt() {
	close(m.jobs)
	m.holder.kill()
}

// start is cmd.Start inside.
func (m *machine) start(cmd *exec.Cmd) error {
	j := job{cmd, make(chan error)}
	m.jobs <- j
	return <-j.done
}

// spawn starts a program inside that goes on.
func (m *machine) spawn(name string, cmd *exec.Cmd) (*child, error) {
	f, err := os.CreateTemp(tools.dir, name+"-*.log")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	c := &child{name: name, cmd: cmd, log: f.Name(), done: make(chan struct{})}
	if cmd.Stdout == nil {
		cmd.Stdout = f
	}
	cmd.Stderr = f
	if err := m.start(cmd); err != nil {
		return nil, fmt.Errorf("e2e: start %s: %w", name, err)
	}
	go func() {
		c.err = cmd.Wait()
		close(c.done)
	}()
	return c, nil
}

// finish runs a program inside to its end.
func (m *machine) finish(t testing.TB, cmd *exec.Cmd) result {
	t.Helper()
	var out, errw bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errw
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	if err := m.start(cmd); err != nil {
		t.Fatal(err)
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if ctx.Err() != nil {
		t.Fatalf("%s does not end:\n%s%s", strings.Join(cmd.Args, " "), out.String(), errw.String())
	}
	return result{out.String(), errw.String(), cmd.ProcessState.ExitCode()}
}

// sh runs a line of shell inside.
func (m *machine) sh(t testing.TB, line string) string {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", line)
	cmd.Env = environ(t, m.dir)
	r := m.finish(t, cmd)
	if r.code != 0 {
		t.Fatalf("on %s: %s: exit %d\n%s%s", m.name, line, r.code, r.out, r.err)
	}
	return r.out
}

// dial connects from inside.
func (m *machine) dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	err = inNetwork(m.first, func() error {
		conn, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// caller makes requests from inside, each on a connection of its own.
func (m *machine) caller() *http.Client {
	return &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: m.dial}}
}

// fetch gets a URL from inside; the code is 0 when there was no answer.
func (m *machine) fetch(url string) (int, string) {
	res, err := m.caller().Get(url)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err.Error()
	}
	return res.StatusCode, string(b)
}

// inventory is what a machine has that pods could leave behind.
func (m *machine) inventory() (string, error) {
	const line = `echo links: $(ip -o link | awk -F'[ :@]+' '{print $2}' | sort)
echo addresses: $(ip -o addr show scope global | awk '{print $2 "=" $4}' | sort)
echo routes: $(ip route show table all | grep -c '10\.244\.[0-9]*\.[1-9]')
echo rules: $(nft list ruleset 2>/dev/null | grep -c '10\.244\.[0-9]*\.[1-9]')
echo namespaces: $(ls /run/fingerpost/netns 2>/dev/null | wc -l)
awk '{print "mount: " $5}' /proc/self/mountinfo | sort
for p in /proc/[0-9]*; do
	name=$(tr '\0' ' ' <$p/cmdline 2>/dev/null | cut -c1-80)
	case "$name" in *" dev --"*|*" node --"*|"sh -c set -e; mount"*|"/bin/sh -c echo links"*|"sleep 1000000 "|"sort "|"tr "*|"cut "*) ;;
	*) [ -z "$name" ] || echo process: $name; esac
done | sort`
	cmd := exec.Command("/bin/sh", "-c", line)
	p, err := m.spawn("inventory", cmd)
	if err != nil {
		return "", err
	}
	<-p.done
	return p.text(), p.err
}

// clean waits until the machine has nothing but what it had before.
func (m *machine) clean(t testing.TB, before string) {
	t.Helper()
	eventually(t, "nothing of pods is left on "+m.name, func() error {
		now, err := m.inventory()
		if err != nil {
			return err
		}
		return unless(asBefore(now, before), "there is\n%s\nand was before\n%s", now, before)
	})
}

// asBefore says whether a machine has what it had before and nothing else. Mounts
// may be fewer: those that this machine of ours had when the other was made are
// there too, and the kernel takes them away when their directories are removed
// here.
func asBefore(now, before string) bool {
	mounts := map[string]int{}
	other := func(text string, count int) string {
		var b strings.Builder
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, "mount: ") {
				mounts[line] += count
			} else {
				b.WriteString(line)
			}
		}
		return b.String()
	}
	if other(before, -1) != other(now, 1) {
		return false
	}
	for _, more := range mounts {
		if more > 0 {
			return false
		}
	}
	return true
}

// settled is the inventory once it stays the same.
func (m *machine) settled() (now string, err error) {
	err = poll(func() error {
		before := now
		if now, err = m.inventory(); err != nil {
			return err
		}
		return unless(before == now, "it changes from\n%s\nto\n%s", before, now)
	})
	return now, err
}
