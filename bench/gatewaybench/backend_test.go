//go:build linux

package main

import (
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/gorilla/websocket"
)

// startBackendFor runs a backend in this process until the test ends.
func startBackendFor(t *testing.T) string {
	t.Helper()
	b, err := newBackend("127.0.0.1:0", 200)
	if err != nil {
		t.Fatal(err)
	}
	sa, err := syscall.Getsockname(b.listen)
	if err != nil {
		t.Fatal(err)
	}
	// Shutting the listener down wakes the loop, whose next accept fails for good.
	ended := make(chan struct{})
	go func() {
		_ = b.run()
		close(ended)
	}()
	t.Cleanup(func() {
		_ = syscall.Shutdown(b.listen, syscall.SHUT_RDWR)
		<-ended
	})
	return (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: sa.(*syscall.SockaddrInet4).Port}).String()
}

func TestBackend(t *testing.T) {
	addr := startBackendFor(t)
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	c := &http.Client{Transport: tr}
	for _, x := range []struct {
		method, path string
		body         io.Reader
		want         int
	}{
		{"GET", "/", nil, 1024},
		{"GET", "/big/3", nil, 3 << 20},
		{"POST", "/", strings.NewReader(strings.Repeat("x", 100<<10)), 1024},
		{"POST", "/", io.MultiReader(strings.NewReader(strings.Repeat("x", 100<<10))), 1024}, // chunked
		{"GET", "/", nil, 1024},
	} {
		req, err := http.NewRequestWithContext(t.Context(), x.method, "http://"+addr+x.path, x.body)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != 200 || n != int64(x.want) {
			t.Errorf("%s %s: status %d, %d bytes, %v, want %d", x.method, x.path, resp.StatusCode, n, err, x.want)
		}
	}
	ws, resp, err := websocket.DefaultDialer.DialContext(t.Context(), "ws://"+addr+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	defer ws.Close()
	for _, text := range []string{"a", strings.Repeat("b", 125), strings.Repeat("c", 126), strings.Repeat("d", 60000)} {
		if err := ws.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if _, got, err := ws.ReadMessage(); err != nil || string(got) != text {
			t.Fatalf("%d bytes came back as %d, %v", len(text), len(got), err)
		}
	}
}
