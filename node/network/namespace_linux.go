package network

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// threadNetNS is the calling thread's own namespace; /proc/self would be the
// main thread's.
const threadNetNS = "/proc/thread-self/ns/net"

// nsfsMagic is the type of the file system that namespaces are files of.
const nsfsMagic = 0x6e736673

// onThread runs f on a thread that f may move to another network namespace.
// home is where the thread must be afterwards; one that cannot be brought back
// ends.
func onThread(home int, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// /proc/self shows the main thread: others must not see it move.
			done <- onThread(home, f)
			runtime.UnlockOSThread()
			return
		}
		here, err := os.Open(threadNetNS)
		if err != nil {
			done <- err
			return
		}
		defer here.Close()
		if home >= 0 {
			if err := unix.Setns(home, unix.CLONE_NEWNET); err != nil {
				done <- fmt.Errorf("enter the node's network namespace: %w", err)
				return
			}
		}
		err = f()
		if unix.Setns(int(here.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// isNamespace says whether a file holds a namespace.
func isNamespace(path string) bool {
	var s unix.Statfs_t
	return unix.Statfs(path, &s) == nil && int64(s.Type) == nsfsMagic
}

// inNamespace runs f with a netlink handle of the namespace at path, on a
// thread inside it. With create, a new one is made there if there is none, and
// f learns so.
func (n *Network) inNamespace(path string, create bool, f func(h *netlink.Handle, created bool) error) error {
	exists := isNamespace(path)
	if !exists && !create {
		return fmt.Errorf("%s: %w", path, fs.ErrNotExist)
	}
	return onThread(n.host.fd(), func() error {
		if exists {
			file, err := os.Open(path)
			if err != nil {
				return err
			}
			err = unix.Setns(int(file.Fd()), unix.CLONE_NEWNET)
			file.Close()
			if err != nil {
				return fmt.Errorf("enter the network namespace %s: %w", path, err)
			}
		} else if err := newNamespace(path); err != nil {
			return err
		}
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer h.Close()
		return f(h, !exists)
	})
}

// newNamespace moves the calling thread into a new network namespace, which a
// bind mount on path keeps alive.
func newNamespace(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	// A file without a namespace is what a restart of the machine, or a crash
	// just here, leaves.
	file, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE, 0o444)
	if err != nil {
		return err
	}
	file.Close()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		os.Remove(path)
		if errors.Is(err, unix.EPERM) {
			return fmt.Errorf("make a network namespace: %w; pod networks need root", err)
		}
		return fmt.Errorf("make a network namespace: %w", err)
	}
	if err := unix.Mount(threadNetNS, path, "", unix.MS_BIND, ""); err != nil {
		os.Remove(path)
		return fmt.Errorf("keep a network namespace at %s: %w", path, err)
	}
	return nil
}

// removeNamespace drops the file of a namespace. Processes that are still
// inside keep the namespace itself alive.
func removeNamespace(path string) error {
	for isNamespace(path) {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", path, err)
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// sysctl sets a value of the calling thread's namespace, unless it is that
// already: where /proc/sys is read-only, that is all that can be asked.
func sysctl(name, value string) error {
	path := "/proc/sys/" + name
	if got, err := os.ReadFile(path); err == nil && string(got) == value+"\n" {
		return nil
	}
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("set sysctl %s=%s: %w", name, value, err)
	}
	defer file.Close()
	if _, err := file.WriteString(value); err != nil {
		return fmt.Errorf("set sysctl %s=%s: %w", name, value, err)
	}
	return nil
}

// hostNetNS is the node's namespace: that of the thread that called New.
type hostNetNS struct{ file *os.File }

func (h hostNetNS) fd() int { return int(h.file.Fd()) }
