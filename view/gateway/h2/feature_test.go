package h2

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/fingerpost/fingerpost/view/gateway/stream"
	wirehttp "github.com/fingerpost/fingerpost/wire/http"
	wire "github.com/fingerpost/fingerpost/wire/http/h2"
)

// patience is how long anything may take before a test gives up. It is long
// because machines that run tests are busy; nothing waits for it to pass.
const patience = 2 * time.Minute

// pair is a client of ours and a server of ours on loopback.
func pair(t testing.TB, cfg Config, handle func(stream.Downstream)) *Client {
	return dialClient(t, testServer(t, cfg, handle), Config{})
}

func open(t testing.TB, k *Client, r *wirehttp.Request, end bool) stream.Upstream {
	t.Helper()
	up, err := k.Open()
	if err != nil {
		t.Fatal(err)
	}
	limit := time.Now().Add(patience)
	up.SetReadDeadline(limit)
	up.SetWriteDeadline(limit)
	if r.Path == nil {
		r.Path = []byte("/")
	}
	r.Authority = []byte("example.com")
	if err := up.Send(r, end); err != nil {
		t.Fatal(err)
	}
	if err := up.Flush(); err != nil {
		t.Fatal(err)
	}
	return up
}

func receive(t testing.TB, up stream.Upstream) wirehttp.Response {
	t.Helper()
	var r wirehttp.Response
	if err := up.Receive(&r); err != nil {
		t.Fatal(err)
	}
	return r
}

func readAll(up stream.Body) ([]byte, error) {
	var out []byte
	for {
		p, end, err := up.Next()
		out = append(out, p...)
		if err != nil || end {
			return out, err
		}
	}
}

func TestTrailersBothWays(t *testing.T) {
	k := pair(t, Config{}, func(ds stream.Downstream) {
		body, err := readAll(ds)
		if err != nil {
			t.Error(err)
		}
		ds.Respond(&wirehttp.Response{Status: 200, Length: wirehttp.Unknown}, false)
		ds.Write(body, false)
		var f wirehttp.Fields
		f.Add(wirehttp.GrpcStatus, []byte("0"))
		for _, x := range ds.Trailers() {
			f.AddNamed(append([]byte("echo-"), x.Name...), x.Value)
		}
		ds.End(f)
	})
	for range 3 {
		up := open(t, k, &wirehttp.Request{Method: []byte("POST"), Length: wirehttp.Unknown, Trailers: true}, false)
		up.Write([]byte("message"), false)
		var f wirehttp.Fields
		f.AddNamed([]byte("X-Sum"), []byte("42"))
		if err := up.End(f); err != nil {
			t.Fatal(err)
		}
		up.Flush()
		if r := receive(t, up); r.Status != 200 {
			t.Fatal(r.Status)
		}
		b, err := readAll(up)
		tr := up.Trailers()
		if err != nil || string(b) != "message" || string(tr.Get(wirehttp.GrpcStatus)) != "0" || string(tr.Lookup([]byte("echo-x-sum"))) != "42" {
			t.Fatalf("%q %v %v", b, tr, err)
		}
		up.Release()
	}
}

// TestStreaming sends messages to and fro on one stream: nothing waits for the
// other side's end.
func TestStreaming(t *testing.T) {
	k := pair(t, Config{}, echo)
	up := open(t, k, &wirehttp.Request{Method: []byte("POST"), Length: wirehttp.Unknown}, false)
	receive(t, up)
	for i := range 100 {
		msg := strings.Repeat("m", i*10+1)
		up.Write([]byte(msg), false)
		up.Flush()
		var got []byte
		for len(got) < len(msg) {
			p, end, err := up.Next()
			if err != nil || end {
				t.Fatal(end, err)
			}
			got = append(got, p...)
		}
		if string(got) != msg {
			t.Fatalf("%q", got)
		}
	}
	up.Write(nil, true)
	up.Flush()
	if b, err := readAll(up); err != nil || len(b) != 0 {
		t.Fatal(b, err)
	}
	up.Release()
}

func TestInformational(t *testing.T) {
	k := pair(t, Config{}, func(ds stream.Downstream) {
		if !ds.Request().Expect {
			t.Error("no Expect")
		}
		ds.Respond(&wirehttp.Response{Status: 100}, false)
		ds.Flush()
		hints := wirehttp.Response{Status: 103}
		hints.Fields.AddNamed([]byte("link"), []byte("</x.css>"))
		ds.Respond(&hints, false)
		b, _ := readAll(ds)
		ds.Respond(&wirehttp.Response{Status: 201, Length: int64(len(b))}, false)
		ds.Write(b, true)
	})
	up := open(t, k, &wirehttp.Request{Method: []byte("PUT"), Length: 2, Expect: true}, false)
	if r := receive(t, up); r.Status != 100 {
		t.Fatal(r.Status)
	}
	up.Write([]byte("ok"), true)
	up.Flush()
	if r := receive(t, up); r.Status != 103 || string(r.Fields.Lookup([]byte("link"))) != "</x.css>" {
		t.Fatal(r.Status, r.Fields)
	}
	if r := receive(t, up); r.Status != 201 || r.Length != 2 {
		t.Fatal(r.Status, r.Length)
	}
	if b, err := readAll(up); err != nil || string(b) != "ok" {
		t.Fatal(b, err)
	}
	up.Release()
}

