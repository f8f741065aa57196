package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fingerpost/fingerpost/node/runtime"
)

func TestCommand(t *testing.T) {
	m := newMachine(t)
	type config = runtime.ContainerConfig
	source := filepath.Join(m.dir, "source")
	if err := os.MkdirAll(filepath.Join(source, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(source, "file"), []byte("from the machine\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	m.write("etc/evil", "", 0o644)
	for link, to := range map[string]string{"escape": "/../../../" + m.dir, "up": "../../../../../../..", "dangling": "/nowhere/at/all"} {
		if err := os.Symlink(to, filepath.Join(m.image, link)); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name, script string
		change       func(*config)
		want         string
		code         int
	}{
		{name: "exit code", script: "exit 3", code: 3},
		{name: "process 1 cannot kill itself", script: "kill -9 $$; exit 6", code: 6},
		{name: "not line", script: "printf abc", want: "abc"},
		{name: "streams", script: "echo out; sleep 0.05; echo err >&2", want: "out\nerr\n"},
		{name: "reopened stdout", script: "echo a > /dev/stdout", change: func(c *config) { c.User = runtime.User{UID: 1234, GID: 1234} }, want: "a\n"},
		{name: "process 1", script: "echo $$; set -- /proc/[0-9]*; echo $#", want: "1\n1\n"},
		{name: "environment", script: "env | grep -v -e SHLVL -e PWD -e HOSTNAME", change: func(c *config) { c.Env = []string{"A=1", "PATH=/bin"} }, want: "HOME=/root\nA=1\nPATH=/bin\n"},
		{name: "path look-up", change: func(c *config) { c.Args = []string{"echo", "found"}; c.Env = []string{"PATH=/none:/bin"} }, want: "found\n"},
		{name: "descriptors", script: "ls /proc/self/fd", want: "0\n1\n2\n3\n"}, // 3 is the directory that ls reads
		{name: "working directory", script: "pwd", change: func(c *config) { c.WorkDir = "/new/dir" }, want: "/new/dir\n"},
		{name: "user by number", script: "id -u; id -g; id -G", change: func(c *config) { c.User = runtime.User{UID: 5, GID: 6, Groups: []int64{7}} }, want: "5\n6\n6 7\n"},
		{name: "user by name", script: "id -u; id -G; echo $HOME", change: func(c *config) { c.UserName = "app" }, want: "1234\n1235 77\n/home/app\n"},
		{name: "user and group", script: "id -u; id -g", change: func(c *config) { c.UserName = "app:extra" }, want: "1234\n77\n"},
		{name: "read-only root", script: "touch /tmp/a 2>&1 || echo refused", change: func(c *config) { c.Root.ReadOnly = true }, want: "touch: /tmp/a: Read-only file system\nrefused\n"},
		{name: "writable layer", script: "echo b > /etc/passwd; cat /etc/passwd", want: "b\n"},
		{name: "capabilities", script: "grep CapEff /proc/self/status", want: "CapEff:\t00000000a80425fb\n"},
		{name: "no capabilities", script: "grep CapBnd /proc/self/status", change: func(c *config) { c.DropCaps = []string{"ALL"}; c.AddCaps = []string{"CHOWN"} }, want: "CapBnd:\t0000000000000001\n"},
		{name: "capabilities of a user", script: "grep CapEff /proc/self/status", change: func(c *config) { c.User.UID = 9 }, want: "CapEff:\t0000000000000000\n"},
		{name: "no new privileges", script: "grep NoNewPrivs /proc/self/status", change: func(c *config) { c.NoNewPrivs = true }, want: "NoNewPrivs:\t1\n"},
		{name: "oom score", script: "cat /proc/self/oom_score_adj", change: func(c *config) { c.OOMScoreAdj = 500 }, want: "500\n"},
		{name: "protected", script: "(echo 1 > /proc/sys/kernel/panic) 2>&1 || echo refused", want: "/bin/sh: can't create /proc/sys/kernel/panic: Read-only file system\nrefused\n"},
		{name: "host name", script: "hostname | grep -c host-once", want: "1\n"},
		{name: "mounted directory", script: "cat /data/file; echo x > /data/new && cat /data/new", change: func(c *config) {
			c.Mounts = []runtime.Mount{{Source: source, Target: "/data"}}
		}, want: "from the machine\nx\n"},
		{name: "mounted file", script: "cat /etc/x/file", change: func(c *config) {
			c.Mounts = []runtime.Mount{{Source: filepath.Join(source, "file"), Target: "/etc/x/file"}}
		}, want: "from the machine\n"},
		{name: "read-only mount", script: "touch /data/file 2>/dev/null || echo refused", change: func(c *config) {
			c.Mounts = []runtime.Mount{{Source: source, Target: "/data", ReadOnly: true}}
		}, want: "refused\n"},
		{name: "mount through a link", script: "cat /escape/file 2>&1 || ls /escape", change: func(c *config) {
			c.Mounts = []runtime.Mount{{Source: source, Target: "/escape/deep"}}
		}, want: "cat: can't open '/escape/file': No such file or directory\ndeep\n"},
		{name: "mount upwards", script: "cat /x/file; cat /up/x/file", change: func(c *config) {
			c.Mounts = []runtime.Mount{{Source: source, Target: "/up/x"}}
		}, want: "from the machine\nfrom the machine\n"},
		{name: "mount at a link to nothing", script: "cat /dangling/file", change: func(c *config) {
			c.Mounts = []runtime.Mount{{Source: source, Target: "/dangling"}}
		}, want: "from the machine\n"},
		{name: "mount with dots", script: "cat /y/file", change: func(c *config) {
			c.Mounts = []runtime.Mount{{Source: source, Target: "/../../y"}}
		}, want: "from the machine\n"},
		{name: "terminal", script: "tty; test -t 0 && echo yes", change: func(c *config) { c.TTY = true }, want: "/dev/pts/0\r\nyes\r\n"},
		{name: "privileged", script: "grep CapBnd /proc/self/status | grep -c 1f; test -b /dev/vda -o -c /dev/kmsg -o -c /dev/null && echo devices; tty", change: func(c *config) {
			c.Privileged, c.TTY = true, true
		}, want: "1\r\ndevices\r\n/dev/pts/0\r\n"},
		{name: "machine's own root", change: func(c *config) {
			c.Root.Layers, c.Args = nil, []string{"/bin/sh", "-c", "test -e /usr/bin/busybox && echo there; echo x > /etc/fingerpost-never; ls " + filepath.Join(m.dir, "run") + " | wc -l"}
		}, want: "there\n0\n"},
		{name: "shared memory", script: "echo x > /dev/shm/a; stat -c %a /dev/shm", want: "1777\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out, s := m.once(tt.script, func(c *config) {
				if tt.change != nil {
					tt.change(c)
				}
			})
			if out != tt.want || s.ExitCode != tt.code {
				t.Errorf("exit %d, printed\n%q, want %d\n%q\n%+v", s.ExitCode, out, tt.code, tt.want, s)
			}
		})
	}
	if _, err := os.Stat("/etc/fingerpost-never"); err == nil {
		os.Remove("/etc/fingerpost-never")
		t.Error("a container wrote to the machine")
	}
	if names, err := os.ReadDir(m.dir); err != nil || len(names) != 4 {
		t.Errorf("%v, %v: something escaped through a link", names, err)
	}
}

