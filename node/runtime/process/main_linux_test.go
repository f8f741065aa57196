package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fingerpost/fingerpost/node/runtime"
)

// machine is a runtime in a directory of its own, with an image of busybox.
type machine struct {
	*Runtime
	t     testing.TB
	ctx   context.Context
	dir   string
	image string
}

func newMachine(t testing.TB) *machine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("takes root")
	}
	box, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("busybox is not installed (Debian: apt-get install busybox-static)")
	}
	m := &machine{t: t, dir: t.TempDir()}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	m.ctx = ctx
	m.image = filepath.Join(m.dir, "image")
	for _, d := range []string{"bin", "etc", "tmp"} {
		if err := os.MkdirAll(filepath.Join(m.image, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(box)
	if err != nil {
		t.Fatal(err)
	}
	m.write("bin/busybox", string(data), 0o755)
	for _, name := range strings.Fields("sh echo cat sleep hostname ls id mount touch ps kill tty stty ipcs ipcmk readlink mkdir grep pwd env stat yes head dd true false ln") {
		if err := os.Symlink("busybox", filepath.Join(m.image, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	m.write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\napp:x:1234:1235:app:/home/app:/bin/sh\n", 0o644)
	m.write("etc/group", "root:x:0:\napp:x:1235:\nextra:x:77:app\n", 0o644)
	m.write("bin/plain", "not a program", 0o644)
	m.Runtime = m.open()
	t.Cleanup(func() {
		defer cancel()
		quit, stop := context.WithTimeout(context.Background(), 20*time.Second)
		defer stop()
		if err := m.Quit(quit); err != nil {
			t.Errorf("quit: %v", err)
		}
		if pid := m.keeper(); pid > 0 { // not idle long enough to end by itself
			if p, err := os.FindProcess(pid); err == nil {
				p.Kill()
			}
		}
		m.Close()
	})
	return m
}

// open connects to the directory as another agent would.
func (m *machine) open() *Runtime {
	m.t.Helper()
	log := slog.New(slog.DiscardHandler)
	r, err := New(Config{Dir: filepath.Join(m.dir, "run"), CgroupRoot: "/fingerpost-test-" + strconv.Itoa(os.Getpid()), Log: log})
	if err != nil {
		m.t.Fatal(err)
	}
	return r
}

func (m *machine) write(name, text string, mode os.FileMode) {
	m.t.Helper()
	if err := os.WriteFile(filepath.Join(m.image, name), []byte(text), mode); err != nil {
		m.t.Fatal(err)
	}
}

// keeper gives the process that has the directory, 0 if there is none.
func (m *machine) keeper() int {
	data, err := os.ReadFile(filepath.Join(m.dir, "run", "keeper.lock"))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return 0
	}
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || !bytes.Contains(line, []byte(m.dir)) {
		return 0
	}
	return pid
}

func (m *machine) pod(uid string, change ...func(*runtime.PodConfig)) {
	m.t.Helper()
	c := runtime.PodConfig{UID: uid, Namespace: "default", Name: uid, Hostname: "host-" + uid}
	for _, f := range change {
		f(&c)
	}
	if err := m.StartPod(m.ctx, c); err != nil {
		m.t.Fatal(err)
	}
}

// container gives what it takes to run a shell line in a pod.
func (m *machine) container(uid, name, script string) runtime.ContainerConfig {
	return runtime.ContainerConfig{
		ID: runtime.ContainerID{PodUID: uid, Name: name}, Args: []string{"/bin/sh", "-c", script},
		Root: runtime.Root{Layers: []string{m.image}}, LogPath: filepath.Join(m.dir, "logs", uid+"."+name+".log"),
	}
}

func (m *machine) run(c runtime.ContainerConfig) {
	m.t.Helper()
	if err := m.StartContainer(m.ctx, c); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) state(id runtime.ContainerID) *runtime.Container {
	m.t.Helper()
	pods, err := m.List(m.ctx)
	if err != nil {
		m.t.Fatal(err)
	}
	for _, p := range pods {
		for _, c := range p.Containers {
			if c.ID == id {
				return &c
			}
		}
	}
	return nil
}

// wait gives the state of a container that has ended.
func (m *machine) wait(id runtime.ContainerID) *runtime.Container {
	m.t.Helper()
	var s *runtime.Container
	m.until("container "+id.Name+" ends", func() bool {
		s = m.state(id)
		return s != nil && !s.Ended.IsZero()
	})
	return s
}

// until asks again and again; what runs is real, so there is real time.
func (m *machine) until(what string, done func() bool) {
	m.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-m.ctx.Done():
			m.t.Fatalf("never: %s", what)
		case <-tick.C:
		}
	}
}

// output gives the lines of a log without time and tags.
func (m *machine) output(c runtime.ContainerConfig) string {
	m.t.Helper()
	data, err := os.ReadFile(c.LogPath)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		m.t.Fatal(err)
	}
	var b strings.Builder
	for line := range strings.Lines(string(data)) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 4)
		if len(f) != 4 {
			m.t.Fatalf("broken log line %q", line)
		}
		b.WriteString(f[3])
		if f[2] == "F" {
			b.WriteByte('\n')
		}
	}
	return b.String()
}

// once runs a shell line in a pod of its own to its end.
func (m *machine) once(script string, change ...func(*runtime.ContainerConfig)) (string, *runtime.Container) {
	m.t.Helper()
	uid := fmt.Sprintf("once-%d", time.Now().UnixNano())
	m.pod(uid)
	c := m.container(uid, "c", script)
	for _, f := range change {
		f(&c)
	}
	m.run(c)
	s := m.wait(c.ID)
	out := m.output(c)
	if err := m.RemovePod(m.ctx, uid); err != nil {
		m.t.Fatal(err)
	}
	return out, s
}

// exec runs a shell line in a container and gives what it printed.
func (m *machine) exec(id runtime.ContainerID, script string) (string, int) {
	m.t.Helper()
	var out bytes.Buffer
	code, err := m.Exec(m.ctx, id, runtime.ExecConfig{Args: []string{"/bin/sh", "-c", script}, Streams: runtime.Streams{Stdout: &out, Stderr: &out}})
	if err != nil {
		m.t.Fatalf("exec %q: %v", script, err)
	}
	return out.String(), code
}
