package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/fingerpost/fingerpost/view/gateway"
	"github.com/fingerpost/fingerpost/view/gateway/route"
)

// TestGRPCMany: a thousand streams at the same time, all of them alive.
func TestGRPCMany(t *testing.T) {
	t.Parallel()
	r, _ := grpcRig(t, false, gateway.Config{})
	const conns, each = 10, 100
	var live []grpc.ClientStream
	for range conns {
		c := r.rpcClient(t, false)
		for range each {
			st, err := open(t.Context(), c, "Chat")
			if err != nil {
				t.Fatal(err)
			}
			live = append(live, st)
		}
	}
	for round := range 2 {
		for i, st := range live {
			m := fmt.Appendf(nil, "%d of %d", round, i)
			if err := st.SendMsg(&m); err != nil {
				t.Fatal(err)
			}
		}
		for i, st := range live {
			var out []byte
			if err := st.RecvMsg(&out); err != nil || string(out) != fmt.Sprintf("%d of %d", round, i) {
				t.Fatalf("stream %d: %q %v", i, out, err)
			}
		}
	}
	// More calls than one connection may have at a time wait for their turn.
	c := r.rpcClient(t, false)
	var wg sync.WaitGroup
	for i := range 1000 {
		wg.Go(func() {
			in := fmt.Sprint(i)
			if out, err := say(t.Context(), c, in); out != in || err != nil {
				t.Errorf("call %d: %q %v", i, out, err)
			}
		})
	}
	wg.Wait()
}

// load calls without pause until stop; calls counts what was done. The error is
// the first of any call.
func load(t *testing.T, conns []*grpc.ClientConn, each int) (calls *atomic.Int64, stop func()) {
	t.Helper()
	ctx, end := context.WithCancel(context.Background())
	calls = new(atomic.Int64)
	var wg sync.WaitGroup
	for _, c := range conns {
		for range each {
			wg.Go(func() {
				for ctx.Err() == nil {
					if out, err := say(context.Background(), c, "load"); err != nil || out != "load" {
						t.Errorf("a call failed: %q %v", out, err)
						return
					}
					calls.Add(1)
				}
			})
		}
	}
	return calls, sync.OnceFunc(func() { end(); wg.Wait() })
}

// TestGRPCMaxAge: servers that end connections all the time (GOAWAY), and those
// that are replaced one by one, are not seen by clients.
func TestGRPCMaxAge(t *testing.T) {
	t.Parallel()
	age := grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: 20 * time.Millisecond, MaxConnectionAgeGrace: patience})
	r, _ := grpcRig(t, false, gateway.Config{}, age)
	calls, stop := load(t, []*grpc.ClientConn{r.rpcClient(t, false), r.rpcClient(t, true)}, 4)
	defer stop()
	moved := func(n int64) {
		t.Helper()
		want := calls.Load() + n
		until(t, "calls go on", func() bool { return calls.Load() >= want || t.Failed() })
	}
	moved(3000)
	for range 10 {
		addr, _, graceful := serveRPC(t, age)
		r.endpoints("web", addr)
		moved(100)
		next, _, _ := serveRPC(t)
		r.endpoints("web", next)
		graceful() // while calls to it are under way
		moved(100)
	}
}

// TestGRPCDrain: a gateway that shuts down says so in time; calls go on with
// the next one, and streams under way end as they want.
func TestGRPCDrain(t *testing.T) {
	t.Parallel()
	one, _ := grpcRig(t, false, gateway.Config{Timeouts: gateway.Timeouts{Drain: patience}})
	two, _ := grpcRig(t, false, gateway.Config{})
	var second atomic.Bool
	dial := grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
		if second.Load() {
			return two.dial(ctx, "tcp", addr)
		}
		return one.dial(ctx, "tcp", addr)
	})
	conn := one.rpcClient(t, false, dial)
	calls, stop := load(t, []*grpc.ClientConn{conn}, 8)
	defer stop()
	until(t, "calls go through the first gateway", func() bool { return calls.Load() > 100 })
	st, err := open(t.Context(), conn, "Chat")
	if err != nil {
		t.Fatal(err)
	}
	talk := func(text string) {
		t.Helper()
		m, out := []byte(text), []byte(nil)
		if err := errors.Join(st.SendMsg(&m), st.RecvMsg(&out)); err != nil || string(out) != text {
			t.Errorf("a stream under way: %q %v", out, err)
		}
	}
	talk("before")
	second.Store(true)
	go one.stop()
	want := calls.Load() + 500
	until(t, "calls go through the second gateway", func() bool { return calls.Load() > want || t.Failed() })
	talk("while the gateway drains")
	if err := st.CloseSend(); err != nil {
		t.Error(err)
	}
	select {
	case <-one.stopped:
	case <-time.After(patience):
		t.Error("the gateway does not end although nothing is under way")
	}
}

// TestGRPCRetry: a call that an endpoint has refused goes to another one. Two of
// three endpoints are not there.
func TestGRPCRetry(t *testing.T) {
	t.Parallel()
	r := newRig(t, gateway.Config{})
	p := usual()
	p.Protocol = route.H2C
	r.site(host, "web", p)
	addr, _, _ := serveRPC(t)
	r.endpoints("web", "127.0.0.1:1", addr, "127.0.0.2:1")
	c := r.rpcClient(t, false)
	for range 100 {
		if out, err := say(t.Context(), c, "x"); out != "x" || err != nil {
			t.Fatalf("%q %v", out, err)
		}
	}
}
