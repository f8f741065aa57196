package gateway

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fingerpost/fingerpost/view/gateway/cluster"
	"github.com/fingerpost/fingerpost/view/gateway/route"
)

// TestDeadEndpoint: connections that are refused are tried elsewhere, whatever
// the method.
func TestDeadEndpoint(t *testing.T) {
	dead := deadEndpoint(t)
	r := newRig(t, Config{}, policy(), dead, newEndpoint(t, hello("alive")))
	c := r.client()
	for i := range 50 {
		if _, body := c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc").want(200); body != "alive" {
			t.Fatalf("request %d: %q", i, body)
		}
	}
}

// TestKeptClosed: an endpoint closes a connection that the gateway kept. No GET
// may fail by that, whenever it happens.
func TestKeptClosed(t *testing.T) {
	// Closes each connection as soon as the second request comes.
	r := newRig(t, Config{}, policy(), newEndpoint(t, func(w *wire, _ int) {
		h, err := w.tryHead()
		if err != nil {
			return
		}
		w.body(lengthOf(h))
		w.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		_, _ = w.r.ReadByte()
	}))
	c := r.client()
	for range 20 {
		c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").want(200)
	}
}

// TestKeptClosedBefore: the endpoint closed the connection before the request
// came, so that it certainly has not read it: no request may fail by that, whatever
// its method.
func TestKeptClosedBefore(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells what a peer has not acknowledged")
	}
	for _, request := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
	} {
		closed := make(chan struct{}, 1)
		var asked atomic.Int32
		r := newRig(t, Config{Cluster: cluster.Config{CheckAfter: time.Hour}}, policy(), newEndpoint(t, func(w *wire, _ int) {
			req, err := http.ReadRequest(w.r)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, req.Body)
			asked.Add(1)
			w.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			w.Conn.Close()
			closed <- struct{}{}
		}))
		c := r.client()
		for range 20 {
			c.send(request).want(200)
			<-closed
		}
		if n := asked.Load(); n != 20 {
			t.Errorf("%q was asked %d times", request, n)
		}
	}
}

// TestLost: connections that were opened for the request break before an answer.
func TestLost(t *testing.T) {
	for _, x := range []struct {
		method string
		retry  route.Retry
		want   int
	}{
		{"GET", route.Retry{Reset: true}, 200},
		{"PUT", route.Retry{Reset: true}, 200},
		{"GET", route.Retry{}, 502},
		{"GET", route.Retry{Reset: true, Off: true}, 502},
		{"POST", route.Retry{Reset: true}, 502},
		{"POST", route.Retry{Reset: true, NonIdempotent: true}, 200},
	} {
		t.Run(fmt.Sprint(x), func(t *testing.T) {
			var requests atomic.Int32
			// Of two endpoints the one that is asked first breaks the connection.
			handle := func(w *wire, _ int) {
				h, err := w.tryHead()
				if err != nil {
					return
				}
				w.body(lengthOf(h))
				if requests.Add(1) > 1 {
					w.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
				}
			}
			p := policy()
			p.Retry = x.retry
			r := newRig(t, Config{}, p, newEndpoint(t, handle), newEndpoint(t, handle))
			r.client().send(x.method + " / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc").want(x.want)
			if n := requests.Load(); x.want == 502 && n != 1 {
				t.Errorf("sent %d times", n)
			}
		})
	}
}

func TestRetryStatus(t *testing.T) {
	var asked atomic.Int32
	handle := func(w *wire, _ int) {
		for {
			if _, err := w.tryHead(); err != nil {
				return
			}
			if asked.Add(1) == 1 {
				w.send("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy")
			} else {
				w.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			}
		}
	}
	p := policy()
	p.Retry.On = []int{503}
	r := newRig(t, Config{}, p, newEndpoint(t, handle), newEndpoint(t, handle))
	r.client().send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").want(200)
	// With one endpoint there is nobody else to ask.
	asked.Store(0)
	r = newRig(t, Config{}, p, newEndpoint(t, handle))
	r.client().send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").want(503)
}

// TestReplayStream: a body that is still coming is sent again from its begin.
func TestReplayStream(t *testing.T) {
	broken := make(chan struct{})
	var asked atomic.Int32
	handle := func(w *wire, _ int) {
		if _, err := w.tryHead(); err != nil {
			return
		}
		got := w.body(5)
		if asked.Add(1) == 1 {
			_ = w.Conn.(*net.TCPConn).SetLinger(0)
			w.Conn.Close()
			close(broken)
			return
		}
		got += w.body(5)
		w.send(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(got), got))
	}
	r := newRig(t, Config{}, policy(), newEndpoint(t, handle), newEndpoint(t, handle))
	c := r.client().send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello")
	<-broken
	if _, body := c.send("world").want(200); body != "helloworld" {
		t.Errorf("the endpoint got %q", body)
	}
}

