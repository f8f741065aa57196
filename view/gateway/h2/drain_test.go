package h2

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/fingerpost/fingerpost/view/gateway/stream"
)

// TestDrainUnderLoad: connections are shut down all the time while clients send
// requests. No request fails; those that the server did not look at are sent
// again on a new connection.
func TestDrainUnderLoad(t *testing.T) {
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	w := NewWorkers()
	defer w.Close()
	var served atomic.Int64
	cancels := make(chan context.CancelFunc, 1000)
	var servers sync.WaitGroup
	servers.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			ctx, cancel := context.WithCancel(context.Background())
			cancels <- cancel
			servers.Go(func() {
				Serve(ctx, nc, nil, Config{Workers: w}, func(ds stream.Downstream) {
					suiteHandler(ds)
					served.Add(1)
				})
			})
		}
	})
	dial := func() *Client {
		nc, err := net.Dial("unix", ln.Addr().String())
		if err != nil {
			t.Error(err)
			return nil
		}
		k, _ := NewClient(nc, Config{Workers: w})
		return k
	}
	var mu sync.Mutex
	k := dial()
	var again, done atomic.Int64
	const each, users = 1500, 6
	request := func() {
		for {
			mu.Lock()
			if k.Gone() {
				k.Drain()
				k = dial()
			}
			use := k
			mu.Unlock()
			status, b, err := roundTrip(use, "POST", "/", []byte("body"))
			if errors.Is(err, stream.ErrRefused) {
				again.Add(1)
				continue
			}
			if err != nil || status != 200 || string(b) != "hello" {
				t.Errorf("%d %q %v", status, b, err)
			}
			// A connection is shut down for each hundred requests.
			if done.Add(1)%100 == 0 {
				select {
				case cancel := <-cancels:
					cancel()
				default:
				}
			}
			return
		}
	}
	var wg sync.WaitGroup
	for range users {
		wg.Go(func() {
			for range each {
				request()
			}
		})
	}
	wg.Wait()
	t.Logf("%d requests, %d sent again", done.Load(), again.Load())
	k.Close()
	ln.Close()
	servers.Wait()
	if n := served.Load(); n != each*users {
		t.Errorf("%d requests were served, want %d: none twice", n, each*users)
	}
}
