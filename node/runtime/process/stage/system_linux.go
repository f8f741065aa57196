package stage

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// devices that every container has: name, major, minor.
var devices = []struct {
	name         string
	major, minor uint32
}{
	{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0},
}

// system mounts what programs expect of a Linux machine: /proc, /dev, /sys.
func (s *Spec) system(root int) error {
	if len(s.Layers) == 0 {
		for _, dir := range s.Hide {
			if err := mask(root, dir, true); err != nil {
				return err
			}
		}
		if err := s.programMount(root); err != nil {
			return err
		}
	}
	const safe = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := place(root, "proc", "/proc", safe, ""); err != nil {
		return err
	}
	if err := s.dev(root); err != nil {
		return err
	}
	flags := uintptr(safe | unix.MS_RDONLY)
	if s.Privileged {
		flags = safe
	}
	if err := place(root, "sysfs", "/sys", flags, ""); err != nil {
		return err
	}
	if s.Cgroup != "" {
		// Runtimes of languages read their limits here. Not having it is no
		// reason not to run.
		place(root, "cgroup2", s.Cgroup, flags, "") //nolint:errcheck
	}
	return nil
}

func (s *Spec) dev(root int) error {
	if s.Privileged {
		if err := s.bind(root, Mount{Source: "/dev", Target: "/dev", Slave: true}, -1); err != nil {
			return err
		}
	} else if err := place(root, "tmpfs", "/dev", unix.MS_NOSUID, "mode=755,size=64k"); err != nil {
		return err
	}
	dev, err := at(root, "/dev", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return fmt.Errorf("make /dev: %w", err)
	}
	defer unix.Close(dev) //nolint:errcheck
	if !s.Privileged {
		old := unix.Umask(0)
		defer unix.Umask(old)
		for _, d := range devices {
			err := unix.Mknodat(dev, d.name, unix.S_IFCHR|0o666, int(unix.Mkdev(d.major, d.minor)))
			if errors.Is(err, unix.EPERM) {
				err = s.bind(root, Mount{Source: "/dev/" + d.name, Target: "/dev/" + d.name}, -1)
			}
			if err != nil {
				return fmt.Errorf("make /dev/%s: %w", d.name, err)
			}
		}
		for _, l := range [][2]string{{"pts/ptmx", "ptmx"}, {"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"}, {"/proc/self/fd/1", "stdout"},
			{"/proc/self/fd/2", "stderr"}, {"/proc/kcore", "core"}} {
			if err := unix.Symlinkat(l[0], dev, l[1]); err != nil {
				return fmt.Errorf("make /dev/%s: %w", l[1], err)
			}
		}
		for _, name := range []string{"pts", "shm", "mqueue"} {
			if err := unix.Mkdirat(dev, name, 0o755); err != nil {
				return fmt.Errorf("make /dev/%s: %w", name, err)
			}
		}
	}
	if err := place(root, "devpts", "/dev/pts", unix.MS_NOSUID|unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"); err != nil {
		return err
	}
	if s.Privileged {
		// The machine's ptmx belongs to the machine's terminals.
		if fd, err := at(root, "/dev/ptmx", unix.O_PATH); err == nil {
			if pts, err := at(root, "/dev/pts/ptmx", unix.O_PATH); err == nil {
				unix.Mount(fdPath(pts), fdPath(fd), "", unix.MS_BIND, "") //nolint:errcheck // a link to pts/ptmx already
				unix.Close(pts)                                           //nolint:errcheck
			}
			unix.Close(fd) //nolint:errcheck
		}
	}
	const safe = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if s.Shm != "" {
		if err := s.bind(root, Mount{Source: s.Shm, Target: "/dev/shm"}, -1); err != nil {
			return err
		}
	} else if err := place(root, "tmpfs", "/dev/shm", safe, "mode=1777,size=65536k"); err != nil {
		return err
	}
	place(root, "mqueue", "/dev/mqueue", safe, "") //nolint:errcheck // a kernel may be without
	return nil
}

// programMount shows a mapped program that is not on the machine's root file
// system: the file system it is on, read-only. It comes first, so that
// everything else is mounted over it.
func (s *Spec) programMount(root int) error {
	if len(s.Args) == 0 || !filepath.IsAbs(s.Args[0]) {
		return nil
	}
	real, err := filepath.EvalSymlinks(s.Args[0])
	if err != nil {
		return nil // found out when it is executed
	}
	var on string
	for line := range strings.SplitSeq(read("/proc/self/mountinfo"), "\n") {
		f := strings.Fields(line)
		if len(f) > 4 && len(f[4]) >= len(on) && (real == f[4] || strings.HasPrefix(real, strings.TrimSuffix(f[4], "/")+"/")) {
			on = f[4]
		}
	}
	if on == "" || on == "/" || strings.HasPrefix(on, "/proc") || strings.HasPrefix(on, "/sys") || strings.HasPrefix(on, "/dev") {
		return nil
	}
	return s.bind(root, Mount{Source: on, Target: on, ReadOnly: true}, -1)
}
