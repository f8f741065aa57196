package nftables

import (
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fingerpost/fingerpost/catalog/viewtest"
)

// namespace makes a network namespace for the test and gives its descriptor.
func namespace(t testing.TB) int {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	type result struct {
		f   *os.File
		err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- result{nil, err}
			return
		}
		f, err := os.Open("/proc/thread-self/ns/net")
		done <- result{f, err}
	}()
	r := <-done
	if r.err != nil {
		t.Fatal(r.err)
	}
	t.Cleanup(func() { _ = r.f.Close() })
	return int(r.f.Fd())
}

func newDriver(t testing.TB, change func(*Config)) *Driver {
	t.Helper()
	cfg := Config{Node: viewtest.Node, netns: namespace(t)}
	if change != nil {
		change(&cfg)
	}
	d, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.k.close)
	return d
}

func TestConformance(t *testing.T) {
	viewtest.Run(t, func(t *testing.T) viewtest.View { return newDriver(t, nil) })
}