// TestChurn: endpoints are added, removed and killed, routes and policies change,
// under load. No request fails and no client's connection is closed.
func TestChurn(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	a, b := newEndpoint(t, hello("a")), newEndpoint(t, hello("b"))
	r := newRig(t, Config{}, policy(), a, b)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var requests, failed atomic.Int64
	for i := range 8 {
		c := r.client()
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				request := "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
				if i%2 == 1 {
					request = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
				}
				_ = c.SetDeadline(time.Now().Add(patience))
				if _, err := io.WriteString(c.Conn, request); err != nil {
					failed.Add(1)
					t.Errorf("write: %v", err)
					return
				}
				h, err := c.tryHead()
				if err != nil {
					failed.Add(1)
					t.Errorf("read: %v", err)
					return
				}
				c.body(lengthOf(h))
				requests.Add(1)
				if !strings.HasPrefix(h, "HTTP/1.1 200") {
					// A POST whose connection broke after it was sent may have done its work.
					if i%2 == 0 || !strings.HasPrefix(h, "HTTP/1.1 502") {
						failed.Add(1)
						t.Errorf("%s", h)
					}
				}
			}
		})
	}
	live := []*endpoint{a, b}
	for round := range 30 {
		fresh := newEndpoint(t, hello(fmt.Sprint("e", round)))
		old := live[0]
		live = append(live[1:], fresh)
		switch round % 3 {
		case 0: // removed, then stopped
			r.endpoints(live...)
			for n := requests.Load(); requests.Load() < n+100 && !t.Failed(); {
				<-time.After(time.Millisecond)
			}
			old.kill()
		case 1: // killed, then removed
			r.endpoints(append([]*endpoint{old}, live...)...)
			old.kill()
			for n := requests.Load(); requests.Load() < n+100 && !t.Failed(); {
				<-time.After(time.Millisecond)
			}
			r.endpoints(live...)
		case 2:
			p := policy()
			p.ReadTimeout = time.Duration(30+round) * time.Second
			r.e.SetRoutes(everything(p))
			r.endpoints(live...)
			old.kill()
		}
	}
	close(stop)
	wg.Wait()
	t.Logf("%d requests, %d failed", requests.Load(), failed.Load())
}

// TestGoClient: net/http on both ends.
func TestGoClient(t *testing.T) {
	r := newRig(t, Config{}, policy(), newEndpoint(t, hello("go")))
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	c := &http.Client{Transport: tr, Timeout: patience}
	for range 10 {
		resp, err := c.Post("http://"+r.addr+"/x", "text/plain", strings.NewReader("abc"))
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(b) != "go" || resp.StatusCode != 200 {
			t.Fatalf("%d %q %v", resp.StatusCode, b, err)
		}
	}
}

// TestLarge: bodies both ways, chunked and counted, unharmed and with bounded
// memory.
func TestLarge(t *testing.T) {
	size := int64(32 << 20)
	if testing.Short() {
		size = 8 << 20
	}
	r := newRig(t, Config{}, policy(), newEndpoint(t, func(w *wire, _ int) {
		for {
			req, err := http.ReadRequest(w.r)
			if err != nil {
				return
			}
			if req.Method == "PUT" {
				n, err := io.Copy(&pattern{t: t}, req.Body)
				if err != nil {
					t.Errorf("the endpoint's body: %v", err)
					return
				}
				w.send(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Got: %d\r\n\r\n", n))
				continue
			}
			w.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
			p := &pattern{}
			buf := make([]byte, 48<<10)
			for left := size; left > 0; {
				n := min(left, int64(len(buf)))
				p.fill(buf[:n])
				fmt.Fprintf(w.Conn, "%x\r\n", n)
				_, _ = w.Conn.Write(buf[:n])
				if _, err := io.WriteString(w.Conn, "\r\n"); err != nil {
					return
				}
				left -= n
			}
			w.send("0\r\n\r\n")
		}
	}))
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	c := &http.Client{Transport: tr}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	defer func() {
		runtime.ReadMemStats(&after)
		if n := int64(after.TotalAlloc - before.TotalAlloc); n > size/4 {
			t.Errorf("%d bytes of memory for bodies of %d", n, size)
		}
	}()
	for _, length := range []int64{size, -1} {
		req, _ := http.NewRequest("PUT", "http://"+r.addr, io.LimitReader(&pattern{}, size))
		req.ContentLength = length
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if got := resp.Header.Get("X-Got"); got != fmt.Sprint(size) {
			t.Errorf("the endpoint got %s bytes", got)
		}
	}
	resp, err := c.Get("http://" + r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if n, err := io.Copy(&pattern{t: t}, resp.Body); n != size || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
}

// pattern writes and checks bytes that say where they are.
type pattern struct {
	t  *testing.T
	at int64
}

func (p *pattern) fill(b []byte) {
	for i := range b {
		b[i] = byte(p.at>>10) ^ byte(p.at)
		p.at++
	}
}

func (p *pattern) Read(b []byte) (int, error) {
	p.fill(b)
	return len(b), nil
}

func (p *pattern) Write(b []byte) (int, error) {
	for i, x := range b {
		if x != byte(p.at>>10)^byte(p.at) {
			p.t.Errorf("byte %d is wrong", p.at)
			return i, errors.New("wrong")
		}
		p.at++
	}
	return len(b), nil
}
