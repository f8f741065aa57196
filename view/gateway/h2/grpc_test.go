package h2

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	grpcstatus "google.golang.org/grpc/status"

	"github.com/fingerpost/fingerpost/view/gateway/stream"
	wirehttp "github.com/fingerpost/fingerpost/wire/http"
)

// plain is a codec of messages that are bytes.
type plain struct{}

func (plain) Name() string                    { return "plain" }
func (plain) Marshal(v any) ([]byte, error)   { return *v.(*[]byte), nil }
func (plain) Unmarshal(b []byte, v any) error { *v.(*[]byte) = append([]byte(nil), b...); return nil }

// grpcEcho is an endpoint of gRPC by hand: it echoes messages as they come, and
// hangs below /svc/Hang until the client gives up.
func grpcEcho(gaveUp chan error) func(stream.Downstream) {
	return func(ds stream.Downstream) {
		r := ds.Request()
		if !r.Trailers || string(r.Method) != "POST" {
			ds.Respond(&wirehttp.Response{Status: 400}, true)
			return
		}
		head := wirehttp.Response{Status: 200, Length: wirehttp.Unknown}
		head.Fields.Add(wirehttp.ContentType, []byte("application/grpc"))
		switch string(r.Path) {
		case "/svc/Hang":
			ch := make(chan error, 1)
			ds.(*strm).OnAbort(func(err error) { ch <- err })
			gaveUp <- <-ch
			return
		case "/svc/Deny":
			head.Fields.Add(wirehttp.GrpcStatus, []byte("7"))
			head.Fields.Add(wirehttp.GrpcMessage, []byte("no"))
			ds.Respond(&head, true)
			return
		}
		ds.Respond(&head, false)
		ds.Flush()
		for {
			p, end, err := ds.Next()
			if err != nil {
				return
			}
			ds.Write(p, false)
			if end {
				break
			}
			if !ds.Ready() {
				ds.Flush()
			}
		}
		var f wirehttp.Fields
		f.Add(wirehttp.GrpcStatus, []byte("0"))
		ds.End(f)
	}
}

func TestGRPCClient(t *testing.T) {
	gaveUp := make(chan error, 100)
	addr := testServer(t, Config{}, grpcEcho(gaveUp))
	cc, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.ForceCodec(plain{}), grpc.MaxCallRecvMsgSize(8<<20)))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, n := range []int{0, 10, 100_000, 3 << 20} {
		in, out := []byte(strings.Repeat("x", n)), []byte(nil)
		if err := cc.Invoke(ctx, "/svc/Echo", &in, &out); err != nil || string(out) != string(in) {
			t.Fatal(n, len(out), err)
		}
	}
	var in, out []byte
	if err := cc.Invoke(ctx, "/svc/Deny", &in, &out); grpcstatus.Code(err) != codes.PermissionDenied {
		t.Error(err)
	}
	// Until the call is there before its time is over.
	var told error
	for wait := 50 * time.Millisecond; told == nil && ctx.Err() == nil; wait *= 2 {
		short, stop := context.WithTimeout(ctx, wait)
		if err := cc.Invoke(short, "/svc/Hang", &in, &out); grpcstatus.Code(err) != codes.DeadlineExceeded {
			t.Error(err)
		}
		stop()
		select {
		case told = <-gaveUp:
		case <-time.After(wait):
		}
	}
	if told == nil {
		t.Error("the handler was not told")
	}
	cs, err := cc.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/svc/Echo")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		in := []byte(strings.Repeat("m", i*100))
		if err := cs.SendMsg(&in); err != nil {
			t.Fatal(err)
		}
		if err := cs.RecvMsg(&out); err != nil || len(out) != len(in) {
			t.Fatal(i, len(out), err)
		}
	}
	cs.CloseSend()
	if err := cs.RecvMsg(&out); err != io.EOF {
		t.Error(err)
	}
}

func TestGRPCServer(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.ForceServerCodec(plain{}), grpc.UnknownServiceHandler(func(_ any, ss grpc.ServerStream) error {
		for {
			var m []byte
			if err := ss.RecvMsg(&m); err == io.EOF {
				return grpcstatus.Error(codes.DataLoss, "as it should")
			} else if err != nil {
				return err
			}
			if err := ss.SendMsg(&m); err != nil {
				return err
			}
		}
	}))
	go s.Serve(ln)
	defer s.Stop()
	k := dialClient(t, ln.Addr().String(), Config{})
	r := wirehttp.Request{Method: []byte("POST"), Path: []byte("/svc/Echo"), Length: wirehttp.Unknown, Trailers: true}
	r.Fields.Add(wirehttp.ContentType, []byte("application/grpc"))
	up := open(t, k, &r, false)
	for i := range 50 {
		msg := binary.BigEndian.AppendUint32([]byte{0}, uint32(i*100))
		msg = append(msg, strings.Repeat("m", i*100)...)
		up.Write(msg, false)
		up.Flush()
		if i == 0 {
			if head := receive(t, up); head.Status != 200 {
				t.Fatal(head.Status)
			}
		}
		n := 0
		for n < len(msg) {
			p, end, err := up.Next()
			if err != nil || end {
				t.Fatal(end, err)
			}
			n += len(p)
		}
	}
	up.Write(nil, true)
	up.Flush()
	if b, err := readAll(up); err != nil || len(b) != 0 {
		t.Fatal(b, err)
	}
	if tr := up.Trailers(); string(tr.Get(wirehttp.GrpcStatus)) != "15" || string(tr.Get(wirehttp.GrpcMessage)) != "as it should" {
		t.Error(tr)
	}
	up.Release()
}
