package gateway

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fingerpost/fingerpost/view/gateway"
	"github.com/fingerpost/fingerpost/view/gateway/route"
)

// good keeps asking a site that nothing is wrong with, and wants every answer to
// be right, until the function it gives is called.
func good(t *testing.T, r *rig) (stop func()) {
	t.Helper()
	r.site("good.example.com", "good", nil)
	r.endpoints("good", serve(t, echo("good")))
	end := make(chan struct{})
	var wg sync.WaitGroup
	for _, two := range []bool{false, true} {
		tr := r.transport(two)
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-end:
					return
				default:
				}
				path := fmt.Sprintf("/%d", i)
				req, _ := http.NewRequest("POST", "http://good.example.com"+path, strings.NewReader("body"))
				if err := same(tr, req, "POST "+path+" 4"); err != nil {
					t.Errorf("a route that nothing is wrong with: %v", err)
					return
				}
			}
		})
	}
	stop = sync.OnceFunc(func() { close(end); wg.Wait() })
	t.Cleanup(stop)
	return stop
}

// TestNowhere: what cannot be delivered is answered at once.
func TestNowhere(t *testing.T) {
	t.Parallel()
	r := newRig(t, gateway.Config{})
	good(t, r)
	r.site("none.example.com", "none", nil)
	r.site("unknown.example.com", "unknown", nil)
	r.site("refused.example.com", "refused", nil)
	r.endpoints("refused", "127.0.0.1:1", "127.0.0.2:1")
	broken := rule("/", "none", nil)
	broken.Problem = "the service default/none does not exist"
	r.e.SetRoutes(route.Update{Hosts: map[string]*route.Host{"problem.example.com": {Name: "problem.example.com", Rules: []route.Rule{broken}}}})
	for _, c := range []struct {
		host   string
		status int
		after  string // Retry-After
	}{
		{"none.example.com", 503, "1"}, {"unknown.example.com", 503, "1"}, {"problem.example.com", 503, "1"},
		{"refused.example.com", 502, ""}, {"nobody.example.com", 404, ""},
	} {
		for _, two := range []bool{false, true} {
			for _, method := range []string{"GET", "HEAD", "POST"} {
				req, _ := http.NewRequest(method, "http://"+c.host+"/", nil)
				if method == "POST" {
					req.Body, req.ContentLength = io.NopCloser(strings.NewReader("a body")), -1
				}
				began := time.Now()
				resp, err := r.transport(two).RoundTrip(req)
				if err != nil {
					t.Errorf("%s %s: %v", method, c.host, err)
					continue
				}
				_ = resp.Body.Close()
				if resp.StatusCode != c.status || resp.Header.Get("Retry-After") != c.after || resp.Header.Get("Server") == "" || resp.Header.Get("Date") == "" {
					t.Errorf("%s %s: %d %v", method, c.host, resp.StatusCode, resp.Header)
				}
				if d := time.Since(began); d > 20*time.Second {
					t.Errorf("%s %s: after %s", method, c.host, d)
				}
			}
		}
	}
}

