package gateway

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/fingerpost/fingerpost/view/gateway/route"
)

func TestSimple(t *testing.T) {
	r := newRig(t, Config{}, policy(), newEndpoint(t, func(w *wire, _ int) {
		for {
			h, err := w.tryHead()
			if err != nil {
				return
			}
			fmt.Fprintf(w.Conn, "HTTP/1.1 200 OK\r\nServer: theirs\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nContent-Length: %d\r\n\r\n%s", len(h), h)
		}
	}))
	c := r.client()
	for range 3 {
		head, body := c.send("GET /a?b=c HTTP/1.1\r\nHost: shop.example.com\r\nConnection: X-Mine\r\nX-Mine: 1\r\nUser-Agent: t\r\n\r\n").want(200)
		if !strings.Contains(head, "Server: theirs") || strings.Contains(head, "X-Hop") {
			t.Errorf("response head:\n%s", head)
		}
		for _, s := range []string{"GET /a?b=c HTTP/1.1\r\nHost: shop.example.com\r\n", "User-Agent: t", "X-Forwarded-For: 127.0.0.1", "X-Real-IP: 127.0.0.1", "X-Forwarded-Proto: http", "X-Forwarded-Host: shop.example.com", "X-Request-ID: "} {
			if !strings.Contains(body, s) {
				t.Errorf("no %q in the request to the endpoint:\n%s", s, body)
			}
		}
		if strings.Contains(body, "X-Mine") || strings.Contains(body, "Connection") {
			t.Errorf("hop-by-hop fields were passed:\n%s", body)
		}
	}
	if n := r.e.Stats().Connections; n != 1 {
		t.Errorf("%d connections", n)
	}
}

