//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// group is a control group of the second hierarchy; without a directory where
// there is no such hierarchy, and eBPF is left out.
type group struct {
	path string
	dir  *os.File
}

func newGroup() (group, error) {
	for _, root := range []string{"/sys/fs/cgroup/unified", "/sys/fs/cgroup"} {
		var s unix.Statfs_t
		if unix.Statfs(root, &s) != nil || s.Type != unix.CGROUP2_SUPER_MAGIC {
			continue
		}
		path := filepath.Join(root, fmt.Sprintf("vipbench-%d", os.Getpid()))
		if err := os.Mkdir(path, 0o755); err != nil {
			return group{}, err
		}
		dir, err := os.Open(path)
		return group{path, dir}, err
	}
	return group{path: "none"}, nil
}

func (g group) fd() int {
	if g.dir == nil {
		return 0
	}
	return int(g.dir.Fd())
}

// remove succeeds when everything in the group has ended.
func (g group) remove() {
	if g.dir == nil {
		return
	}
	_ = g.dir.Close()
	if err := os.Remove(g.path); err != nil {
		fmt.Fprintln(os.Stderr, "vipbench:", err)
	}
}

// enterGroup makes the group look like the root of its hierarchy, and gives the
// proxies a place for pins that nobody else has.
func enterGroup(ctx context.Context, path string) error {
	mounts := []string{"--make-rprivate /"}
	if filepath.IsAbs(path) {
		mounts = append(mounts, "--bind "+path+" "+filepath.Dir(path))
	}
	var s unix.Statfs_t
	if unix.Statfs("/sys/fs/bpf", &s) == nil && s.Type == unix.BPF_FS_MAGIC {
		mounts = append(mounts, "-t bpf bpf /sys/fs/bpf")
	}
	for _, args := range mounts {
		if out, err := exec.CommandContext(ctx, "mount", strings.Fields(args)...).CombinedOutput(); err != nil {
			return fmt.Errorf("mount %s: %w: %s", args, err, out)
		}
	}
	return nil
}
