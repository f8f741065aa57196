package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/fingerpost/fingerpost/view/gateway"
	"github.com/fingerpost/fingerpost/view/gateway/route"
)

// TestGRPC: each kind of call, with TLS on neither, one and both sides.
func TestGRPC(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ in, out bool }{{false, false}, {true, false}, {false, true}, {true, true}} {
		t.Run(fmt.Sprintf("TLS in %v out %v", c.in, c.out), func(t *testing.T) {
			t.Parallel()
			r, s := grpcRig(t, c.out, gateway.Config{})
			conn := r.rpcClient(t, c.in)
			t.Run("unary", func(t *testing.T) { unary(t, conn) })
			t.Run("errors", func(t *testing.T) { statusErrors(t, conn) })
			t.Run("streams", func(t *testing.T) { streams(t, conn) })
			t.Run("large", func(t *testing.T) { large(t, conn) })
			t.Run("cancel", func(t *testing.T) { cancel(t, conn, s) })
			t.Run("deadline", func(t *testing.T) { deadline(t, conn, s) }) // last: calls may come late
		})
	}
}

func unary(t *testing.T, c *grpc.ClientConn) {
	for i := range 100 {
		in := fmt.Sprintf("message %d", i)
		if out, err := say(t.Context(), c, in); out != in || err != nil {
			t.Fatalf("%d: %q %v", i, out, err)
		}
	}
	// An empty message, and metadata both ways.
	var header, trailer metadata.MD
	ctx := metadata.AppendToOutgoingContext(t.Context(), "tell-bin", "\x00\xff\xfe", "tell", "one", "tell", "two")
	if out, err := say(ctx, c, "", grpc.Header(&header), grpc.Trailer(&trailer)); out != "" || err != nil {
		t.Errorf("empty: %q %v", out, err)
	}
	if got := fmt.Sprintf("%q %q", header["told-bin"], header["told"]); got != `["\x00\xff\xfe"] ["one" "two"]` {
		t.Errorf("header: %s", got)
	}
	if got := fmt.Sprintf("%q %q", trailer["ended-bin"], trailer["ended"]); got != `["\x00\xff\xfe"] ["one" "two"]` {
		t.Errorf("trailer: %s", got)
	}
}

// statusErrors: the status with details comes in trailers, or in a head alone.
func statusErrors(t *testing.T, c *grpc.ClientConn) {
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "code", fmt.Sprint(uint32(code)))
		_, err := say(ctx, c, "x")
		st := status.Convert(err)
		if st.Code() != code || st.Message() != "it was asked for: ü, 100 %" || len(st.Details()) != 1 {
			t.Fatalf("%s: %v %v", code, err, st.Details())
		}
		if d, ok := st.Details()[0].(*wrapperspb.StringValue); !ok || d.Value != "a detail" {
			t.Errorf("%s: detail %v", code, st.Details()[0])
		}
	}
	err := c.Invoke(t.Context(), "/"+rpcService+"/Unknown", &[]byte{}, &[]byte{})
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("unknown method: %v", err)
	}
}

func streams(t *testing.T, c *grpc.ClientConn) {
	st, err := open(t.Context(), c, "Collect")
	if err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		m := make([]byte, 1000)
		if err := st.SendMsg(&m); err != nil {
			t.Fatal(err)
		}
	}
	var out []byte
	if err := errors.Join(st.CloseSend(), st.RecvMsg(&out)); err != nil || string(out) != "1000000" {
		t.Errorf("of the client: %q %v", out, err)
	}

	if st, err = open(t.Context(), c, "Repeat"); err != nil {
		t.Fatal(err)
	}
	in := []byte("1000 1000")
	if err := errors.Join(st.SendMsg(&in), st.CloseSend()); err != nil {
		t.Fatal(err)
	}
	for i := 0; ; i++ {
		err := st.RecvMsg(&out)
		if err == io.EOF && i == 1000 {
			break
		}
		if err != nil || strings.TrimRight(string(out), "\x00") != fmt.Sprint(i) || len(out) != 1000 {
			t.Fatalf("of the server: %d: %v", i, err)
		}
	}

	// Both ways, each message answered before the next one: nothing may be held back.
	if st, err = open(t.Context(), c, "Chat"); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		m := fmt.Appendf(nil, "message %d", i)
		if err := errors.Join(st.SendMsg(&m), st.RecvMsg(&out)); err != nil || string(out) != string(m) {
			t.Fatalf("chat: %q %v", out, err)
		}
	}
	if err := st.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if err := st.RecvMsg(&out); err != io.EOF || st.Trailer().Get("ended")[0] != "chat" {
		t.Errorf("the end of a chat: %v %v", err, st.Trailer())
	}
	// A status after messages.
	if st, err = open(t.Context(), c, "Chat"); err != nil {
		t.Fatal(err)
	}
	for _, m := range []string{"one", "fail"} {
		b := []byte(m)
		if err := st.SendMsg(&b); err != nil {
			t.Fatal(err)
		}
	}
	for err = nil; err == nil; {
		err = st.RecvMsg(&out)
	}
	if status.Code(err) != codes.DataLoss {
		t.Errorf("a status after messages: %v", err)
	}
}

