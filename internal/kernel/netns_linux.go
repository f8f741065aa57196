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
	done := make(chan error, 1)
	go func() {
		// The thread is not given back: it ends with the goroutine, so that
		// nothing else ever runs in the namespace by accident.
		runtime.LockOSThread()
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("kernel: enter the network namespace %s: %w", path, err)
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