func TestCannotRun(t *testing.T) {
	m := newMachine(t)
	m.write("bin/script", "#!/no/such/interpreter\n", 0o755)
	m.pod("p")
	for i, tt := range []struct{ command, want string }{
		{"/bin/missing", "no such file"},
		{"missing", "not found in PATH"},
		{"/bin/plain", "permission denied"},
		{"/bin", "is a directory"},
		{"/bin/script", "interpreter or loader is missing"},
	} {
		c := m.container("p", "c", "")
		c.ID.Attempt = i
		c.Args = []string{tt.command}
		for range 2 { // asked again, it is the same
			err := m.StartContainer(m.ctx, c)
			if !errors.Is(err, runtime.ErrCannotRun) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: %v, want %q", tt.command, err, tt.want)
			}
		}
		if s := m.state(c.ID); s == nil || s.Running() || s.Failure == "" || s.Ended.IsZero() {
			t.Errorf("%s: state %+v", tt.command, s)
		}
	}
	c := m.container("p", "mount", "true")
	c.Mounts = []runtime.Mount{{Source: "/no/such/source", Target: "/x"}}
	if err := m.StartContainer(m.ctx, c); err == nil || errors.Is(err, runtime.ErrCannotRun) || !strings.Contains(err.Error(), "/no/such/source") {
		t.Errorf("missing source: %v", err)
	}
	c = m.container("nopod", "c", "true")
	if err := m.StartContainer(m.ctx, c); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("no pod: %v", err)
	}
	c = m.container("p", "user", "true")
	c.UserName = "nobody-knows"
	if err := m.StartContainer(m.ctx, c); err == nil || !strings.Contains(err.Error(), "/etc/passwd does not have it") {
		t.Errorf("unknown user: %v", err)
	}
}

