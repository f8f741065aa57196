package kernel

import (
	"context"
	"fmt"
	"net"
	"runtime"

	"golang.org/x/sys/unix"
)

// InNamespace runs f on a thread that is in the network namespace at path.
// Sockets that f opens itself, on its own goroutine, are of that namespace, and
// stay so.
func InNamespace(path string, f func() error) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("kernel: open the network namespace %s: %w", path, err)
	}
	defer unix.Close(fd)
	return OnThread(func() error {
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("kernel: enter the network namespace %s: %w", path, err)
		}
		return f()
	})
}

// OnThread runs f on a thread that ends with it, so that whatever f changes of
// the thread (its namespaces, its identity) nothing else ever meets. It is never
// the process's first thread: that one does not end, and is what /proc/PID shows.
func OnThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			defer runtime.UnlockOSThread()
			done <- OnThread(f) // this thread is held meanwhile
			return
		}
		done <- f()
	}()
	return <-done
}

// DialIn connects from inside a network namespace to an address that is an IP
// with a port.
func DialIn(ctx context.Context, path, network, address string) (conn net.Conn, err error) {
	err = InNamespace(path, func() error {
		var d net.Dialer
		conn, err = d.DialContext(ctx, network, address)
		return err
	})
	return conn, err
}