// TestBadEndpoint: an endpoint that does not speak HTTP, or stops in the middle.
func TestBadEndpoint(t *testing.T) {
	t.Parallel()
	r := newRig(t, gateway.Config{})
	good(t, r)
	for name, c := range map[string]struct {
		answer string
		status int
		broken bool // the body breaks off
	}{
		"nothing":             {"", 502, false},
		"no HTTP":             {"220 smtp.example.com ESMTP\r\n", 502, false},
		"TLS":                 {"\x15\x03\x01\x00\x02\x02\x46", 502, false},
		"half a head":         {"HTTP/1.1 200 OK\r\nContent-Le", 502, false},
		"a status of letters": {"HTTP/1.1 abc OK\r\n\r\n", 502, false},
		"a status of 4":       {"HTTP/1.1 2000 OK\r\n\r\n", 502, false},
		"two lengths":         {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc", 502, false},
		"a negative length":   {"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", 502, false},
		"a field with NUL":    {"HTTP/1.1 200 OK\r\nA: b\x00c\r\nContent-Length: 0\r\n\r\n", 502, false},
		"a name with spaces":  {"HTTP/1.1 200 OK\r\nA b: c\r\nContent-Length: 0\r\n\r\n", 502, false},
		"huge head":           {"HTTP/1.1 200 OK\r\nA: " + strings.Repeat("x", 1<<20) + "\r\n\r\n", 502, false},
		"many fields":         {"HTTP/1.1 200 OK\r\n" + strings.Repeat("A: b\r\n", 10000) + "\r\n", 502, false},
		"an unasked 101":      {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", 502, false},
		"a short body":        {"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", 200, true},
		"a broken chunk":      {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n", 200, true},
		"no last chunk":       {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", 200, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			service := strings.ReplaceAll(name, " ", "")
			site := strings.ToLower(service) + ".example.com"
			r.site(site, service, nil)
			r.endpoints(service, listen(t, func(conn net.Conn) {
				if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
					_, _ = io.WriteString(conn, c.answer)
				}
			}))
			for _, two := range []bool{false, true} {
				req, _ := http.NewRequest("GET", "http://"+site+"/", nil)
				resp, err := r.transport(two).RoundTrip(req)
				if err != nil {
					if !c.broken { // else the end may come before the head is read
						t.Errorf("HTTP/2 %v: %v", two, err)
					}
					continue
				}
				b, err := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if resp.StatusCode != c.status || (err != nil) != c.broken {
					t.Errorf("HTTP/2 %v: %d, %d bytes, %v", two, resp.StatusCode, len(b), err)
				}
			}
		})
	}
}

// TestSilentEndpoint: one that accepts and says nothing, before the answer or in
// the middle of it, and one that does not read.
func TestSilentEndpoint(t *testing.T) {
	t.Parallel()
	r := newRig(t, gateway.Config{})
	good(t, r)
	hasty := usual()
	hasty.ReadTimeout, hasty.SendTimeout = 4*time.Second, 4*time.Second
	mute := listen(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	half := listen(t, func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
		_, _ = io.Copy(io.Discard, c)
	})
	quit := make(chan struct{})
	deaf := listen(t, func(c net.Conn) { <-quit })
	t.Cleanup(func() { close(quit) })
	for name, addr := range map[string]string{"mute": mute, "half": half, "deaf": deaf} {
		r.site(name+".example.com", name, hasty)
		r.endpoints(name, addr)
	}
	var wg sync.WaitGroup
	for _, two := range []bool{false, true} {
		tr := r.transport(two)
		ask := func(site string, body io.Reader, right func(status int, err error) bool) {
			wg.Go(func() {
				req, _ := http.NewRequest("POST", "http://"+site+".example.com/", body)
				status := 0
				resp, err := tr.RoundTrip(req)
				if err == nil {
					status = resp.StatusCode
					_, err = io.ReadAll(resp.Body)
					_ = resp.Body.Close()
				}
				if !right(status, err) {
					t.Errorf("HTTP/2 %v: %s: %d %v", two, site, status, err)
				}
			})
		}
		ask("mute", nil, func(s int, err error) bool { return s == 504 && err == nil })
		ask("half", nil, func(s int, err error) bool { return s == 200 && err != nil })
		// The client may still write when the answer comes.
		ask("deaf", io.LimitReader(pattern{}, 100<<20), func(s int, err error) bool { return s == 504 || err != nil })
	}
	wg.Wait()
}

// TestSlowloris: many clients that send a byte now and then are told so and let go;
// nobody else notices.
func TestSlowloris(t *testing.T) {
	t.Parallel()
	r := newRig(t, gateway.Config{Timeouts: gateway.Timeouts{Head: 3 * time.Second, BodyRead: 3 * time.Second, Handshake: 3 * time.Second}})
	r.site(host, "web", nil)
	r.endpoints("web", serve(t, echo("web")))
	good(t, r)
	trickle := func(c net.Conn, text string) {
		for i := range len(text) {
			if _, err := io.WriteString(c, text[i:i+1]); err != nil {
				return
			}
			<-time.After(20 * time.Millisecond)
		}
	}
	head := "GET / HTTP/1.1\r\nHost: " + host + "\r\nA: " + strings.Repeat("a", 1000)
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			c, err := r.raw("ws")
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			want := "HTTP/1.1 408 "
			switch i % 4 {
			case 0:
				go trickle(c, head)
			case 1:
				_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: "+host+"\r\nContent-Length: 1000\r\n\r\nabc")
			case 2:
				_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: "+host+"\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab")
			case 3:
				want = "" // half a preface of HTTP/2, and then nothing
				_, _ = io.WriteString(c, "PRI * HTTP/2.0\r\n")
			}
			b, err := io.ReadAll(c)
			if ne, ok := err.(net.Error); ok && ne.Timeout() {
				t.Errorf("kind %d: the connection stays open", i%4)
			}
			if !strings.HasPrefix(string(b), want) {
				t.Errorf("kind %d: %q %v", i%4, b, err)
			}
		})
		wg.Go(func() { // half a ClientHello
			c, err := net.Dial("tcp", r.secure)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(patience))
			_, _ = io.WriteString(c, "\x16\x03\x01\x02\x00\x01")
			if _, err := io.ReadAll(c); err != nil && strings.Contains(err.Error(), "timeout") {
				t.Error("half a ClientHello: the connection stays open")
			}
		})
	}
	wg.Wait()
}
