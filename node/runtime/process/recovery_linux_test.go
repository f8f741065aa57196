package process

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/fingerpost/fingerpost/node/runtime"
)

// TestAgentRestart: what ran goes on, and what ended meanwhile is known.
func TestAgentRestart(t *testing.T) {
	m := newMachine(t)
	m.pod("p")
	stays := m.container("p", "stays", "n=0; while :; do n=$((n+1)); echo $n; sleep 0.01; done")
	ends := m.container("p", "ends", "until test -e /tmp/go; do sleep 0.01; done; exit 42")
	ends.Labels = map[string]string{"restart": "never"}
	m.run(stays)
	m.run(ends)
	pid := m.state(stays.ID).PID
	// The container may end, and what runs in it, before touch itself has.
	if _, code := m.exec(ends.ID, "touch /tmp/go"); code != 0 && code != 137 {
		t.Fatal(code)
	}
	m.Close() // the agent is gone
	m.Runtime = m.open()
	s := m.wait(ends.ID)
	if s.ExitCode != 42 || s.Labels["restart"] != "never" || s.LogPath != ends.LogPath {
		t.Errorf("%+v", s)
	}
	if s := m.state(stays.ID); !s.Running() || s.PID != pid {
		t.Errorf("%+v", s)
	}
	if err := m.StartContainer(m.ctx, stays); err != nil || m.state(stays.ID).PID != pid {
		t.Errorf("started again: %v", err)
	}
	before := len(m.output(stays))
	m.until("output goes on", func() bool { return len(m.output(stays)) > before })
}

func TestEnded(t *testing.T) {
	m := newMachine(t)
	ctx, cancel := context.WithCancel(m.ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		if err := m.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	m.pod("p")
	for i := range 3 {
		c := m.container("p", "c", "true")
		c.ID.Attempt = i
		m.run(c)
		for id := range m.Ended() {
			if id == c.ID { // an earlier one may be told again
				break
			}
		}
	}
	pods, err := m.List(m.ctx)
	if err != nil || len(pods) != 1 || len(pods[0].Containers) != 2 {
		t.Errorf("%+v, %v: the last two attempts are kept", pods, err)
	}
}

// TestKeeperKilled: containers live on, their output is not lost, and what
// nobody saw is said to be unseen.
func TestKeeperKilled(t *testing.T) {
	m := newMachine(t)
	m.pod("p", func(c *runtime.PodConfig) { c.SharePID = true })
	m.pod("q")
	count := m.container("p", "count", "n=0; while :; do n=$((n+1)); echo $n; sleep 0.002; done")
	ends := m.container("p", "ends", "until test -e /tmp/go; do sleep 0.005; done; exit 43")
	gone := m.container("q", "gone", "sleep 1000")
	for _, c := range []runtime.ContainerConfig{count, ends, gone} {
		m.run(c)
	}
	m.until("it counts", func() bool { return strings.Count(m.output(count), "\n") > 5 })
	pid := m.state(count.ID).PID
	dead := m.state(gone.ID).PID
	old := m.keeper()
	if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	m.until("the keeper is gone", func() bool { return m.keeper() != old })
	if err := syscall.Kill(dead, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	m.until("the container is gone", func() bool { return !alive(dead) })
	if s := m.state(count.ID); !s.Running() || s.PID != pid {
		t.Fatalf("%+v", s)
	}
	if s := m.state(gone.ID); s.Running() || s.Failure == "" {
		t.Errorf("%+v", s)
	}
	if _, code := m.exec(ends.ID, "touch /tmp/go"); code != 0 && code != 137 {
		t.Error(code)
	}
	if s := m.wait(ends.ID); s.ExitCode != 43 && s.Failure == "" {
		t.Errorf("%+v", s)
	} else {
		t.Logf("ended under another keeper: exit %d %s", s.ExitCode, s.Failure)
	}
	before := strings.Count(m.output(count), "\n")
	m.until("output goes on", func() bool { return strings.Count(m.output(count), "\n") > before+5 })
	// No line is missing and none is there twice.
	for i, line := range strings.Split(strings.TrimSpace(m.output(count)), "\n") {
		if line != fmt.Sprint(i+1) {
			t.Fatalf("line %d is %q", i+1, line)
		}
	}
	next := m.container("p", "next", "hostname; ps | grep -c 'sleep'")
	m.run(next)
	m.wait(next.ID)
	if out := m.output(next); !strings.HasPrefix(out, "host-p\n") {
		t.Errorf("%q", out)
	}
	if err := m.StopContainer(m.ctx, count.ID, 0); err != nil || m.state(count.ID).Running() {
		t.Error(err)
	}
}

// alive is true for what runs; a zombie waits for process 1 of the machine.
func alive(pid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(data), ") Z ")
}

// traces gives what of our directory or process is left on the machine.
func (m *machine) traces(pids ...int) (left []string) {
	m.t.Helper()
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil {
		m.t.Fatal(err)
	}
	if strings.Contains(string(mounts), m.dir) {
		left = append(left, "mounts")
	}
	for _, pid := range pids {
		if alive(pid) {
			left = append(left, fmt.Sprintf("process %d", pid))
		}
	}
	for _, pattern := range []string{fmt.Sprintf("/sys/fs/cgroup/*/fingerpost-test-%d/*/*", os.Getpid()), m.dir + "/run/pods/*", m.dir + "/logs/*"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			m.t.Fatal(err)
		}
		for _, n := range names {
			if fi, err := os.Stat(n); err == nil && (fi.IsDir() || !strings.HasPrefix(n, "/sys")) {
				left = append(left, n)
			}
		}
	}
	return left
}