// TestStatuses: what clients are told when there is nobody to ask.
func TestStatuses(t *testing.T) {
	dead := deadEndpoint(t)
	mute := newEndpoint(t, func(w *wire, _ int) { _, _ = io.Copy(io.Discard, w.r) })
	garbage := newEndpoint(t, func(w *wire, _ int) { w.tryHead(); _, _ = io.WriteString(w.Conn, "SSH-2.0-x\r\n\r\n") })
	twice := newEndpoint(t, func(w *wire, _ int) {
		w.tryHead()
		_, _ = io.WriteString(w.Conn, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n")
	})
	quick := policy()
	quick.ReadTimeout = 50 * time.Millisecond
	for _, x := range []struct {
		name      string
		endpoints []*endpoint
		policy    *route.Policy
		request   string
		want      int
		has       string
	}{
		{"no endpoints", nil, policy(), "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 503, "Retry-After: 1"},
		{"refused", []*endpoint{dead}, policy(), "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 502, "Server: fingerpost"},
		{"mute", []*endpoint{mute}, quick, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 504, "Date: "},
		{"garbage", []*endpoint{garbage}, policy(), "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 502, ""},
		{"two framings", []*endpoint{twice}, policy(), "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 502, ""},
		{"bad request", nil, policy(), "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "Connection: close"},
		{"smuggling", nil, policy(), "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "Connection: close"},
		{"huge head", nil, policy(), "GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 40<<10) + "\r\n\r\n", 431, "Connection: close"},
		{"huge target", nil, policy(), "GET /" + strings.Repeat("x", 20<<10) + " HTTP/1.1\r\nHost: a\r\n\r\n", 414, "Connection: close"},
		{"version", nil, policy(), "GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505, ""},
		{"old client", nil, policy(), "GET / HTTP/1.0\r\n\r\n", 503, "Connection: close"},
	} {
		t.Run(x.name, func(t *testing.T) {
			r := newRig(t, Config{}, x.policy, x.endpoints...)
			head, _ := r.client().send(x.request).want(x.want)
			if !strings.Contains(head, x.has) {
				t.Errorf("no %q in:\n%s", x.has, head)
			}
		})
	}
}

func TestUnmatched(t *testing.T) {
	r := newRig(t, Config{}, nil)
	c := r.client()
	head, _ := c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").want(503)
	if ok, why := r.e.Ready(); ok || !strings.Contains(why, "routes") || !strings.Contains(head, "Retry-After") {
		t.Errorf("ready %v %q, head\n%s", ok, why, head)
	}
	r.e.SetRoutes(route.Update{Replace: true})
	if ok, why := r.e.Ready(); !ok {
		t.Errorf("not ready: %s", why)
	}
	_, body := c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").want(404)
	if !strings.Contains(body, "404 Not Found") {
		t.Errorf("page: %q", body)
	}
	if head := c.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").head(); !strings.Contains(head, "HTTP/1.1 404") {
		t.Errorf("HEAD: %q", head)
	}
	if _, body := c.send("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").want(200); body != "ok\n" {
		t.Errorf("healthz: %q", body)
	}
}

func TestPipelined(t *testing.T) {
	r := newRig(t, Config{}, policy(), newEndpoint(t, func(w *wire, _ int) {
		for {
			h, err := w.tryHead()
			if err != nil {
				return
			}
			if n := lengthOf(h); n > 0 {
				h += w.body(n)
			}
			p := strings.Fields(h)[1]
			fmt.Fprintf(w.Conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(p), p)
		}
	}))
	c := r.client()
	c.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET /3 HTTP/1.1\r\nHost: a\r\n\r\nPOST /4 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET /5 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	for i := 1; i <= 5; i++ {
		if _, body := c.want(200); body != fmt.Sprintf("/%d", i) {
			t.Errorf("answer %d is %q", i, body)
		}
	}
	if err := c.closed(); err != nil {
		t.Errorf("the end: %v", err)
	}
}

// TestCut: a response that breaks off is never taken for a complete one.
func TestCut(t *testing.T) {
	for name, response := range map[string]string{
		"counted": "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
		"chunked": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
		"broken":  "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n",
	} {
		for _, version := range []string{"1.1", "1.0"} {
			t.Run(name+version, func(t *testing.T) {
				r := newRig(t, Config{}, policy(), newEndpoint(t, func(w *wire, _ int) {
					w.head()
					w.send(response)
				}))
				c := r.client().send("GET / HTTP/" + version + "\r\nHost: a\r\n\r\n")
				b, err := io.ReadAll(c.r)
				complete := err == nil && (strings.HasSuffix(string(b), "0\r\n\r\n") || version == "1.0" && name != "counted")
				if complete {
					t.Errorf("the client sees a complete response: %q", b)
				}
			})
		}
	}
}

// TestUntilClose: an endpoint may end a body by closing.
func TestUntilClose(t *testing.T) {
	r := newRig(t, Config{}, policy(), newEndpoint(t, func(w *wire, _ int) {
		w.head()
		w.send("HTTP/1.0 200 OK\r\n\r\nall of it")
	}))
	c := r.client().send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if h := c.head(); !strings.Contains(h, "Transfer-Encoding: chunked") {
		t.Fatalf("head: %s", h)
	}
	if got := c.body(len("9\r\nall of it\r\n0\r\n\r\n")); got != "9\r\nall of it\r\n0\r\n\r\n" {
		t.Errorf("body: %q", got)
	}
	old := r.client().send("GET / HTTP/1.0\r\nHost: a\r\n\r\n")
	b, err := io.ReadAll(old.r)
	if err != nil || !strings.HasSuffix(string(b), "\r\n\r\nall of it") || !strings.Contains(string(b), "Connection: close") {
		t.Errorf("HTTP/1.0: %q %v", b, err)
	}
}

func TestNoBody(t *testing.T) {
	r := newRig(t, Config{}, policy(), newEndpoint(t, func(w *wire, _ int) {
		for {
			h, err := w.tryHead()
			switch {
			case err != nil:
				return
			case strings.HasPrefix(h, "HEAD"):
				w.send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
			case strings.Contains(h, "/204"):
				w.send("HTTP/1.1 204 No Content\r\n\r\n")
			case strings.Contains(h, "/304"):
				w.send("HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\nETag: \"x\"\r\n\r\n")
			default:
				w.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			}
		}
	}))
	c := r.client()
	for _, x := range []struct{ request, has, not string }{
		{"HEAD / HTTP/1.1", "Content-Length: 1000", "Transfer"},
		{"GET /204 HTTP/1.1", "204", "Content-Length"},
		{"GET /304 HTTP/1.1", "Content-Length: 77", "Transfer"},
		{"GET / HTTP/1.1", "Content-Length: 0", "Transfer"},
	} {
		if h := c.send(x.request + "\r\nHost: a\r\n\r\n").head(); !strings.Contains(h, x.has) || strings.Contains(h, x.not) {
			t.Errorf("%s: %s", x.request, h)
		}
	}
}

// TestTrailers: both ways, and interim responses.
func TestTrailers(t *testing.T) {
	r := newRig(t, Config{}, policy(), newEndpoint(t, func(w *wire, _ int) {
		if h := w.head(); !strings.Contains(h, "\r\nTrailer: X-Sum\r\n") {
			t.Errorf("the endpoint is not told of trailers: %q", h)
		}
		got := w.body(len("5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"))
		if got != "5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n" {
			t.Errorf("the endpoint got %q", got)
		}
		w.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nTrailer: X-Back\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Back: 2\r\n\r\n")
	}))
	c := r.client().send("POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n")
	if h := c.head(); !strings.HasPrefix(h, "HTTP/1.1 103") || !strings.Contains(h, "Link: </a>") {
		t.Errorf("interim: %s", h)
	}
	if h := c.head(); !strings.HasPrefix(h, "HTTP/1.1 200") || !strings.Contains(h, "\r\nTrailer: X-Back\r\n") {
		t.Errorf("final: %s", h)
	}
	want := "2\r\nok\r\n0\r\nX-Back: 2\r\n\r\n"
	if got := c.body(len(want)); got != want {
		t.Errorf("body: %q", got)
	}
}

func TestExpect(t *testing.T) {
	limited := policy()
	limited.BodyLimit = 10
	r := newRig(t, Config{}, limited, newEndpoint(t, hello("x")))
	c := r.client().send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
	if h := c.head(); !strings.HasPrefix(h, "HTTP/1.1 100") {
		t.Fatalf("got %s", h)
	}
	c.send("hello").want(200)
	// Too large: told before the body is sent.
	c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\nExpect: 100-continue\r\n\r\n").want(413)
	if err := c.closed(); err != nil {
		t.Errorf("the end: %v", err)
	}
	// The same for a body whose length is told by its end.
	c = r.client().send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n14\r\n01234567890123456789\r\n0\r\n\r\n")
	if h, _ := c.want(413); !strings.Contains(h, "Connection: close") {
		t.Errorf("head: %s", h)
	}
}

// TestEarly: an endpoint answers while the client still sends.
func TestEarly(t *testing.T) {
	r := newRig(t, Config{}, policy(), newEndpoint(t, func(w *wire, _ int) {
		w.head()
		w.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
		_, _ = io.CopyN(io.Discard, w.r, 10)
	}))
	c := r.client().send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n0123456789")
	if _, body := c.want(403); body != "no" {
		t.Errorf("body %q", body)
	}
	if err := c.closed(); err != nil && errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the end: %v", err)
	}
}

// TestFlush: what an endpoint sends in pieces arrives in pieces.
func TestFlush(t *testing.T) {
	next := make(chan struct{})
	r := newRig(t, Config{}, policy(), newEndpoint(t, func(w *wire, _ int) {
		w.head()
		w.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
		for range 3 {
			w.send("data: x\n\n")
			<-next
		}
	}))
	c := r.client().send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	c.head()
	for range 3 {
		if got := c.body(len("9\r\ndata: x\n\n\r\n")); got != "9\r\ndata: x\n\n\r\n" {
			t.Fatalf("got %q", got)
		}
		next <- struct{}{}
	}
	if got := c.body(5); got != "0\r\n\r\n" {
		t.Errorf("end: %q", got)
	}
}
