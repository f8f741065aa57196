package h2

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fingerpost/fingerpost/view/gateway/stream"
	wirehttp "github.com/fingerpost/fingerpost/wire/http"
)

// testServer serves h2c on loopback until the test ends.
func testServer(t testing.TB, cfg Config, handle func(stream.Downstream)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serveOn(t, ln, cfg, handle)
	return ln.Addr().String()
}

func serveOn(t testing.TB, ln net.Listener, cfg Config, handle func(stream.Downstream)) {
	if cfg.Workers == nil {
		cfg.Workers = NewWorkers()
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	conns := map[net.Conn]bool{}
	wg.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns[nc] = true
			mu.Unlock()
			wg.Go(func() {
				Serve(context.Background(), nc, &stream.Peer{}, cfg, handle)
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		mu.Lock()
		for c := range conns {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
}

// echo answers with what it was sent, and says how it was asked.
func echo(ds stream.Downstream) {
	r := ds.Request()
	var resp wirehttp.Response
	resp.Status = 200
	resp.Length = wirehttp.Unknown
	resp.Fields.AddNamed([]byte("x-method"), r.Method)
	resp.Fields.AddNamed([]byte("x-path"), r.Path)
	resp.Fields.AddNamed([]byte("x-authority"), r.Authority)
	resp.Fields.AddNamed([]byte("x-cookie"), r.Fields.Get(wirehttp.Cookie))
	resp.Fields.Add(wirehttp.ContentType, []byte("text/plain"))
	if string(r.Path) == "/hello" {
		resp.Length = 5
		ds.Respond(&resp, false)
		ds.Write([]byte("hello"), true)
		ds.Flush()
		return
	}
	if err := ds.Respond(&resp, r.Length == 0); err != nil || r.Length == 0 {
		return
	}
	ds.Flush()
	for {
		p, end, err := ds.Next()
		if err != nil {
			ds.Abort(err)
			return
		}
		if end && len(ds.Trailers()) > 0 {
			ds.Write(p, false)
			ds.End(ds.Trailers())
			return
		}
		if err := ds.Write(p, end); err != nil {
			ds.Abort(err)
			return
		}
		if end {
			return
		}
		if !ds.Ready() {
			ds.Flush()
		}
	}
}

// h2cClient is net/http speaking HTTP/2 without TLS.
func h2cClient(t testing.TB) *http.Client {
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	tr := &http.Transport{Protocols: p}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func TestNetHTTPClient(t *testing.T) {
	addr := testServer(t, Config{}, echo)
	c := h2cClient(t)
	for i := range 3 {
		resp, err := c.Get("http://" + addr + "/hello")
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		if err != nil || string(b) != "hello" || resp.Header.Get("x-path") != "/hello" || resp.ProtoMajor != 2 {
			t.Fatalf("%d: %q %v %v", i, b, resp, err)
		}
	}
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<18) // 4 MiB
	resp, err := c.Post("http://"+addr+"/echo?x=1", "text/plain", bytes.NewReader(big))
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil || !bytes.Equal(b, big) {
		t.Fatalf("echo: %d bytes, %v", len(b), err)
	}
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			body := strings.Repeat(fmt.Sprint(i), 1000*(i%7))
			resp, err := c.Post("http://"+addr+"/echo", "text/plain", strings.NewReader(body))
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			if b, err := io.ReadAll(resp.Body); err != nil || string(b) != body {
				t.Errorf("%d: %d bytes, want %d: %v", i, len(b), len(body), err)
			}
		})
	}
	wg.Wait()
}

// netHTTPServer is net/http as the endpoint.
func netHTTPServer(t testing.TB, h http.HandlerFunc) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	s := &http.Server{Handler: h, Protocols: p}
	go s.Serve(ln)
	t.Cleanup(func() { s.Close() })
	return ln.Addr().String()
}

func dialClient(t testing.TB, addr string, cfg Config) *Client {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	k, err := NewClient(nc, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	return k
}

func roundTrip(k *Client, method, path string, body []byte) (int, []byte, error) {
	up, err := k.Open()
	if err != nil {
		return 0, nil, err
	}
	defer up.Release()
	up.SetReadDeadline(time.Now().Add(patience))
	up.SetWriteDeadline(time.Now().Add(patience))
	r := wirehttp.Request{Method: []byte(method), Path: []byte(path), Authority: []byte("example.com"), Length: int64(len(body))}
	r.Fields.AddNamed([]byte("X-Test"), []byte("yes"))
	if err := up.Send(&r, len(body) == 0); err != nil {
		return 0, nil, err
	}
	done := make(chan error, 1)
	go func() {
		var err error
		if len(body) > 0 {
			err = up.Write(body, true)
		}
		up.Flush()
		done <- err
	}()
	var resp wirehttp.Response
	for {
		if err := up.Receive(&resp); err != nil {
			return 0, nil, err
		}
		if resp.Status >= 200 {
			break
		}
	}
	var out []byte
	for {
		p, end, err := up.Next()
		out = append(out, p...)
		if err != nil {
			return resp.Status, out, err
		}
		if end {
			return resp.Status, out, <-done
		}
	}
}

func TestNetHTTPServer(t *testing.T) {
	addr := netHTTPServer(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Path", r.URL.Path)
		io.Copy(w, r.Body)
	})
	k := dialClient(t, addr, Config{})
	status, b, err := roundTrip(k, "GET", "/", nil)
	if err != nil || status != 200 || len(b) != 0 {
		t.Fatal(status, b, err)
	}
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
	status, b, err = roundTrip(k, "POST", "/x", big)
	if err != nil || status != 200 || !bytes.Equal(b, big) {
		t.Fatal(status, len(b), err)
	}
	var wg sync.WaitGroup
	for i := range 90 {
		wg.Go(func() {
			body := bytes.Repeat([]byte(fmt.Sprint(i)), 1000*(i%7))
			status, b, err := roundTrip(k, "PUT", "/x", body)
			if err != nil || status != 200 || !bytes.Equal(b, body) {
				t.Error(i, status, len(b), err)
			}
		})
	}
	wg.Wait()
	if n := k.Streams(); n != 0 {
		t.Errorf("%d streams left", n)
	}
}

func TestOwnClientOwnServer(t *testing.T) {
	addr := testServer(t, Config{}, echo)
	k := dialClient(t, addr, Config{})
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<19)
	status, b, err := roundTrip(k, "POST", "/x", big)
	if err != nil || status != 200 || !bytes.Equal(b, big) {
		t.Fatal(status, len(b), err)
	}
}
