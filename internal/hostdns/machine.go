package hostdns

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"syscall"
)

// Machine is the system that is looked at and changed.
type Machine struct {
	// Root is put before every path; empty for the machine that we run on.
	Root string
	// OS is what runtime.GOOS says.
	OS string
	// Run runs a program and gives what it wrote to stdout. An error that
	// wraps exec.ErrNotFound says that there is no such program.
	Run func(ctx context.Context, args ...string) (string, error)
}

// Run runs a program of this machine.
func Run(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var out, errw bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errw
	if err := cmd.Run(); err != nil {
		if said := strings.TrimSpace(errw.String()); said != "" {
			return out.String(), fmt.Errorf("%w: %s", err, said)
		}
		return out.String(), err
	}
	return out.String(), nil
}

func (m *Machine) path(p string) string { return filepath.Join(m.Root, filepath.FromSlash(p)) }

// stateDir holds the record of what was changed, and copies from before.
func (m *Machine) stateDir() string {
	if m.OS == "darwin" {
		return "/var/db/fingerpost-dns"
	}
	return "/var/lib/fingerpost-dns"
}

// read gives a file; there is false when there is none.
func (m *Machine) read(p string) (b []byte, there bool, err error) {
	b, err = os.ReadFile(m.path(p))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	return b, err == nil, err
}

func (m *Machine) text(p string) string { b, _, _ := m.read(p); return string(b) }

func (m *Machine) exists(p string) bool {
	_, err := os.Stat(m.path(p))
	return err == nil
}

// follow gives the file that a path leads to through symbolic links.
func (m *Machine) follow(p string) (string, error) {
	for range 16 {
		to, err := os.Readlink(m.path(p))
		if err != nil {
			return p, nil // no link, or nothing there
		}
		if !path.IsAbs(to) {
			to = path.Join(path.Dir(p), to)
		}
		p = path.Clean(to)
	}
	return "", fmt.Errorf("hostdns: %s: its symbolic links go round in a circle", p)
}

// writable says why a file cannot be changed, nil if it can. Nothing changes.
func (m *Machine) writable(p string) error {
	f, err := os.OpenFile(m.path(p), os.O_WRONLY, 0)
	if err == nil {
		return f.Close()
	}
	if errors.Is(err, fs.ErrNotExist) {
		dir := path.Dir(p)
		for dir != "/" && !m.exists(dir) {
			dir = path.Dir(dir)
		}
		probe, err := os.CreateTemp(m.path(dir), ".fingerpost-*")
		if err != nil {
			return advise(p, err)
		}
		_ = probe.Close()
		return os.Remove(probe.Name())
	}
	return advise(p, err)
}

// advise turns a refusal of the system into what one can do about it.
func advise(p string, err error) error {
	switch {
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("hostdns: %s is on a file system that is mounted read-only: %w", p, err)
	case errors.Is(err, fs.ErrPermission) && os.Geteuid() == 0:
		return fmt.Errorf("hostdns: %s is protected from changes, root's included: most likely somebody made it immutable, so that no program overwrites it. If it is yours to change: chattr -i %s (lsattr shows it): %w", p, p, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("hostdns: changing %s needs root: run it with sudo: %w", p, err)
	}
	return fmt.Errorf("hostdns: change %s: %w", p, err)
}

// write puts a file in place in one step, with the owner and mode of the one
// before. A file that is a mount point, as in containers, cannot be replaced;
// it is written over.
func (m *Machine) write(p string, data []byte, mode fs.FileMode) error {
	real := m.path(p)
	if err := os.MkdirAll(filepath.Dir(real), 0o755); err != nil {
		return advise(p, err)
	}
	old, statErr := os.Stat(real)
	if statErr == nil {
		mode = old.Mode().Perm()
	}
	err := replace(real, data, cmp.Or(mode, 0o644), old)
	if err != nil && statErr == nil {
		err = os.WriteFile(real, data, mode)
	}
	if err != nil {
		return advise(p, err)
	}
	return nil
}

func replace(real string, data []byte, mode fs.FileMode, old fs.FileInfo) error {
	f, err := os.CreateTemp(filepath.Dir(real), ".fingerpost-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // after the rename it is not there any more
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(mode)
	}
	if uid, gid, ok := owner(old); err == nil && ok {
		err = f.Chown(uid, gid)
	}
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), real)
	}
	return err
}

func owner(info fs.FileInfo) (uid, gid int, ok bool) {
	if info == nil {
		return 0, 0, false
	}
	if s, is := info.Sys().(*syscall.Stat_t); is {
		return int(s.Uid), int(s.Gid), true
	}
	return 0, 0, false
}

func (m *Machine) remove(p string) error {
	if err := os.Remove(m.path(p)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return advise(p, err)
	}
	return nil
}

// missingDirs lists the directories that a file needs and that are not there,
// the deepest first.
func (m *Machine) missingDirs(p string) []string {
	var dirs []string
	for d := path.Dir(p); d != "/" && d != "." && !m.exists(d); d = path.Dir(d) {
		dirs = append(dirs, d)
	}
	return dirs
}
