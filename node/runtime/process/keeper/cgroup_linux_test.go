package keeper

import (
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fingerpost/fingerpost/node/runtime"
)

// unified gives cgroups of version 2 that are the test's own. Where version 1
// has the controllers, what needs none can be tried all the same.
func unified(t *testing.T) *cgroups {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("cgroups are made by root only")
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 3 && f[2] == "cgroup2" && strings.HasPrefix(f[3], "rw") {
			g := &cgroups{unified: filepath.Join(f[1], fmt.Sprintf("fingerpost-test-%d-%s", os.Getpid(), t.Name())), log: slog.New(slog.DiscardHandler)}
			if err := os.Mkdir(g.unified, 0o755); err != nil {
				t.Skip("no cgroup of version 2 can be made here: ", err)
			}
			t.Cleanup(func() {
				_ = os.WriteFile(filepath.Join(g.unified, "cgroup.kill"), []byte("1"), 0)
				removeBelow(g.unified)
				if _, err := os.Stat(g.unified); err == nil {
					t.Errorf("%s stays", g.unified)
				}
			})
			return g
		}
	}
	t.Skip("cgroups of version 2 are not mounted here")
	return nil
}

func oneContainer(uid, name string) (*pod, *container) {
	p := &pod{}
	p.Config = runtime.PodConfig{UID: uid}
	c := &container{pod: p}
	c.config.ID = runtime.ContainerID{PodUID: uid, Name: name}
	return p, c
}

// TestUnifiedCgroup: a process is born in the cgroup of its container; removing
// that kills what is left in it, also in cgroups that it made itself.
func TestUnifiedCgroup(t *testing.T) {
	g := unified(t)
	p, c := oneContainer("uid", "c")
	c.config.MemoryBytes, c.config.CPUMillis, c.config.CPUShares = 64<<20, 500, 512
	made := g.make(p, c)
	if made.fd < 0 || g.seenAt(made) == "" {
		t.Fatalf("made %+v", made)
	}
	defer made.close()
	dir := filepath.Join(g.unified, "uid", c.name())
	cmd := exec.Command("/bin/sh", "-c", "sleep 1000000 & sleep 1000000 & wait")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: made.fd}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	read := func(file string) string {
		b, _ := os.ReadFile(file)
		return string(b)
	}
	if got := read(fmt.Sprintf("/proc/%d/cgroup", cmd.Process.Pid)); !strings.Contains(got, "0::"+strings.TrimPrefix(dir, filepath.Dir(g.unified))+"\n") && !strings.Contains(got, c.name()) {
		t.Errorf("born in %q, want %s", got, dir)
	}
	if !counted(filepath.Join(dir, "cgroup.events"), "populated") {
		t.Errorf("events: %q", read(filepath.Join(dir, "cgroup.events")))
	}
	nested := filepath.Join(dir, "own", "deeper")
	if err := os.MkdirAll(nested, 0o755); err != nil {
		t.Fatal(err)
	}
	again := g.open("uid", c.name())
	if again.fd < 0 {
		t.Error("not found again")
	}
	again.close()
	if oom := g.remove("uid", c.name()); oom {
		t.Error("nothing was killed for want of memory")
	}
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Fatal("the process lives on")
	}
	// What the shell had started is waited for by others, a moment later.
	g.remove("uid", c.name())
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the cgroup stays: %v %q", err, read(filepath.Join(dir, "cgroup.procs")))
	}
	g.removePod("uid")
	g.removeRoot()
	if _, err := os.Stat(g.unified); !os.IsNotExist(err) {
		t.Errorf("our directory stays: %v", err)
	}
}

// TestUnifiedFiles: what is written where version 2 has the controllers.
func TestUnifiedFiles(t *testing.T) {
	mount := t.TempDir()
	g := &cgroups{unified: filepath.Join(mount, "a", "b"), log: slog.New(slog.DiscardHandler)}
	for _, d := range []string{mount, filepath.Join(mount, "a"), g.unified} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(d, "cgroup.controllers"), []byte("cpu memory"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.enable(); err != nil {
		t.Fatal(err)
	}
	p, c := oneContainer("uid", "c")
	c.config.MemoryBytes, c.config.CPUMillis, c.config.CPUShares = 64<<20, 500, 1024
	made := g.make(p, c)
	made.close()
	want := map[string]string{
		"cgroup.subtree_control": "+memory", "a/cgroup.subtree_control": "+memory", "a/b/cgroup.subtree_control": "+memory", "a/b/uid/cgroup.subtree_control": "+cpu +memory",
		"a/b/uid/" + c.name() + "/memory.max": "67108864", "a/b/uid/" + c.name() + "/memory.swap.max": "0",
		"a/b/uid/" + c.name() + "/cpu.max": "50000 100000", "a/b/uid/" + c.name() + "/cpu.weight": "39",
	}
	err := filepath.WalkDir(mount, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "cgroup.controllers" {
			return err
		}
		text, err := os.ReadFile(path)
		rel, _ := filepath.Rel(mount, path)
		if want[rel] != string(text) {
			t.Errorf("%s: %q, want %q", rel, text, want[rel])
		}
		delete(want, rel)
		return err
	})
	if err != nil || len(want) > 0 {
		t.Errorf("%v; not written: %v", err, want)
	}
	events := filepath.Join(g.unified, "uid", c.name(), "memory.events")
	for text, killed := range map[string]bool{"low 0\noom 3\noom_kill 0\noom_group_kill 0\n": false, "low 0\noom 3\noom_kill 2\n": true} {
		if err := os.WriteFile(events, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := counted(events, "oom_kill"); got != killed {
			t.Errorf("%q: killed %v", text, got)
		}
	}
}
