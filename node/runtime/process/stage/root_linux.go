package stage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// build makes the container's file system around this process.
func (s *Spec) build() error {
	if err := s.joinFDs(); err != nil {
		return err
	}
	// Mounts that are to be shared with the machine are copied before this
	// process stops being of the machine's peer group.
	shared := map[int]int{}
	for i, m := range s.Mounts {
		if !m.Shared {
			continue
		}
		fd, err := unix.OpenTree(unix.AT_FDCWD, m.Source, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
		if err != nil {
			return fmt.Errorf("mount %s: %w", m.Source, err)
		}
		shared[i] = fd
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("make a mount namespace: %w", err)
	}
	if s.NewCgroupNS {
		unix.Unshare(unix.CLONE_NEWCGROUP) //nolint:errcheck // without it the command sees the machine's path
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("part from the machine's mounts: %w", err)
	}
	root, err := s.overlay()
	if err != nil {
		return err
	}
	if err := os.Chdir(root); err != nil {
		return fmt.Errorf("enter the root: %w", err)
	}
	rootFD, err := unix.Open(".", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("enter the root: %w", err)
	}
	if err := s.system(rootFD); err != nil {
		return err
	}
	for i, m := range s.Mounts {
		fd, isShared := shared[i]
		if !isShared {
			fd = -1
		}
		if err := s.bind(rootFD, m, fd); err != nil {
			return err
		}
	}
	if err := s.protect(rootFD); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("change to the root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave the machine's root: %w", err)
	}
	if s.ReadOnly {
		if err := unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
			return fmt.Errorf("make the root read-only: %w", err)
		}
	}
	return os.Chdir("/")
}

// overlay mounts the layers and a writable one, and says where.
func (s *Spec) overlay() (string, error) {
	layers := s.Layers
	scratch := len(layers) == 0
	if scratch {
		layers = []string{"/"}
	}
	for {
		if scratch {
			// The kernel wants the writable layer outside of the ones below
			// it. Nobody but this container sees this one, and it goes with it.
			if err := unix.Mount("fingerpost", s.Dir, "tmpfs", unix.MS_NODEV|unix.MS_NOSUID, "mode=755"); err != nil {
				return "", fmt.Errorf("mount the writable layer: %w", err)
			}
		}
		err := s.overlayOn(layers)
		if err != nil && !scratch && (errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EOPNOTSUPP)) {
			scratch = true // the file system of Dir cannot hold one
			continue
		}
		if err != nil {
			return "", err
		}
		return filepath.Join(s.Dir, "root"), nil
	}
}

func (s *Spec) overlayOn(layers []string) error {
	open := func(dir string) (string, error) {
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return "", fmt.Errorf("open the layer %s: %w", dir, err)
		}
		// Names of descriptors: the options have to fit into a page, and
		// paths may hold what separates them.
		return fmt.Sprintf("/proc/self/fd/%d", fd), nil
	}
	for _, dir := range []string{"upper", "work", "root"} {
		if err := os.MkdirAll(filepath.Join(s.Dir, dir), 0o755); err != nil {
			return fmt.Errorf("make the writable layer: %w", err)
		}
	}
	var lower []string
	for _, l := range slices.Backward(layers) {
		name, err := open(l)
		if err != nil {
			return err
		}
		lower = append(lower, name)
	}
	upper, err := open(filepath.Join(s.Dir, "upper"))
	if err != nil {
		return err
	}
	work, err := open(filepath.Join(s.Dir, "work"))
	if err != nil {
		return err
	}
	opts := "lowerdir=" + strings.Join(lower, ":") + ",upperdir=" + upper + ",workdir=" + work
	root := filepath.Join(s.Dir, "root")
	// The layer ends with the container, so nothing of it need reach the disk.
	err = unix.Mount("overlay", root, "overlay", 0, opts+",volatile")
	if errors.Is(err, unix.EINVAL) {
		err = unix.Mount("overlay", root, "overlay", 0, opts)
	}
	if err != nil {
		return fmt.Errorf("mount the layers: %w", err)
	}
	return nil
}

