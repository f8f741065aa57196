package keeper

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cgroups are where limits live: one hierarchy (version 2), or one for each
// controller (version 1, also when version 2 is mounted beside it). A machine
// without any runs containers without limits.
type cgroups struct {
	unified string            // directory of ours in version 2; "" if that has no controllers
	v1      map[string]string // directory of ours by controller
	log     *slog.Logger
}

// cgroup of one container while it is started.
type cgroup struct {
	fd   int // of the directory, version 2; -1: none
	dirs []string
}

// cpuPeriod is the microseconds in which a container may run its share.
const cpuPeriod = 100000

func newCgroups(root string, log *slog.Logger) *cgroups {
	g := &cgroups{v1: map[string]string{}, log: log}
	root = filepath.Clean("/" + root)
	data, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return g
	}
	for line := range strings.SplitSeq(string(data), "\n") {
		f := strings.Fields(line)
		if len(f) < 4 {
			continue
		}
		switch f[2] {
		case "cgroup2":
			have, err := os.ReadFile(filepath.Join(f[1], "cgroup.controllers"))
			if err == nil && bytes.Contains(have, []byte("memory")) {
				g.unified = f[1] + root
			}
		case "cgroup":
			for opt := range strings.SplitSeq(f[3], ",") {
				if opt == "memory" || opt == "cpu" {
					g.v1[opt] = f[1] + root
				}
			}
		}
	}
	if g.unified != "" {
		g.v1 = nil
		if err := g.enable(); err != nil {
			log.Warn("no cgroups: containers run without limits", "err", err)
			g.unified = ""
		}
		return g
	}
	for ctl, dir := range g.v1 {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			log.Warn("no cgroups: containers run without limits", "controller", ctl, "err", err)
			delete(g.v1, ctl)
		}
	}
	if len(g.v1) == 0 {
		log.Warn("no cgroups on this machine: containers run without limits")
	}
	return g
}

// enable makes our directory, with controllers for those below it.
func (g *cgroups) enable() error {
	if err := os.MkdirAll(g.unified, 0o755); err != nil {
		return err
	}
	mount := g.unified
	for {
		if _, err := os.Stat(filepath.Join(filepath.Dir(mount), "cgroup.controllers")); err != nil {
			break
		}
		mount = filepath.Dir(mount)
	}
	for dir := mount; ; {
		for _, c := range []string{"+cpu", "+memory"} {
			if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte(c), 0); err != nil && c == "+memory" {
				return err
			}
		}
		if dir == g.unified {
			return nil
		}
		rest, err := filepath.Rel(dir, g.unified)
		if err != nil {
			return err
		}
		first, _, _ := strings.Cut(rest, "/")
		dir = filepath.Join(dir, first)
	}
}

// make gives a container its cgroup with its limits, as far as the machine can.
func (g *cgroups) make(p *pod, c *container) cgroup {
	out := cgroup{fd: -1}
	cfg := &c.config
	set := func(dir, file string, value any) {
		if err := os.WriteFile(filepath.Join(dir, file), fmt.Append(nil, value), 0); err != nil {
			g.log.Warn("limit not set", "container", c.name(), "limit", file, "err", err)
		}
	}
	shares := cfg.CPUShares
	if shares == 0 {
		shares = p.Config.CPUShares
	}
	if g.unified != "" {
		pod := filepath.Join(g.unified, p.Config.UID)
		dir := filepath.Join(pod, c.name())
		err := os.MkdirAll(pod, 0o755)
		if err == nil {
			// Before the container's: a directory has the files of the
			// controllers that were enabled when it was made.
			os.WriteFile(filepath.Join(pod, "cgroup.subtree_control"), []byte("+cpu +memory"), 0) //nolint:errcheck // the limits say so
			err = os.MkdirAll(dir, 0o755)
		}
		if err != nil {
			g.log.Warn("no cgroup", "container", c.name(), "err", err)
			return out
		}
		if cfg.MemoryBytes > 0 {
			set(dir, "memory.max", cfg.MemoryBytes)
			os.WriteFile(filepath.Join(dir, "memory.swap.max"), []byte("0"), 0) //nolint:errcheck // no swap, no file
		}
		if cfg.CPUMillis > 0 {
			set(dir, "cpu.max", fmt.Sprintf("%d %d", max(1000, cfg.CPUMillis*cpuPeriod/1000), cpuPeriod))
		}
		if shares > 0 {
			// The ranges of both versions laid on each other: 2…262144 on 1…10000.
			set(dir, "cpu.weight", 1+(max(2, min(shares, 262144))-2)*9999/262142)
		}
		if fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err == nil {
			out.fd = fd
		}
		return out
	}
	version1 := func(ctl string, wanted bool, limits func(dir string)) {
		root, ok := g.v1[ctl]
		if !ok || !wanted {
			return
		}
		dir := filepath.Join(root, p.Config.UID, c.name())
		if err := os.MkdirAll(dir, 0o755); err != nil {
			g.log.Warn("no cgroup", "container", c.name(), "controller", ctl, "err", err)
			return
		}
		limits(dir)
		out.dirs = append(out.dirs, dir)
	}
	version1("memory", cfg.MemoryBytes > 0, func(dir string) {
		set(dir, "memory.limit_in_bytes", cfg.MemoryBytes)
		os.WriteFile(filepath.Join(dir, "memory.memsw.limit_in_bytes"), fmt.Append(nil, cfg.MemoryBytes), 0) //nolint:errcheck // no swap, no file
	})
	version1("cpu", cfg.CPUMillis > 0 || shares > 0, func(dir string) {
		if cfg.CPUMillis > 0 {
			set(dir, "cpu.cfs_period_us", cpuPeriod)
			set(dir, "cpu.cfs_quota_us", max(1000, cfg.CPUMillis*cpuPeriod/1000))
		}
		if shares > 0 {
			set(dir, "cpu.shares", max(2, shares))
		}
	})
	return out
}