// TestBodiless: HEAD, 204 and 304 have no body, whatever is written.
func TestBodiless(t *testing.T) {
	for _, x := range []struct {
		method string
		status int
		length int64
	}{{"HEAD", 200, 7}, {"GET", 204, 0}, {"GET", 304, 7}} {
		k := pair(t, Config{}, func(ds stream.Downstream) {
			ds.Respond(&wirehttp.Response{Status: x.status, Length: 7, Declared: true}, false)
			if err := ds.Write([]byte("content"), true); err != nil {
				t.Error(err)
			}
		})
		up := open(t, k, &wirehttp.Request{Method: []byte(x.method)}, true)
		r := receive(t, up)
		b, err := readAll(up)
		if err != nil || len(b) != 0 || r.Status != x.status || r.Length != x.length {
			t.Errorf("%s %d: %q %d %v", x.method, x.status, b, r.Length, err)
		}
		up.Release()
	}
}

// TestWebSocket is RFC 8441 as the exchange sees it: an upgrade of HTTP/1.
func TestWebSocket(t *testing.T) {
	k := pair(t, Config{}, func(ds stream.Downstream) {
		r := ds.Request()
		if string(r.Upgrade) != "websocket" || string(r.Method) != "GET" || len(r.Fields.Get(wirehttp.SecWebSocketKey)) != 24 {
			t.Errorf("%+v", r)
		}
		ds.Respond(&wirehttp.Response{Status: 101, Upgrade: r.Upgrade}, false)
		tun, err := ds.Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		io.Copy(tun, tun)
		tun.Close()
	})
	up, err := k.Open()
	if err != nil {
		t.Fatal(err)
	}
	r := wirehttp.Request{Method: []byte("GET"), Path: []byte("/ws"), Authority: []byte("x"), Upgrade: []byte("websocket")}
	r.Fields.Add(wirehttp.SecWebSocketKey, []byte("dGhlIHNhbXBsZSBub25jZQ=="))
	if err := up.Send(&r, true); err != nil {
		t.Fatal(err)
	}
	up.Flush()
	resp := receive(t, up)
	if resp.Status != 101 || string(resp.Upgrade) != "websocket" || string(resp.Fields.Get(wirehttp.SecWebSocketAccept)) != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Fatalf("%+v", resp)
	}
	tun, err := up.Hijack()
	if err != nil {
		t.Fatal(err)
	}
	big := bytes.Repeat([]byte("ws"), 1<<20)
	go func() {
		tun.Write(big)
		tun.CloseWrite()
	}()
	b, err := io.ReadAll(tun)
	if err != nil || !bytes.Equal(b, big) {
		t.Fatal(len(b), err)
	}
	tun.SetReadDeadline(time.Now().Add(-1))
	tun.Close()
	tun.Close()
	if n := k.Streams(); n != 0 {
		t.Error(n, "streams")
	}
}

func TestConnect(t *testing.T) {
	k := pair(t, Config{}, func(ds stream.Downstream) {
		if string(ds.Request().Method) != "CONNECT" || string(ds.Request().Authority) != "example.com" {
			t.Error(ds.Request())
		}
		ds.Respond(&wirehttp.Response{Status: 200}, true)
		tun, err := ds.Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		line, _ := bufio.NewReader(tun).ReadString('\n')
		tun.Write([]byte(line))
		tun.Close()
	})
	up := open(t, k, &wirehttp.Request{Method: []byte("CONNECT"), Length: wirehttp.Unknown}, false)
	if r := receive(t, up); r.Status != 200 || r.Declared {
		t.Error(r.Status, r.Length)
	}
	tun, err := up.Hijack()
	if err != nil {
		t.Fatal(err)
	}
	tun.Write([]byte("line\n"))
	if b, err := io.ReadAll(tun); string(b) != "line\n" {
		t.Fatal(b, err)
	}
	tun.Close()
}

// TestNoUpgrade: an endpoint without RFC 8441 gives an error that says so.
func TestNoUpgrade(t *testing.T) {
	k := dialClient(t, netHTTPServer(t, func(http.ResponseWriter, *http.Request) {}), Config{})
	up, err := k.Open()
	if err != nil {
		t.Fatal(err)
	}
	err = up.Send(&wirehttp.Request{Method: []byte("GET"), Path: []byte("/"), Upgrade: []byte("websocket")}, true)
	if err == nil || !strings.Contains(err.Error(), "RFC 8441") {
		t.Error(err)
	}
	up.Release()
}

