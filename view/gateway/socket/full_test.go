//go:build linux

package socket

import (
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestNoDescriptors: without descriptors the Poller says so, waits for as long as it
// is told, and takes the clients when there are some again.
func TestNoDescriptors(t *testing.T) {
	p, err := NewPoller()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	const clients = 8
	for range clients { // they are connected, and not accepted yet
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	// All that the process may have are taken, but for one.
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	var all []*os.File
	free := func() {
		for _, f := range all {
			f.Close()
		}
		all = nil
		_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before)
	}
	defer free()
	low := before
	low.Cur = 128
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	for {
		f, err := os.Open(os.DevNull)
		if err != nil {
			break
		}
		all = append(all, f)
	}
	if len(all) == 0 {
		t.Fatal("more descriptors are open than this test expects")
	}
	all[len(all)-1].Close()
	all = all[:len(all)-1]

	const wait = 10 * time.Millisecond
	var taken, failed atomic.Int32
	began := time.Now()
	kept := make(chan *Polled, clients)
	s, err := p.Listen(l.(*net.TCPListener), func(a *Accepted) {
		k := &Polled{}
		k.Open(a, nil)
		kept <- k
		taken.Add(1)
	}, func(err error) time.Duration {
		failed.Add(1)
		return wait
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for failed.Load() < 3 {
		<-time.After(time.Millisecond)
	}
	if n, most := int(failed.Load()), int(time.Since(began)/wait)+1; n > most {
		t.Errorf("tried %d times, want %d at most: it does not wait", n, most)
	}
	if taken.Load() == clients {
		t.Error("there were descriptors for all")
	}
	free()
	for range clients {
		(<-kept).Close()
	}
}
