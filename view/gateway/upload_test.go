package gateway

import (
	"bytes"
	"fmt"
	"io"
	"sync"
	"testing"

	"github.com/fingerpost/fingerpost/view/gateway/route"
)

// echo answers with the body of the request.
func echo(w *wire, _ int) {
	for {
		h, err := w.tryHead()
		if err != nil {
			return
		}
		body := make([]byte, lengthOf(h))
		if _, err := io.ReadFull(w.r, body); err != nil {
			return
		}
		if _, err := fmt.Fprintf(w.Conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body); err != nil {
			return
		}
	}
}

// TestUploads: bodies arrive as they were sent, of any size around those of the
// buffers, in one piece or in many, and what follows them is the next request.
func TestUploads(t *testing.T) {
	r := newRig(t, Config{}, policy(), newEndpoint(t, echo))
	w := r.client()
	const after = "GET /after HTTP/1.1\r\nHost: a\r\n\r\n"
	for _, size := range []int{1, 100, 2047, 4000, 4096, 5000, 16 << 10, 65000, 65535, 65536, 65537, 70000, 200000, 1 << 20} {
		body := make([]byte, size)
		for i := range body {
			body[i] = byte(i * 7 >> 3)
		}
		head := fmt.Sprintf("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", size)
		whole := append([]byte(head), body...)
		whole = append(whole, after...)
		for _, cuts := range [][]int{nil, {len(head)}, {len(head), len(head) + (size+1)/2}, {len(head) + size - 1}, {len(head) + size}} {
			var sent sync.WaitGroup
			sent.Go(func() {
				from := 0
				for _, to := range append(cuts[:len(cuts):len(cuts)], len(whole)) {
					_, _ = w.Conn.Write(whole[from:to])
					from = to
				}
			})
			h, err := w.tryHead()
			if err != nil || lengthOf(h) != size {
				t.Fatalf("%d bytes cut at %v: %q %v", size, cuts, h, err)
			}
			got := make([]byte, size)
			if _, err := io.ReadFull(w.r, got); err != nil || !bytes.Equal(got, body) {
				t.Fatalf("%d bytes cut at %v: not the same, %v", size, cuts, err)
			}
			if h, err = w.tryHead(); err != nil || lengthOf(h) != 0 {
				t.Fatalf("after %d bytes cut at %v: %q %v", size, cuts, h, err)
			}
			sent.Wait()
		}
	}
}

// TestUploadAgain: a body that came whole is sent again as it was when a kept
// connection turns out to be closed.
func TestUploadAgain(t *testing.T) {
	ep := newEndpoint(t, func(w *wire, n int) {
		if n > 1 {
			echo(w, n)
			return
		}
		_, _ = w.tryHead()
		_, _ = fmt.Fprint(w.Conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		_, _ = w.tryHead() // the next one is not answered
	})
	r := newRig(t, Config{}, policy(), ep)
	w := r.client().send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	w.want(200)
	body := bytes.Repeat([]byte("0123456789abcdef"), 2000)
	w.send(fmt.Sprintf("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
	h, err := w.tryHead()
	got := make([]byte, len(body))
	if err == nil {
		_, err = io.ReadFull(w.r, got)
	}
	if err != nil || !bytes.Equal(got, body) {
		t.Errorf("%q %v", h, err)
	}
}

// TestFirstRequests: a rule is made ready by whoever comes first, also if many do
// at once.
func TestFirstRequests(t *testing.T) {
	r := newRig(t, Config{}, policy(), newEndpoint(t, hello("x")))
	for range 20 {
		r.e.SetRoutes(everything(policy()))
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() { r.client().send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").want(200) })
		}
		all.Wait()
	}
	if s := r.e.Stats(); s.Clusters != 1 || s.Hosts != 1 {
		t.Errorf("%+v", s)
	}
	// What nobody asks for any more goes.
	r.e.SetRoutes(route.Update{Replace: true})
	r.e.prune()
	if s := r.e.Stats(); s.Clusters != 0 || s.Hosts != 0 {
		t.Errorf("%+v", s)
	}
}
