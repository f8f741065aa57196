package gateway

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"

	"github.com/fingerpost/fingerpost/view/gateway"
	"github.com/fingerpost/fingerpost/view/gateway/route"
)

// TestStreamed: what an endpoint has said reaches the client, although it goes on
// later: the head before the body, each event before the next. When the client
// leaves, the endpoint hears of it, with HTTP/1 at the next event.
func TestStreamed(t *testing.T) {
	t.Parallel()
	next := make(chan struct{})
	var left atomic.Int64
	addr := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.WriteHeader(http.StatusOK)
		flush := http.NewResponseController(w)
		_ = flush.Flush()
		for i := 0; ; i++ {
			select {
			case <-next:
			case <-r.Context().Done():
				left.Add(1)
				return
			}
			fmt.Fprintf(w, "data: %d\n", i)
			_ = flush.Flush()
		}
	}))
	r := newRig(t, gateway.Config{})
	r.endpoints("web", addr)
	ended := int64(0)
	for _, protocol := range []route.Protocol{route.HTTP, route.H2C} {
		p := usual()
		p.Protocol = protocol
		r.site(host, "web", p)
		for _, two := range []bool{false, true} {
			for _, secure := range []bool{false, true} {
				what := fmt.Sprintf("protocol %d from HTTP/2 %v TLS %v", protocol, two, secure)
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				req, _ := http.NewRequestWithContext(ctx, "GET", r.url(secure, "/events"), nil)
				resp, err := r.transport(two).RoundTrip(req)
				if err != nil {
					t.Errorf("%s: the head: %v", what, err)
					cancel()
					continue
				}
				b := bufio.NewReader(resp.Body)
				for i := range 3 {
					next <- struct{}{}
					if l, err := b.ReadString('\n'); err != nil || l != fmt.Sprintf("data: %d\n", i) {
						t.Errorf("%s: event %d: %q %v", what, i, l, err)
					}
				}
				cancel()
				_ = resp.Body.Close()
				ended++
				until(t, what+": the endpoint hears that the client left", func() bool {
					if !two {
						// Of HTTP/1 that is seen when something is written to it.
						select {
						case next <- struct{}{}:
						default:
						}
					}
					return left.Load() == ended
				})
			}
		}
	}
}

// TestGRPCHeader: metadata that a server sends before any message arrives before any
// message.
func TestGRPCHeader(t *testing.T) {
	t.Parallel()
	r, _ := grpcRig(t, false, gateway.Config{}, grpc.StreamInterceptor(func(srv any, st grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
		return errors.Join(st.SendHeader(map[string][]string{"early": {"yes"}}), h(srv, st))
	}))
	for _, secure := range []bool{false, true} {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		st, err := open(ctx, r.rpcClient(t, secure), "Chat")
		if err != nil {
			t.Fatal(err)
		}
		if md, err := st.Header(); err != nil || len(md["early"]) != 1 {
			t.Errorf("header: %v %v", md, err)
		}
		if err := st.CloseSend(); err != nil {
			t.Error(err)
		}
	}
}
