package h2

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fingerpost/fingerpost/view/gateway/stream"
	wirehttp "github.com/fingerpost/fingerpost/wire/http"
	wire "github.com/fingerpost/fingerpost/wire/http/h2"
)

// bubble runs f with a connection of a client within a bubble of synctest.
func bubble(t *testing.T, cfg Config, f func(t *testing.T, client net.Conn, ended chan error)) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		ended := make(chan error, 1)
		go func() { ended <- Serve(context.Background(), b, nil, cfg, suiteHandler) }()
		f(t, a, ended)
		a.Close()
		time.Sleep(2 * time.Second) // those who write now and then end, too
	})
}

// swallow reads what comes, so that a pipe does not block.
func swallow(c net.Conn) { go io.Copy(io.Discard, c) }

func since(start time.Time, want time.Duration) error {
	if d := time.Since(start); d < want || d > 2*want {
		return fmt.Errorf("after %v, want %v", d, want)
	}
	return nil
}

func TestTimers(t *testing.T) {
	cfg := Config{IdleTimeout: 60 * time.Second, HeadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second}
	hello := join([]byte(wire.Preface), wire.AppendSettings(nil))
	for _, k := range []struct {
		name string
		send []byte
		read bool
		want time.Duration
	}{
		{"no preface", nil, true, cfg.HeadTimeout},
		{"half a preface", []byte(wire.Preface[:10]), true, cfg.HeadTimeout},
		{"preface without settings", []byte(wire.Preface), true, cfg.HeadTimeout},
		{"idle", hello, true, cfg.IdleTimeout},
		{"head without its end", join(hello, fr(wire.Headers, es, 1, request("GET", "/")...)), true, cfg.HeadTimeout},
		{"half a head", join(hello, get(1)[:12]), true, cfg.HeadTimeout},
		{"half a frame's head", join(hello, get(1)[:5]), true, cfg.HeadTimeout},
		{"nothing is read", []byte(wire.Preface), false, 0},
	} {
		t.Run(k.name, func(t *testing.T) {
			bubble(t, cfg, func(t *testing.T, c net.Conn, ended chan error) {
				start := time.Now()
				want := k.want
				if k.read {
					swallow(c)
				} else {
					want = cfg.HeadTimeout // the peer is stuck in more than one way
				}
				go c.Write(k.send)
				<-ended
				if err := since(start, want); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestSlowHead: dribbling a head does not buy time.
func TestSlowHead(t *testing.T) {
	cfg := Config{HeadTimeout: 10 * time.Second}
	bubble(t, cfg, func(t *testing.T, c net.Conn, ended chan error) {
		swallow(c)
		c.Write(join([]byte(wire.Preface), wire.AppendSettings(nil), fr(wire.Headers, es, 1, request("GET", "/")...)))
		start := time.Now()
		go func() {
			for range 100 {
				if _, err := c.Write(fr(wire.Continuation, 0, 1, block("x", strings.Repeat("y", 100))...)); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}()
		<-ended
		if err := since(start, cfg.HeadTimeout); err != nil {
			t.Error(err)
		}
	})
}

// TestBusyIsNotIdle: a stream that is open keeps the connection, however long.
func TestBusyIsNotIdle(t *testing.T) {
	bubble(t, Config{IdleTimeout: time.Minute}, func(t *testing.T, c net.Conn, ended chan error) {
		swallow(c)
		c.Write(join([]byte(wire.Preface), wire.AppendSettings(nil), fr(wire.Headers, es|eh, 1, request("GET", "/wait")...)))
		time.Sleep(time.Hour)
		select {
		case err := <-ended:
			t.Fatal("ended", err)
		default:
		}
	})
}

// TestStuckWriter: a peer that takes nothing ends after WriteTimeout.
func TestStuckWriter(t *testing.T) {
	cfg := Config{WriteTimeout: 30 * time.Second}
	bubble(t, cfg, func(t *testing.T, c net.Conn, ended chan error) {
		io.ReadFull(c, make([]byte, wire.HeaderLen)) // and no more of what we say
		c.Write(join([]byte(wire.Preface), wire.AppendSettings(nil), fr(wire.Headers, es|eh, 1, request("GET", "/wait")...)))
		start := time.Now()
		<-ended
		if err := since(start, cfg.WriteTimeout); err != nil {
			t.Error(err)
		}
	})
}

// TestDeadEndpoint: a client asks an endpoint that says nothing, and gives up.
func TestDeadEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		k, _ := NewClient(b, Config{})
		swallow(a)
		a.Write(wire.AppendSettings(nil))
		synctest.Wait()
		up, err := k.Open()
		if err != nil {
			t.Fatal(err)
		}
		up.Send(&wirehttp.Request{Method: []byte("GET"), Path: []byte("/"), Authority: []byte("x")}, true)
		up.Flush()
		start := time.Now()
		var r wirehttp.Response
		if err := up.Receive(&r); !errors.Is(err, stream.ErrClosed) || time.Since(start) > 3*time.Minute {
			t.Error(err, time.Since(start))
		}
		up.Release()
		if !k.Gone() {
			t.Error("not gone")
		}
		a.Close()
	})
}

// TestBackPressure: a client that does not read makes the handler wait, and an
// endpoint's handler that does not read makes the client wait; what is held
// stays small.
func TestBackPressure(t *testing.T) {
	t.Parallel() // it waits
	p := greeted(t, Config{MaxWindow: 64 << 10}, func(ds stream.Downstream) {
		ds.Respond(&wirehttp.Response{Status: 200, Length: wirehttp.Unknown}, false)
		ds.SetWriteDeadline(time.Now().Add(3 * time.Second))
		n := 0
		for ds.Write(make([]byte, 1000), false) == nil {
			n += 1000
		}
		if n > wire.InitialWindow {
			t.Errorf("%d bytes were taken", n)
		}
	})
	p.send(get(1))
	p.await(dataSum(1, wire.InitialWindow/1000*1000+535))
	p.await(reset(1, wire.InternalError))
}

// TestWindowGrows: the window opens while the reader keeps up, and not beyond its
// bound.
func TestWindowGrows(t *testing.T) {
	sizes := make(chan int64, 1)
	k := pair(t, Config{MaxWindow: 300 << 10}, func(ds stream.Downstream) {
		readAll(ds)
		s := ds.(*strm)
		s.c.mu.Lock()
		sizes <- s.window
		s.c.mu.Unlock()
		ds.Respond(&wirehttp.Response{Status: 200}, true)
	})
	up := open(t, k, &wirehttp.Request{Method: []byte("POST"), Length: 8 << 20}, false)
	if err := up.Write(make([]byte, 8<<20), true); err != nil {
		t.Fatal(err)
	}
	up.Flush()
	receive(t, up)
	if n := <-sizes; n <= wire.InitialWindow || n > 300<<10 {
		t.Errorf("the window is %d", n)
	}
	up.Release()
}

// TestNothingIsLeft: after connections of all kinds have ended, no goroutine is
// left.
func TestNothingIsLeft(t *testing.T) {
	before := runtime.NumGoroutine()
	for i := range 20 {
		a, b := connPair(t)
		done := make(chan struct{})
		w := NewWorkers()
		go func() {
			Serve(context.Background(), b, nil, Config{Workers: w}, suiteHandler)
			close(done)
		}()
		k, _ := NewClient(a, Config{Workers: w})
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if status, _, err := roundTrip(k, "POST", "/", make([]byte, 1000)); err != nil || status != 200 {
					t.Error(status, err)
				}
			})
		}
		wg.Wait()
		if i%2 == 0 {
			up := open(t, k, &wirehttp.Request{Method: []byte("GET"), Path: []byte("/wait")}, true)
			k.Close()
			up.Release()
		} else {
			k.Drain()
		}
		<-done
		w.Close()
	}
	var mu sync.Mutex
	// One more is the goroutine that looks.
	<-waitFor(func() bool { return runtime.NumGoroutine() <= before+1 }, &mu)
}

// TestIdleMemory: what a connection holds that waits without streams.
func TestIdleMemory(t *testing.T) {
	if raceOn {
		t.Skip("the race detector's own memory would count")
	}
	const n = 200
	w := NewWorkers()
	defer w.Close()
	var conns []net.Conn
	var wg sync.WaitGroup
	heap := func() uint64 {
		for range 3 {
			runtime.GC()
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc + m.StackInuse
	}
	var pipes [][2]net.Conn
	for range n {
		a, b := connPair(t)
		pipes = append(pipes, [2]net.Conn{a, b})
	}
	before := heap()
	for _, x := range pipes {
		wg.Go(func() { Serve(context.Background(), x[1], nil, Config{Workers: w}, suiteHandler) })
		p := &peer{t: t, nc: x[0]}
		p.send([]byte(wire.Preface), wire.AppendSettings(nil), wire.AppendSettingsAck(nil))
		p.await(isSettingsAck)
		p.send(get(1, "user-agent", strings.Repeat("x", 100)))
		p.await(dataEnd(1))
		p.send(alive)
		p.await(lives)
		conns = append(conns, x[0])
	}
	per := int64(heap()-before) / n
	t.Logf("%d bytes for an idle connection", per)
	if per > 10<<10 {
		t.Errorf("%d bytes for an idle connection", per)
	}
	for _, c := range conns {
		c.Close()
	}
	wg.Wait()
}