func TestStop(t *testing.T) {
	m := newMachine(t)
	m.pod("p")
	polite := m.container("p", "polite", "trap 'exit 7' TERM; echo up; while :; do sleep 0.01; done")
	stubborn := m.container("p", "stubborn", "trap '' TERM; echo up; sleep 1000 & sleep 1000; sleep 1000")
	quit := m.container("p", "quit", "trap 'exit 8' QUIT; echo up; while :; do sleep 0.01; done")
	quit.StopSignal = "SIGQUIT"
	for _, c := range []runtime.ContainerConfig{polite, stubborn, quit} {
		m.run(c)
		m.until("it is up", func() bool { return m.output(c) == "up\n" })
	}
	for _, tt := range []struct {
		c     runtime.ContainerConfig
		grace time.Duration
		code  int
	}{{polite, 30 * time.Second, 7}, {quit, 30 * time.Second, 8}, {stubborn, 50 * time.Millisecond, 137}} {
		for range 2 {
			if err := m.StopContainer(m.ctx, tt.c.ID, tt.grace); err != nil {
				t.Fatal(err)
			}
		}
		if s := m.state(tt.c.ID); s.Running() || s.ExitCode != tt.code {
			t.Errorf("%s: %+v, want %d", tt.c.ID.Name, s, tt.code)
		}
	}
}

func TestShared(t *testing.T) {
	m := newMachine(t)
	m.pod("p", func(c *runtime.PodConfig) { c.SharePID = true })
	a, b := m.container("p", "a", "sleep 1000 & sleep 1001"), m.container("p", "b", "sleep 1002")
	m.run(a)
	m.run(b)
	for _, ns := range []string{"net", "ipc", "uts", "pid"} {
		one, _ := m.exec(a.ID, "readlink /proc/self/ns/"+ns)
		two, _ := m.exec(b.ID, "readlink /proc/self/ns/"+ns)
		mine, err := os.Readlink("/proc/self/ns/" + ns)
		if err != nil || one != two || (one == mine+"\n") != (ns == "net") {
			t.Errorf("%s: %q and %q, here %q", ns, one, two, mine)
		}
	}
	if out, _ := m.exec(b.ID, "echo shared > /dev/shm/x"); out != "" {
		t.Error(out)
	}
	if out, _ := m.exec(a.ID, "cat /dev/shm/x; ps | grep -c 'sleep 100[12]'"); !strings.HasPrefix(out, "shared\n") {
		t.Error(out)
	}
	// What a container leaves behind in a shared pid namespace goes as well.
	if err := m.StopContainer(m.ctx, a.ID, 0); err != nil {
		t.Fatal(err)
	}
	if out, _ := m.exec(b.ID, "ps | grep 'sleep 100[01]' | grep -v grep"); strings.Contains(out, "sleep") {
		t.Errorf("left behind: %s", out)
	}
}