// at opens a path inside the root, whatever links the image has on the way.
func at(root int, path string, flags uint64) (int, error) {
	return unix.Openat2(root, path, &unix.OpenHow{
		Flags:   flags | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
}

// ensure opens a mount point inside the root, and makes it and what leads to
// it if missing: a directory, or an empty file.
func ensure(root int, path string, dir bool) (int, error) {
	path = filepath.Clean("/" + path)
	fd, err := at(root, path, unix.O_PATH)
	if err == nil || !errors.Is(err, unix.ENOENT) {
		return fd, err
	}
	if path == "/" {
		return -1, err
	}
	parent, err := ensure(root, filepath.Dir(path), true)
	if err != nil {
		return -1, err
	}
	defer unix.Close(parent) //nolint:errcheck
	name := filepath.Base(path)
	if dir {
		err = unix.Mkdirat(parent, name, 0o755)
	} else {
		err = unix.Mknodat(parent, name, unix.S_IFREG|0o644, 0)
	}
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, err
	}
	fd, err = at(root, path, unix.O_PATH)
	if errors.Is(err, unix.ENOENT) {
		// A link that leads nowhere: replaced, as nobody can use it.
		if err := unix.Unlinkat(parent, name, 0); err != nil {
			return -1, err
		}
		return ensure(root, path, dir)
	}
	return fd, err
}

func fdPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// bind puts one mount of the machine into the root. tree is a copy of it made
// before, or -1.
func (s *Spec) bind(root int, m Mount, tree int) error {
	fail := func(err error) error { return fmt.Errorf("mount %s at %s: %w", m.Source, m.Target, err) }
	var st unix.Stat_t
	if err := unix.Stat(m.Source, &st); err != nil {
		return fail(err)
	}
	fd, err := ensure(root, m.Target, st.Mode&unix.S_IFMT == unix.S_IFDIR)
	if err != nil {
		return fail(err)
	}
	if tree >= 0 {
		err = unix.MoveMount(tree, "", fd, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	} else {
		err = unix.Mount(m.Source, fdPath(fd), "", unix.MS_BIND|unix.MS_REC, "")
	}
	unix.Close(fd) //nolint:errcheck
	if err != nil {
		return fail(err)
	}
	if m.Shared || m.Slave && !m.ReadOnly {
		return nil // as copied, and slave as all of this namespace is
	}
	mounted, err := at(root, m.Target, unix.O_PATH)
	if err != nil {
		return fail(err)
	}
	defer unix.Close(mounted) //nolint:errcheck
	if !m.Slave {
		if err := unix.Mount("", fdPath(mounted), "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return fail(err)
		}
	}
	if m.ReadOnly {
		return readOnly(mounted, fail)
	}
	return nil
}

// readOnly makes a mount and those below it read-only; on kernels before 5.12
// only the mount itself.
func readOnly(fd int, fail func(error) error) error {
	err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	if errors.Is(err, unix.ENOSYS) {
		err = unix.Mount("", fdPath(fd), "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, "")
	}
	if err != nil {
		return fail(err)
	}
	return nil
}

// place mounts a file system of the kernel at a path inside the root.
func place(root int, fstype, target string, flags uintptr, data string) error {
	fd, err := ensure(root, target, true)
	if err != nil {
		return fmt.Errorf("mount %s: %w", target, err)
	}
	defer unix.Close(fd) //nolint:errcheck
	if err := unix.Mount(fstype, fdPath(fd), fstype, flags, data); err != nil {
		return fmt.Errorf("mount %s: %w", target, err)
	}
	return nil
}

// protect hides what of the kernel is nobody's business, and sets the pod's
// sysctls while they can be written.
func (s *Spec) protect(root int) error {
	for _, key := range sorted(s.Sysctls) {
		path := "/proc/sys/" + strings.ReplaceAll(key, ".", "/")
		fd, err := at(root, path, unix.O_WRONLY)
		if err == nil {
			_, err = unix.Write(fd, []byte(s.Sysctls[key]))
			unix.Close(fd) //nolint:errcheck
		}
		if err != nil {
			return fmt.Errorf("set the sysctl %s: %w", key, err)
		}
	}
	if !s.Privileged {
		for _, path := range []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"} {
			fd, err := at(root, path, unix.O_PATH)
			if err != nil {
				continue // this kernel does not have it
			}
			if err := unix.Mount(fdPath(fd), fdPath(fd), "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
				return fmt.Errorf("protect %s: %w", path, err)
			}
			unix.Close(fd) //nolint:errcheck
			if fd, err = at(root, path, unix.O_PATH); err != nil {
				return fmt.Errorf("protect %s: %w", path, err)
			}
			err = readOnly(fd, func(err error) error { return fmt.Errorf("protect %s: %w", path, err) })
			unix.Close(fd) //nolint:errcheck
			if err != nil {
				return err
			}
		}
		for _, path := range []string{"/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
			"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap"} {
			if err := mask(root, path, false); err != nil {
				return err
			}
		}
	}
	return nil
}

// mask shows a directory empty and a file without content.
func mask(root int, path string, machine bool) error {
	fd, err := at(root, path, unix.O_PATH)
	if err != nil {
		return nil // nothing there to hide
	}
	defer unix.Close(fd) //nolint:errcheck
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("hide %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC)
		if !machine {
			flags |= unix.MS_RDONLY // else mounts below it need their targets
		}
		err = unix.Mount("tmpfs", fdPath(fd), "tmpfs", flags, "size=64k,mode=755")
	} else {
		err = unix.Mount("/dev/null", fdPath(fd), "", unix.MS_BIND, "")
	}
	if err != nil {
		return fmt.Errorf("hide %s: %w", path, err)
	}
	return nil
}

func sorted(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
