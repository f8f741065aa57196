package gateway

import (
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/fingerpost/fingerpost/view/gateway"
	"github.com/fingerpost/fingerpost/view/gateway/route"
)

// bytesCodec makes messages of bytes, so that no generated code is needed.
type bytesCodec struct{}

func (bytesCodec) Name() string { return "bytes" }

func (bytesCodec) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }

func (bytesCodec) Unmarshal(b []byte, v any) error {
	*v.(*[]byte) = append([]byte(nil), b...)
	return nil
}

// rpc is the server of the methods below.
type rpc struct {
	began, cancelled atomic.Int64
}

const rpcService = "fingerpost.test.Echo"

// say answers one message with itself. Metadata asks for more: code (with
// details), wait, fill (a larger answer); tell comes back as header and trailer.
func (s *rpc) say(ctx context.Context, in []byte) ([]byte, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	ask := func(k string) string {
		if v := md.Get(k); len(v) > 0 {
			return v[0]
		}
		return ""
	}
	if v := md.Get("tell-bin"); len(v) > 0 {
		_ = grpc.SetHeader(ctx, metadata.MD{"told-bin": v, "told": md.Get("tell")})
		_ = grpc.SetTrailer(ctx, metadata.MD{"ended-bin": v, "ended": md.Get("tell")})
	}
	if ask("wait") != "" {
		return nil, s.hold(ctx)
	}
	if n, _ := strconv.Atoi(ask("code")); n != 0 {
		st, err := status.New(codes.Code(n), "it was asked for: ü, 100 %").WithDetails(wrapperspb.String("a detail"))
		if err != nil {
			return nil, err
		}
		return nil, st.Err()
	}
	if n, _ := strconv.Atoi(ask("fill")); n != 0 {
		return make([]byte, n), nil
	}
	return in, nil
}

// hold waits until the client has enough.
func (s *rpc) hold(ctx context.Context) error {
	s.began.Add(1)
	<-ctx.Done()
	s.cancelled.Add(1)
	return ctx.Err()
}

func (s *rpc) chat(_ any, st grpc.ServerStream) error {
	for {
		var b []byte
		if err := st.RecvMsg(&b); err == io.EOF {
			st.SetTrailer(metadata.Pairs("ended", "chat"))
			return nil
		} else if err != nil {
			if st.Context().Err() != nil {
				s.cancelled.Add(1)
			}
			return err
		}
		if string(b) == "fail" {
			return status.Error(codes.DataLoss, "after some messages")
		}
		if err := st.SendMsg(&b); err != nil {
			return err
		}
	}
}

// collect answers a stream with the number of its bytes.
func (s *rpc) collect(_ any, st grpc.ServerStream) error {
	n := 0
	for {
		var b []byte
		if err := st.RecvMsg(&b); err == io.EOF {
			out := []byte(strconv.Itoa(n))
			return st.SendMsg(&out)
		} else if err != nil {
			return err
		}
		n += len(b)
	}
}

// repeat answers "N SIZE" with so many messages.
func (s *rpc) repeat(_ any, st grpc.ServerStream) error {
	var b []byte
	if err := st.RecvMsg(&b); err != nil {
		return err
	}
	var n, size int
	if _, err := fmt.Sscan(string(b), &n, &size); err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	for i := range n {
		m := make([]byte, size)
		copy(m, strconv.Itoa(i))
		if err := st.SendMsg(&m); err != nil {
			return err
		}
	}
	if n == 0 {
		return s.hold(st.Context())
	}
	return nil
}

func (s *rpc) register(g *grpc.Server) {
	g.RegisterService(&grpc.ServiceDesc{
		ServiceName: rpcService, HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Say", Handler: func(_ any, ctx context.Context, dec func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			var b []byte
			if err := dec(&b); err != nil {
				return nil, err
			}
			out, err := s.say(ctx, b)
			return &out, err
		}}},
		Streams: []grpc.StreamDesc{
			{StreamName: "Chat", Handler: s.chat, ClientStreams: true, ServerStreams: true},
			{StreamName: "Collect", Handler: s.collect, ClientStreams: true},
			{StreamName: "Repeat", Handler: s.repeat, ServerStreams: true},
		},
	}, s)
}

// serveRPC runs a server; its end is orderly if graceful is called before.
func serveRPC(t testing.TB, options ...grpc.ServerOption) (addr string, s *rpc, graceful func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	options = append(options, grpc.ForceServerCodec(bytesCodec{}), grpc.MaxRecvMsgSize(16<<20))
	g := grpc.NewServer(options...)
	s = &rpc{}
	s.register(g)
	done := make(chan struct{})
	go func() { defer close(done); _ = g.Serve(l) }()
	t.Cleanup(func() { g.Stop(); <-done })
	return l.Addr().String(), s, g.GracefulStop
}

// rpcClient connects grpc-go to the gateway.
func (r *rig) rpcClient(t testing.TB, secure bool, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	cred := insecure.NewCredentials()
	if secure {
		cred = credentials.NewTLS(r.ca.client())
	}
	port := ":80"
	if secure {
		port = ":443"
	}
	options = append([]grpc.DialOption{
		grpc.WithTransportCredentials(cred), grpc.WithAuthority(host),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) { return r.dial(ctx, "tcp", addr) }),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(bytesCodec{}), grpc.MaxCallRecvMsgSize(16<<20)),
		// Its own retries would hide what the gateway does.
		grpc.WithDisableRetry(),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: time.Minute}),
	}, options...)
	c, err := grpc.NewClient("passthrough:///"+host+port, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// say calls the unary method.
func say(ctx context.Context, c *grpc.ClientConn, in string, options ...grpc.CallOption) (string, error) {
	b, out := []byte(in), []byte(nil)
	err := c.Invoke(ctx, "/"+rpcService+"/Say", &b, &out, options...)
	return string(out), err
}

// open begins a stream.
func open(ctx context.Context, c *grpc.ClientConn, method string) (grpc.ClientStream, error) {
	return c.NewStream(ctx, &grpc.StreamDesc{StreamName: method, ClientStreams: true, ServerStreams: true}, "/"+rpcService+"/"+method)
}

// grpcRig is a rig with a gRPC server behind it. tls: it speaks TLS.
func grpcRig(t testing.TB, tls bool, cfg gateway.Config, options ...grpc.ServerOption) (*rig, *rpc) {
	t.Helper()
	r := newRig(t, cfg)
	p := usual()
	p.Protocol = route.H2C
	if tls {
		p.Protocol = route.H2
		p.EndpointTLS = &route.EndpointTLS{ServerName: "endpoint.internal", Roots: r.ca.pool}
		options = append(options, grpc.Creds(credentials.NewServerTLSFromCert(r.ca.leaf(t, "endpoint.internal"))))
	}
	addr, s, _ := serveRPC(t, options...)
	r.site(host, "web", p)
	r.endpoints("web", addr)
	return r, s
}