func TestExec(t *testing.T) {
	m := newMachine(t)
	m.pod("p")
	c := m.container("p", "c", "sleep 1000")
	c.Env = []string{"A=from the container"}
	m.run(c)
	if out, code := m.exec(c.ID, "echo $A; echo $$ >/tmp/x; hostname; exit 5"); out != "from the container\nhost-p\n" || code != 5 {
		t.Errorf("%q, %d", out, code)
	}
	if _, err := m.Exec(m.ctx, c.ID, runtime.ExecConfig{Args: []string{"none"}}); !errors.Is(err, runtime.ErrCannotRun) {
		t.Error(err)
	}
	if _, err := m.Exec(m.ctx, runtime.ContainerID{PodUID: "p", Name: "other"}, runtime.ExecConfig{Args: []string{"true"}}); !errors.Is(err, runtime.ErrNotFound) {
		t.Error(err)
	}
	big := strings.Repeat("0123456789abcdef", 100_000)
	var out bytes.Buffer
	code, err := m.Exec(m.ctx, c.ID, runtime.ExecConfig{Args: []string{"cat"}, Streams: runtime.Streams{Stdin: strings.NewReader(big), Stdout: &out}})
	if err != nil || code != 0 || out.String() != big {
		t.Errorf("cat: %d bytes, %d, %v", out.Len(), code, err)
	}
	// A terminal has a size, and its input ends with its end-of-file character.
	out.Reset()
	sizes := make(chan runtime.Size, 1)
	sizes <- runtime.Size{Width: 91, Height: 33}
	code, err = m.Exec(m.ctx, c.ID, runtime.ExecConfig{Args: []string{"/bin/sh", "-c", "tty; until stty size | grep '33 91'; do sleep 0.01; done; exit 9"},
		Streams: runtime.Streams{Stdin: strings.NewReader(""), Stdout: &out, TTY: true, Resize: sizes}})
	if err != nil || code != 9 || !strings.Contains(out.String(), "/dev/pts/") || !strings.Contains(out.String(), "33 91") {
		t.Errorf("terminal: %q, %d, %v", out.String(), code, err)
	}
	ctx, cancel := context.WithTimeout(m.ctx, 50*time.Millisecond)
	defer cancel()
	if _, err := m.Exec(ctx, c.ID, runtime.ExecConfig{Args: []string{"sleep", "777"}}); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	m.until("the command is killed with its context", func() bool {
		out, _ := m.exec(c.ID, "ps")
		return !strings.Contains(out, "sleep 777")
	})
	// Output that something in the background holds open does not hold Exec.
	if out, code := m.exec(c.ID, "sleep 900 & echo done"); out != "done\n" || code != 0 {
		t.Errorf("%q, %d", out, code)
	}
}

func TestAttach(t *testing.T) {
	m := newMachine(t)
	m.pod("p")
	c := m.container("p", "c", "while read -r line; do echo got $line; done; exit 4")
	c.Stdin, c.StdinOnce = true, true
	m.run(c)
	var one, two bytes.Buffer
	in := make(chan string)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := m.Attach(m.ctx, c.ID, runtime.Streams{Stdout: &two}); err != nil {
			t.Error(err)
		}
	})
	// One who never reads.
	stuck, cancel := context.WithCancel(m.ctx)
	wg.Go(func() {
		if err := m.Attach(stuck, c.ID, runtime.Streams{Stdout: blocked{stuck}}); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	wg.Go(func() {
		if err := m.Attach(m.ctx, c.ID, runtime.Streams{Stdin: &lines{in}, Stdout: &one}); err != nil {
			t.Error(err)
		}
	})
	in <- "a\n"
	m.until("the answer is in the log", func() bool { return m.output(c) == "got a\n" })
	in <- "b\n"
	close(in)
	if s := m.wait(c.ID); s.ExitCode != 4 {
		t.Errorf("%+v", s)
	}
	cancel()
	wg.Wait()
	if got := m.output(c); got != "got a\ngot b\n" || one.String() != got || !strings.HasSuffix(got, two.String()) {
		t.Errorf("log %q, attached %q and %q", got, one.String(), two.String())
	}
}

// blocked is a writer that waits.
type blocked struct{ ctx context.Context }

func (b blocked) Write(p []byte) (int, error) { <-b.ctx.Done(); return len(p), nil }

// lines is a reader of what comes.
type lines struct{ ch chan string }

func (l *lines) Read(p []byte) (int, error) {
	s, ok := <-l.ch
	if !ok {
		return 0, io.EOF
	}
	return copy(p, s), nil
}

func TestLogs(t *testing.T) {
	m := newMachine(t)
	long := 40 << 10
	out, _ := m.once(fmt.Sprintf("head -c %d /dev/zero; echo; echo x", long))
	if out != strings.Repeat("\x00", long)+"\nx\n" {
		t.Errorf("a long line is %d bytes", len(out))
	}
	m.pod("p")
	c := m.container("p", "c", "yes 0123456789 | head -n 200000")
	c.LogMaxSize, c.LogMaxFiles = 1<<20, 3
	m.run(c)
	m.wait(c.ID)
	for i, name := range []string{c.LogPath, c.LogPath + ".1", c.LogPath + ".2"} {
		fi, err := os.Stat(name)
		if err != nil || fi.Size() > 1<<20 || i > 0 && fi.Size() < 1<<19 {
			t.Errorf("%s: %v, %v", name, fi, err)
		}
	}
	if _, err := os.Stat(c.LogPath + ".3"); err == nil {
		t.Error("one file too many")
	}
}
