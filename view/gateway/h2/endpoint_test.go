package h2

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/fingerpost/fingerpost/view/gateway/stream"
	wirehttp "github.com/fingerpost/fingerpost/wire/http"
	wire "github.com/fingerpost/fingerpost/wire/http/h2"
)

func answer(id uint32, flags wire.Flags, kv ...string) []byte {
	return fr(wire.Headers, eh|flags, id, block(append([]string{":status", "200"}, kv...)...)...)
}

// TestEndpoints: what a client makes of endpoints that do what they should not.
// An exchange is told by an error of the contract, and the endpoint by a code.
func TestEndpoints(t *testing.T) {
	malformed, gone, refused := stream.ErrMalformed, stream.ErrClosed, stream.ErrRefused
	for _, k := range []struct {
		name string
		send [][]byte
		err  error // of the exchange; nil: it succeeds
		want want  // what the endpoint is told; nil: nothing
	}{
		{"an answer", f(answer(1, 0), data(1, es, "x")), nil, nil},
		{"an answer without body", f(answer(1, es)), nil, nil},
		{"with trailers", f(answer(1, 0), data(1, 0, "x"), fr(wire.Headers, eh|es, 1, block("a", "b")...)), nil, nil},
		{"1xx before it", f(fr(wire.Headers, eh, 1, block(":status", "103")...), answer(1, es)), nil, nil},
		{"RST_STREAM NO_ERROR after it", f(answer(1, es), wire.AppendReset(nil, 1, wire.NoError)), nil, nil},
		{"padding", f(answer(1, 0), fr(wire.Data, es|wire.Padded, 1, 2, 'x', 0, 0)), nil, nil},
		{"right length", f(answer(1, 0, "content-length", "1"), data(1, es, "x")), nil, nil},
		{"unknown frames", f(fr(0x42, 0, 1, 1, 2), answer(1, es)), nil, nil},
		{"no status", f(fr(wire.Headers, eh|es, 1, block("x", "y")...)), malformed, reset(1, proto)},
		{"two statuses", f(fr(wire.Headers, eh|es, 1, block(":status", "200", ":status", "200")...)), malformed, reset(1, proto)},
		{"status of four digits", f(fr(wire.Headers, eh|es, 1, block(":status", "2000")...)), malformed, reset(1, proto)},
		{"status 99", f(fr(wire.Headers, eh|es, 1, block(":status", "099")...)), malformed, reset(1, proto)},
		{"status 101", f(fr(wire.Headers, eh, 1, block(":status", "101")...)), malformed, reset(1, proto)},
		{"1xx that ends the stream", f(fr(wire.Headers, eh|es, 1, block(":status", "100")...)), malformed, reset(1, proto)},
		{"endless 1xx", f(repeat(fr(wire.Headers, eh, 1, block(":status", "103")...), 40)), malformed, reset(1, calm)},
		{"pseudo field of a request", f(answer(1, es, ":path", "/")), malformed, reset(1, proto)},
		{"status after a field", f(fr(wire.Headers, eh|es, 1, block("x", "y", ":status", "200")...)), malformed, reset(1, proto)},
		{"upper case", f(answer(1, es, "X-Y", "z")), malformed, reset(1, proto)},
		{"transfer-encoding", f(answer(1, es, "transfer-encoding", "chunked")), malformed, reset(1, proto)},
		{"connection", f(answer(1, es, "connection", "close")), malformed, reset(1, proto)},
		{"line feed", f(answer(1, es, "x", "a\nb")), malformed, reset(1, proto)},
		{"body before the head", f(data(1, 0, "x")), malformed, reset(1, proto)},
		{"too short", f(answer(1, 0, "content-length", "3"), data(1, es, "x")), malformed, reset(1, proto)},
		{"too long", f(answer(1, 0, "content-length", "1"), data(1, es, "xyz")), malformed, reset(1, proto)},
		{"ends without what it said", f(answer(1, es, "content-length", "3")), malformed, reset(1, proto)},
		{"long head", f(answer(1, es, "x", strings.Repeat("v", 9000), "y", strings.Repeat("v", 4000))), nil, nil},
		{"many fields", f(fr(wire.Headers, eh|es, 1, block(append([]string{":status", "200"}, many(300)...)...)...)), stream.ErrTooLarge, reset(1, wire.Cancel)},
		{"trailers that do not end", f(answer(1, 0), fr(wire.Headers, eh, 1, block("a", "b")...)), malformed, reset(1, proto)},
		{"data after the end", f(answer(1, 0), data(1, es, "x"), data(1, es, "y")), nil, reset(1, closed)},
		{"RST_STREAM", f(wire.AppendReset(nil, 1, wire.InternalError)), gone, nil},
		{"RST_STREAM in the body", f(answer(1, 0), wire.AppendReset(nil, 1, wire.InternalError)), gone, nil},
		{"REFUSED_STREAM", f(wire.AppendReset(nil, 1, wire.RefusedStream)), refused, nil},
		{"GOAWAY below it", f(wire.AppendGoAway(nil, 0, wire.NoError, "")), refused, nil},
		{"GOAWAY above it", f(wire.AppendGoAway(nil, 1, wire.NoError, ""), answer(1, es)), nil, nil},
		{"push", f(fr(wire.PushPromise, eh, 1, join(u32(2), request("GET", "/"))...)), malformed, goAway(proto)},
		{"answer to nothing", f(answer(3, es)), malformed, goAway(proto)},
		{"stream of its own", f(answer(2, es)), malformed, goAway(proto)},
		{"bad block", f(fr(wire.Headers, eh|es, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)), malformed, goAway(compress)},
		{"frame too large", f(fr(wire.Data, 0, 1, make([]byte, 1<<14+1)...)), malformed, goAway(size)},
		{"more than the window", f(answer(1, 0), flood(1, 80000)), malformed, reset(1, flow)},
		{"no window left", f(setting(wire.InitialWindowSize, 1<<31)), malformed, goAway(flow)},
		{"pings", f(repeat(alive, 20000)), malformed, goAway(calm)},
		{"endless head", f(endless(1)), malformed, goAway(calm)},
	} {
		t.Run(k.name, func(t *testing.T) {
			p, c := endpoint(t)
			up := open(t, c, &wirehttp.Request{Method: []byte("GET")}, true)
			p.await(func(_ *peer, g got) bool { return g.Type == wire.Headers })
			p.send(k.send...)
			if k.want != nil {
				p.await(k.want)
			}
			var r wirehttp.Response
			err := up.Receive(&r)
			for err == nil && r.Status < 200 {
				err = up.Receive(&r)
			}
			if err == nil {
				_, err = readAll(up)
			}
			if k.err == nil && err != nil || !errors.Is(err, k.err) {
				t.Errorf("%v, want %v", err, k.err)
			}
			up.Release()
			if n := c.Streams(); n != 0 {
				t.Errorf("%d streams left", n)
			}
		})
	}
}