// open finds the cgroup of a container that runs.
func (g *cgroups) open(uid, name string) cgroup {
	out := cgroup{fd: -1}
	if g.unified != "" {
		if fd, err := unix.Open(filepath.Join(g.unified, uid, name), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err == nil {
			out.fd = fd
		}
		return out
	}
	for _, root := range g.v1 {
		dir := filepath.Join(root, uid, name)
		if _, err := os.Stat(dir); err == nil {
			out.dirs = append(out.dirs, dir)
		}
	}
	return out
}

// enter moves a process. In version 2 it was born there.
func (c *cgroup) enter(pid int) {
	for _, dir := range c.dirs {
		os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0) //nolint:errcheck // runs without the limit
	}
}

func (c *cgroup) close() {
	if c.fd >= 0 {
		unix.Close(c.fd) //nolint:errcheck
		c.fd = -1
	}
}

// seenAt says where in the container its cgroup is to be seen.
func (g *cgroups) seenAt(c cgroup) string {
	if c.fd < 0 {
		return ""
	}
	return "/sys/fs/cgroup"
}

// remove removes the cgroups of a container that has ended, and says whether
// the kernel killed something in them for want of memory.
func (g *cgroups) remove(uid, name string) (oom bool) {
	if g.unified != "" {
		dir := filepath.Join(g.unified, uid, name)
		oom = counted(filepath.Join(dir, "memory.events"), "oom_kill")
		os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0) //nolint:errcheck // nobody there
		g.rmdir(dir)
		return oom
	}
	for ctl, root := range g.v1 {
		dir := filepath.Join(root, uid, name)
		if ctl == "memory" {
			oom = counted(filepath.Join(dir, "memory.oom_control"), "oom_kill")
		}
		g.rmdir(dir)
	}
	return oom
}

// rmdir removes a cgroup, with those that the container made in it. The last
// process leaves it a moment after it was waited for, which may be long on a
// busy machine.
func (g *cgroups) rmdir(dir string) {
	for range 1000 {
		err := unix.Rmdir(dir)
		if !errors.Is(err, unix.EBUSY) {
			return
		}
		below, _ := os.ReadDir(dir)
		for _, e := range below {
			if e.IsDir() {
				removeBelow(filepath.Join(dir, e.Name()))
			}
		}
		time.Sleep(2 * time.Millisecond)
	}
	g.log.Warn("a cgroup stays, as something is still in it", "path", dir)
}

// removeBelow removes a cgroup and what is below it, as far as nothing runs there.
func removeBelow(dir string) {
	below, _ := os.ReadDir(dir)
	for _, e := range below {
		if e.IsDir() {
			removeBelow(filepath.Join(dir, e.Name()))
		}
	}
	unix.Rmdir(dir) //nolint:errcheck // looked at again
}

func (g *cgroups) removePod(uid string) {
	if g.unified != "" {
		g.rmdir(filepath.Join(g.unified, uid))
	}
	for _, root := range g.v1 {
		g.rmdir(filepath.Join(root, uid))
	}
}

// removeRoot removes our own directories when there are no pods.
func (g *cgroups) removeRoot() {
	if g.unified != "" {
		unix.Rmdir(g.unified) //nolint:errcheck // another node of this machine may use it
	}
	for _, root := range g.v1 {
		unix.Rmdir(root) //nolint:errcheck // another node of this machine may use it
	}
}

// counted says whether a file of counters has one above zero.
func counted(path, name string) bool {
	data, err := os.ReadFile(path)
	if err != nil {
		return false
	}
	for line := range strings.SplitSeq(string(data), "\n") {
		if n, ok := strings.CutPrefix(line, name+" "); ok {
			return n != "0"
		}
	}
	return false
}