func TestRemoveLeavesNothing(t *testing.T) {
	m := newMachine(t)
	for _, share := range []bool{false, true} {
		for _, kill := range []bool{false, true} {
			m.pod("p", func(c *runtime.PodConfig) { c.SharePID = share })
			c := m.container("p", "c", "trap '' TERM; sleep 1000 & sleep 1001 & sleep 1002")
			c.MemoryBytes, c.CPUMillis = 64<<20, 500
			m.run(c)
			own := m.container("p", "own", "")
			own.Root.Layers, own.Args = nil, []string{"/bin/sleep", "1003"}
			m.run(own)
			pids := []int{m.state(c.ID).PID, m.state(own.ID).PID}
			if kill {
				old := m.keeper()
				syscall.Kill(old, syscall.SIGKILL)
				m.until("the keeper is gone", func() bool { return m.keeper() != old })
			}
			for range 2 {
				if err := m.RemovePod(m.ctx, "p"); err != nil {
					t.Fatal(err)
				}
			}
			if left := m.traces(pids...); len(left) > 0 {
				t.Errorf("shared %v, keeper killed %v: left %q", share, kill, left)
			}
		}
	}
	if pods, err := m.List(m.ctx); err != nil || len(pods) != 0 {
		t.Errorf("%v, %v", pods, err)
	}
}

func TestOutOfMemory(t *testing.T) {
	m := newMachine(t)
	if _, err := os.Stat("/sys/fs/cgroup/memory"); err != nil {
		if data, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers"); err != nil || !strings.Contains(string(data), "memory") {
			t.Skip("this machine has no memory cgroup")
		}
	}
	_, s := m.once("x=0123456789; while :; do x=$x$x; done", func(c *runtime.ContainerConfig) { c.MemoryBytes = 32 << 20 })
	if !s.OOM || s.ExitCode != 137 {
		t.Errorf("%+v", s)
	}
}

func TestManyAtOnce(t *testing.T) {
	m := newMachine(t)
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			uid := fmt.Sprintf("p%d", i)
			c := m.container(uid, "c", "sleep 1000")
			if err := m.StartPod(m.ctx, runtime.PodConfig{UID: uid, Hostname: uid}); err != nil {
				t.Error(err)
			} else if err := m.StartContainer(m.ctx, c); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	pods, err := m.List(m.ctx)
	if err != nil || len(pods) != 50 {
		t.Fatalf("%d pods, %v", len(pods), err)
	}
	t.Logf("keeper with 50 containers: %s", rss(m.keeper()))
	var pids []int
	for _, p := range pods {
		pids = append(pids, p.Containers[0].PID)
		wg.Go(func() {
			if err := m.RemovePod(m.ctx, p.Config.UID); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if left := m.traces(pids...); len(left) > 0 {
		t.Errorf("left %q", left)
	}
}

// rss tells the memory of a process.
func rss(pid int) string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return err.Error()
	}
	var out []string
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(line, "Rss") || strings.HasPrefix(line, "VmRSS") || strings.HasPrefix(line, "Threads") {
			out = append(out, strings.Join(strings.Fields(line), " "))
		}
	}
	return strings.Join(out, ", ")
}

// TestFlood: a container that prints without end costs no memory.
func TestFlood(t *testing.T) {
	m := newMachine(t)
	m.pod("p")
	c := m.container("p", "c", "yes "+strings.Repeat("0123456789", 100)+" | head -c 100000000")
	c.LogMaxSize, c.LogMaxFiles = 1<<20, 2
	m.run(c)
	m.wait(c.ID)
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.keeper()))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		var kb int
		if n, _ := fmt.Sscanf(line, "RssAnon: %d kB", &kb); n == 1 && kb > 24<<10 {
			t.Errorf("the keeper has %d kB after 100 MB of output", kb)
		}
	}
}

func BenchmarkStart(b *testing.B) {
	m := newMachine(b)
	n := 0
	for b.Loop() {
		uid := fmt.Sprintf("p%d", n)
		n++
		m.pod(uid)
		m.run(m.container(uid, "c", "sleep 1000"))
		b.StopTimer()
		if err := m.RemovePod(m.ctx, uid); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

func BenchmarkExec(b *testing.B) {
	m := newMachine(b)
	m.pod("p")
	c := m.container("p", "c", "sleep 1000")
	m.run(c)
	for b.Loop() {
		if _, err := m.Exec(m.ctx, c.ID, runtime.ExecConfig{Args: []string{"true"}}); err != nil {
			b.Fatal(err)
		}
	}
}