// TestAbort: the other side sees that a message is incomplete.
func TestAbort(t *testing.T) {
	gone := make(chan error, 1)
	k := pair(t, Config{}, func(ds stream.Downstream) {
		switch string(ds.Request().Path) {
		case "/server":
			ds.Respond(&wirehttp.Response{Status: 200, Length: wirehttp.Unknown}, false)
			ds.Write([]byte("part"), false)
			ds.Flush()
			ds.Abort(errors.New("endpoint is gone"))
		case "/return":
			ds.Respond(&wirehttp.Response{Status: 200, Length: wirehttp.Unknown}, false)
		default:
			_, _, err := ds.Next()
			gone <- err
		}
	})
	for _, path := range []string{"/server", "/return"} {
		up := open(t, k, &wirehttp.Request{Method: []byte("GET"), Path: []byte(path)}, true)
		receive(t, up)
		if _, err := readAll(up); !errors.Is(err, stream.ErrClosed) {
			t.Error(path, err)
		}
		up.Release()
	}
	up := open(t, k, &wirehttp.Request{Method: []byte("POST"), Length: 10}, false)
	up.Abort(nil)
	up.Release()
	if err := <-gone; !errors.Is(err, stream.ErrClosed) {
		t.Error(err)
	}
	// And the connection serves on.
	up = open(t, k, &wirehttp.Request{Method: []byte("GET"), Path: []byte("/server")}, true)
	if r := receive(t, up); r.Status != 200 {
		t.Error(r.Status)
	}
	up.Release()
}

func TestDeadlines(t *testing.T) {
	t.Parallel() // it waits
	k := pair(t, Config{}, func(ds stream.Downstream) {
		ds.SetReadDeadline(time.Now().Add(time.Millisecond))
		if _, _, err := ds.Next(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
		ds.Respond(&wirehttp.Response{Status: 200, Length: wirehttp.Unknown}, false)
		ds.SetWriteDeadline(time.Now().Add(3 * time.Second)) // after the head and a window of bytes
		var err error
		for err == nil {
			err = ds.Write(make([]byte, 64<<10), false)
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
	})
	up := open(t, k, &wirehttp.Request{Method: []byte("POST"), Length: 10}, false)
	receive(t, up)
	<-waitFor(func() bool { return k.c.find(up.(*strm).id) == nil }, &k.c.mu)
	up.Release()
}

// TestDrain: a connection that is shut down serves what is under way, and what
// was sent before the client knew.
func TestDrain(t *testing.T) {
	a, b := connPair(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, b, nil, Config{}, suiteHandler) }()
	p := &peer{t: t, nc: a}
	p.send([]byte(wire.Preface), wire.AppendSettings(nil), wire.AppendSettingsAck(nil))
	p.await(isSettingsAck)
	p.send(post(1), alive)
	p.await(lives)
	cancel()
	p.await(lastStream(wire.MaxWindow))
	// The client has not answered the PING that follows: it may not know yet.
	p.send(get(3))
	p.await(status(3, 200))
	p.send(wire.AppendPing(nil, true, drainPing))
	p.await(lastStream(3))
	p.send(get(5))
	p.send(data(1, es, "x"))
	p.await(status(1, 200))
	p.await(dataEnd(1))
	p.await(isClosed)
	a.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestClientGoAway: what the endpoint has not looked at may be sent again.
func TestClientGoAway(t *testing.T) {
	p, k := endpoint(t)
	one := open(t, k, &wirehttp.Request{Method: []byte("GET")}, true)
	two := open(t, k, &wirehttp.Request{Method: []byte("POST"), Length: 5}, false)
	p.await(func(_ *peer, g got) bool { return g.Type == wire.Headers && g.Stream == 3 })
	p.send(wire.AppendGoAway(nil, 1, wire.NoError, ""))
	var r wirehttp.Response
	if err := two.Receive(&r); !errors.Is(err, stream.ErrRefused) {
		t.Error(err)
	}
	two.Release()
	if _, err := k.Open(); !errors.Is(err, stream.ErrRefused) || !k.Gone() {
		t.Error(err)
	}
	p.send(fr(wire.Headers, es|eh, 1, block(":status", "200")...))
	if r := receive(t, one); r.Status != 200 {
		t.Error(r.Status)
	}
	one.Release()
	p.await(isClosed)
}

// endpoint is a client of ours to an endpoint that speaks by frames.
func endpoint(t testing.TB) (*peer, *Client) {
	a, b := connPair(t)
	k, err := NewClient(b, Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		k.Close()
		a.Close()
	})
	p := &peer{t: t, nc: a}
	if _, err := io.ReadFull(a, make([]byte, len(wire.Preface))); err != nil {
		t.Fatal(err)
	}
	p.send(wire.AppendSettings(nil), wire.AppendSettingsAck(nil))
	p.await(isSettingsAck)
	return p, k
}

// waitFor polls, without a clock: it lets the others run.
func waitFor(f func() bool, mu interface {
	Lock()
	Unlock()
}) chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			mu.Lock()
			ok := f()
			mu.Unlock()
			if ok {
				return
			}
			runtime.Gosched()
		}
	}()
	return done
}
