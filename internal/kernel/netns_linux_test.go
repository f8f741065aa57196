package kernel

import (
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// TestDialIn connects to a listener that only a namespace has.
func TestDialIn(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("making a network namespace needs root")
	}
	type made struct {
		path string
		l    net.Listener
		err  error
	}
	ready, release := make(chan made), make(chan struct{})
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			ready <- made{err: err}
			return
		}
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			ifr, e := unix.NewIfreq("lo")
			if err = e; err == nil {
				ifr.SetUint16(unix.IFF_UP)
				err = unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
			}
			_ = unix.Close(fd)
		}
		if err != nil {
			ready <- made{err: err}
			return
		}
		l, err := net.Listen("tcp", "127.0.0.1:7")
		ready <- made{fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()), l, err}
		<-release
	}()
	m := <-ready
	defer close(release)
	if m.err != nil {
		t.Fatal(m.err)
	}
	defer m.l.Close()
	go func() {
		if c, err := m.l.Accept(); err == nil {
			_, _ = c.Write([]byte("inside"))
			_ = c.Close()
		}
	}()
	c, err := DialIn(t.Context(), m.path, "tcp", "127.0.0.1:7")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if b, _ := io.ReadAll(c); string(b) != "inside" {
		t.Fatalf("%q", b)
	}
	if _, err := DialIn(t.Context(), "/nowhere", "tcp", "127.0.0.1:7"); err == nil {
		t.Fatal("a namespace that is not there was entered")
	}
}