// TestEndpointLimit: no more streams than the endpoint allows.
func TestEndpointLimit(t *testing.T) {
	p, c := endpoint(t)
	p.send(setting(wire.MaxConcurrentStreams, 2))
	p.await(isSettingsAck)
	one := open(t, c, &wirehttp.Request{Method: []byte("GET")}, true)
	two := open(t, c, &wirehttp.Request{Method: []byte("GET")}, true)
	if _, err := c.Open(); !errors.Is(err, stream.ErrRefused) || !c.Full() || c.Gone() {
		t.Error(err)
	}
	if !one.Fresh() || two.Fresh() {
		t.Error("the first request is the fresh one")
	}
	one.Release()
	p.await(reset(1, wire.Cancel))
	if c.Full() {
		t.Error("full after a release")
	}
	two.Release()
}

// TestEndpointSlow: a body of a request stops at the endpoint's window, and ends
// with the deadline.
func TestEndpointSlow(t *testing.T) {
	t.Parallel() // it waits
	p, c := endpoint(t)
	up := open(t, c, &wirehttp.Request{Method: []byte("POST"), Length: wirehttp.Unknown}, false)
	up.SetWriteDeadline(time.Now().Add(3 * time.Second))
	if err := up.Write(make([]byte, 1<<20), true); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	p.await(dataSum(1, wire.InitialWindow))
	up.Release()
	p.await(reset(1, wire.Cancel))
}

// TestEarlyAnswer: an endpoint answers without reading the request; the exchange
// has the answer, and writing more fails.
func TestEarlyAnswer(t *testing.T) {
	p, c := endpoint(t)
	up := open(t, c, &wirehttp.Request{Method: []byte("POST"), Length: wirehttp.Unknown}, false)
	p.send(answer(1, 0), data(1, es, "no"), wire.AppendReset(nil, 1, wire.NoError))
	receive(t, up)
	if b, err := readAll(up); string(b) != "no" || err != nil {
		t.Error(string(b), err)
	}
	var err error
	for i := 0; err == nil && i < 100; i++ {
		err = up.Write(make([]byte, 16384), false)
	}
	if !errors.Is(err, stream.ErrClosed) {
		t.Error(err)
	}
	up.Release()
}
