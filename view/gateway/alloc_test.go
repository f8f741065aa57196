package gateway

import (
	"bytes"
	"net"
	"testing"
)

// fixed answers each request that comes in one piece with the same bytes,
// without allocating.
func fixed(response []byte) func(w *wire, n int) {
	return func(w *wire, _ int) {
		buf := make([]byte, 4096)
		for {
			n, err := w.Conn.Read(buf)
			if err != nil || !bytes.HasSuffix(buf[:n], []byte("\r\n\r\n")) {
				return
			}
			if _, err := w.Conn.Write(response); err != nil {
				return
			}
		}
	}
}

var (
	kib     = append([]byte("HTTP/1.1 200 OK\r\nServer: x\r\nDate: Sat, 21 Nov 2026 08:00:00 GMT\r\nContent-Type: text/plain\r\nContent-Length: 1024\r\n\r\n"), bytes.Repeat([]byte("x"), 1024)...)
	browser = []byte("GET /a/b/c?d=e HTTP/1.1\r\nHost: shop.example.com\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nAccept: text/html,*/*;q=0.8\r\nAccept-Language: en\r\nAccept-Encoding: gzip\r\nCookie: session=0123456789abcdef\r\n\r\n")
)

// exchangeOnce is one request and its response on a kept connection.
func exchangeOnce(tb testing.TB, c net.Conn, buf []byte) {
	if _, err := c.Write(browser); err != nil {
		tb.Fatal(err)
	}
	for n := 0; n < len(kib); {
		k, err := c.Read(buf[n:])
		if err != nil {
			tb.Fatal(err)
		}
		if n += k; bytes.HasSuffix(buf[:n], []byte("xxxx")) {
			break
		}
	}
}

// TestNoAllocations: a request on kept connections costs no memory.
func TestNoAllocations(t *testing.T) {
	if raced {
		t.Skip("the race detector needs memory of its own")
	}
	r := newRig(t, Config{}, policy(), newEndpoint(t, fixed(kib)))
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	buf := make([]byte, 8192)
	for range 100 {
		exchangeOnce(t, c, buf)
	}
	// The runtime allocates now and then: timers, the text of a new second.
	if n := testing.AllocsPerRun(2000, func() { exchangeOnce(t, c, buf) }); n > 0 {
		t.Errorf("%v allocations for a request", n)
	}
}

func BenchmarkExchange(b *testing.B) {
	r := newRig(b, Config{}, policy(), newEndpoint(b, fixed(kib)))
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	buf := make([]byte, 8192)
	b.ReportAllocs()
	for b.Loop() {
		exchangeOnce(b, c, buf)
	}
}
