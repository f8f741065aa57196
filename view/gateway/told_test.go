package gateway

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fingerpost/fingerpost/view/gateway/route"
)

// TestClientLeaves: an endpoint that thinks is told that nobody waits any more: when
// the client's connection is new, and when everything is kept; over TLS, too.
func TestClientLeaves(t *testing.T) {
	t.Parallel() // it waits
	if runtime.GOOS != "linux" {
		t.Skip("only a Poller tells it before something is written")
	}
	for _, secure := range []bool{false, true} {
		for kept := range 3 {
			asked, ended := make(chan struct{}), make(chan struct{})
			ep := newEndpoint(t, func(w *wire, _ int) {
				_ = w.SetDeadline(time.Now().Add(patience))
				for {
					h, err := w.tryHead()
					if err != nil {
						return
					}
					if strings.HasPrefix(h, "GET /silent ") {
						close(asked)
						_, _ = w.r.ReadByte()
						close(ended)
						return
					}
					w.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
				}
			})
			_, dial := eitherWay(t, secure, ep)
			c := dial()
			for range kept {
				c.send("GET / HTTP/1.1\r\nHost: shop.example.com\r\n\r\n").want(200)
			}
			c.send("GET /silent HTTP/1.1\r\nHost: shop.example.com\r\n\r\n")
			<-asked
			c.Close()
			select {
			case <-ended:
			case <-time.After(patience):
				t.Fatalf("TLS %t, after %d requests: the endpoint's request goes on", secure, kept)
			}
		}
	}
}

// eitherWay is a rig with a way to connect to it, with TLS or without.
func eitherWay(t *testing.T, secure bool, eps ...*endpoint) (*rig, func() *wire) {
	r := newRig(t, Config{Listeners: []Listener{{Addr: "127.0.0.1:0", TLS: secure}}}, policy(), eps...)
	if secure {
		r.e.SetRoutes(route.Update{Global: &route.Global{Certificate: selfSigned(t, "shop.example.com")}})
	}
	return r, func() *wire {
		if !secure {
			return r.client()
		}
		c, err := tls.Dial("tcp", r.addr, &tls.Config{InsecureSkipVerify: true, ServerName: "shop.example.com", NextProtos: []string{"http/1.1"}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		_ = c.SetDeadline(time.Now().Add(patience))
		return &wire{t, c, bufio.NewReaderSize(c, 64<<10)}
	}
}

// TestMixed: requests of all kinds on one connection, which goes from the Poller to
// goroutines and back; pipelined and in pieces.
func TestMixed(t *testing.T) {
	big := strings.Repeat("0123456789abcdef", 20000) // more than buffers hold
	ep := newEndpoint(t, func(w *wire, _ int) {
		_ = w.SetDeadline(time.Now().Add(patience))
		for {
			req, err := http.ReadRequest(w.r)
			if err != nil {
				return
			}
			body, err := io.ReadAll(req.Body)
			if err != nil {
				return
			}
			out := fmt.Sprintf("%s %s %d", req.Method, req.URL.Path, len(body))
			switch req.URL.Path {
			case "/big":
				out = big
				fallthrough
			case "/counted":
				_, err = fmt.Fprintf(w, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(out), out)
			case "/chunked":
				_, err = fmt.Fprintf(w, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(out), out)
			case "/pieces":
				for _, p := range []string{"HTTP/1.1 200 OK\r\nTransfer-", "Encoding: chunked\r\n\r\n", fmt.Sprintf("%x\r\n", len(out)), out, "\r\n0\r\n", "\r\n"} {
					if _, err = io.WriteString(w.Conn, p); err != nil {
						return
					}
					<-time.After(time.Millisecond)
				}
			case "/interim":
				_, err = fmt.Fprintf(w, "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(out), out)
			case "/close":
				_, _ = fmt.Fprintf(w, "HTTP/1.1 200 OK\r\n\r\n%s", out)
				return
			}
			if err != nil {
				return
			}
		}
	})
	for _, secure := range []bool{false, true} {
		_, dial := eitherWay(t, secure, ep)
		var wg sync.WaitGroup
		for worker := range 4 {
			c := dial()
			wg.Go(func() {
				paths := []string{"/counted", "/chunked", "/big", "/pieces", "/interim", "/close"}
				for i := range 120 {
					at := (i*7 + worker) % len(paths)
					n := []int{0, 3, 5000, 70000}[(i+worker)%4]
					var head string
					if n == 0 {
						head = "GET " + paths[at] + " HTTP/1.1\r\nHost: shop.example.com\r\n\r\n"
					} else {
						head = fmt.Sprintf("POST %s HTTP/1.1\r\nHost: shop.example.com\r\nContent-Length: %d\r\n\r\n", paths[at], n)
					}
					all := head + big[:n]
					twice := n < 4000 && i%3 == 0
					if twice {
						all += all
					}
					go func() { // the answer may have to be read meanwhile
						if i%5 == 0 {
							_, _ = io.WriteString(c.Conn, all[:20])
							<-time.After(time.Millisecond)
							_, _ = io.WriteString(c.Conn, all[20:])
						} else {
							_, _ = io.WriteString(c.Conn, all)
						}
					}()
					for range map[bool]int{false: 1, true: 2}[twice] {
						if err := holds(c, paths[at], n, big); err != nil {
							t.Errorf("TLS %t, request %d to %s with %d bytes: %v", secure, i, paths[at], n, err)
							return
						}
					}
				}
			})
		}
		wg.Wait()
	}
}

func holds(c *wire, path string, n int, big string) error {
	resp, err := http.ReadResponse(c.r, nil)
	if err == nil && resp.StatusCode == 103 {
		resp, err = http.ReadResponse(c.r, nil)
	}
	if err != nil {
		return err
	}
	body, err := io.ReadAll(resp.Body)
	method := "POST"
	if n == 0 {
		method = "GET"
	}
	want := fmt.Sprintf("%s %s %d", method, path, n)
	if path == "/big" {
		want = big
	}
	if err == nil && string(body) != want {
		err = fmt.Errorf("%.80q", body)
	}
	return err
}

// TestSlowBody: who sends a body in drops is told so, be it collected first or not.
func TestSlowBody(t *testing.T) {
	t.Parallel() // it waits
	for _, collect := range []bool{false, true} {
		p := policy()
		p.BufferRequest = collect
		r := newRig(t, Config{Limits: Limits{BodyRate: 1000, BodyGrace: 500 * time.Millisecond}}, p, newEndpoint(t, hello("x")))
		c := r.client().send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")
		stop := make(chan struct{})
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				select {
				case <-stop:
					return
				case <-time.After(20 * time.Millisecond):
				}
				if _, err := io.WriteString(c.Conn, "x"); err != nil {
					return
				}
			}
		}()
		c.want(408)
		close(stop)
		<-done
	}
}

// TestSlowReader: a client that does not read holds up nobody else, and gets all
// in the end.
func TestSlowReader(t *testing.T) {
	body := strings.Repeat("x", 12<<10) // small enough for the Poller's goroutine
	r := newRig(t, Config{}, policy(), newEndpoint(t, hello(body)))
	slow := r.client()
	const n = 2000 // more than the system keeps
	go func() {
		for range n {
			if _, err := io.WriteString(slow.Conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
				return
			}
		}
	}()
	quick := r.client()
	for range 100 {
		quick.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").want(200)
	}
	for range n {
		slow.want(200)
	}
}