func large(t *testing.T, c *grpc.ClientConn) {
	for _, n := range []int{16 << 10, 1 << 20, 4 << 20} {
		in := strings.Repeat("x", n)
		if out, err := say(t.Context(), c, in); err != nil || out != in {
			t.Errorf("%d bytes: %d came back, %v", n, len(out), err)
		}
	}
}

// deadline: the client's deadline ends the call at the server.
func deadline(t *testing.T, c *grpc.ClientConn, s *rpc) {
	before, cancelled := s.began.Load(), s.cancelled.Load()
	for wait := 50 * time.Millisecond; s.began.Load() == before; wait *= 2 { // until one reaches the server
		ctx, end := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "wait", "yes"), wait)
		// The server counts the same time. If it is first, it resets the call, which
		// the gateway answers with 502.
		if _, err := say(ctx, c, "x"); status.Code(err) != codes.DeadlineExceeded && status.Code(err) != codes.Unavailable {
			t.Fatalf("%v", err)
		}
		end()
	}
	until(t, "the server hears of it", func() bool { return s.cancelled.Load()-cancelled == s.began.Load()-before })
}

// cancel: so does giving up, in each kind of call. No deadline tells the server.
func cancel(t *testing.T, c *grpc.ClientConn, s *rpc) {
	before, began := s.cancelled.Load(), s.began.Load()
	ctx, end := context.WithCancel(metadata.AppendToOutgoingContext(t.Context(), "wait", "yes"))
	reached := make(chan bool, 1)
	go func() {
		defer end()
		for limit := time.Now().Add(patience); s.began.Load() == began && time.Now().Before(limit); {
			pause()
		}
		reached <- s.began.Load() > began
	}()
	if _, err := say(ctx, c, "x"); status.Code(err) != codes.Canceled {
		t.Errorf("unary: %v", err)
	}
	if !<-reached {
		t.Fatal("the call does not reach the server")
	}
	until(t, "the server hears of a unary call's end", func() bool { return s.cancelled.Load() == before+1 })

	ctx, end = context.WithCancel(t.Context())
	st, err := open(ctx, c, "Chat")
	if err != nil {
		t.Fatal(err)
	}
	m, out := []byte("x"), []byte(nil)
	if err := errors.Join(st.SendMsg(&m), st.RecvMsg(&out)); err != nil {
		t.Fatal(err)
	}
	end()
	until(t, "the server hears of a chat's end", func() bool { return s.cancelled.Load() == before+2 })

	ctx, end = context.WithCancel(t.Context())
	began = s.began.Load()
	if st, err = open(ctx, c, "Repeat"); err != nil {
		t.Fatal(err)
	}
	m = []byte("0 0")
	if err := errors.Join(st.SendMsg(&m), st.CloseSend()); err != nil {
		t.Fatal(err)
	}
	until(t, "the stream reaches the server", func() bool { return s.began.Load() == began+1 })
	end()
	until(t, "the server hears of a stream's end", func() bool { return s.cancelled.Load() == before+3 })
}

// TestGRPCProblems: what grpc-go makes of the gateway's own answers.
func TestGRPCProblems(t *testing.T) {
	t.Parallel()
	r, _ := grpcRig(t, false, gateway.Config{})
	c := r.rpcClient(t, true)
	r.endpoints("web")
	_, err := say(t.Context(), c, "x")
	if status.Code(err) != codes.Unavailable {
		t.Errorf("no endpoint: %v", err)
	}
	// Nobody listens there.
	r.endpoints("web", "127.0.0.1:1")
	if _, err = say(t.Context(), c, "x"); status.Code(err) != codes.Unavailable {
		t.Errorf("an endpoint that refuses: %v", err)
	}
	// An HTTP/1 server does not speak it.
	r.endpoints("web", serveOn(t, &http.Server{Handler: echo("one")}, nil))
	if _, err = say(t.Context(), c, "x"); status.Code(err) != codes.Unavailable {
		t.Errorf("an endpoint that speaks HTTP/1: %v", err)
	}
	r.e.SetRoutes(route.Update{Hosts: map[string]*route.Host{host: nil}})
	if _, err = say(t.Context(), c, "x"); status.Code(err) != codes.Unimplemented {
		t.Errorf("no route: %v", err)
	}
}
