package gateway

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/gateway/route"
)

// server makes an endpoint of an HTTP server.
func server(t *testing.T, h http.Handler, protocols func(*http.Protocols), secure bool) *endpoint {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	var p http.Protocols
	p.SetHTTP1(true)
	if protocols != nil {
		p = http.Protocols{}
		protocols(&p)
	}
	s.Config.Protocols = &p
	if secure {
		s.EnableHTTP2 = p.HTTP2()
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return &endpoint{l: s.Listener}
}

func h2c(p *http.Protocols) { p.SetUnencryptedHTTP2(true) }

// both are requests over each version of HTTP.
func both(t *testing.T, f func(t *testing.T, c *http.Client)) {
	for _, name := range []string{"h1", "h2c"} {
		t.Run(name, func(t *testing.T) {
			tr := &http.Transport{}
			if name == "h2c" {
				tr.Protocols = &http.Protocols{}
				h2c(tr.Protocols)
			}
			defer tr.CloseIdleConnections()
			f(t, &http.Client{Transport: tr, Timeout: patience, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }})
		})
	}
}

// TestBothWays: request and response flow at the same time, over each pair of
// versions, and end with trailers.
func TestBothWays(t *testing.T) {
	echo := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "Grpc-Status")
		rc := http.NewResponseController(w)
		_ = rc.EnableFullDuplex()
		w.WriteHeader(200)
		_ = rc.Flush()
		buf := make([]byte, 1000)
		for {
			n, err := r.Body.Read(buf)
			_, _ = w.Write(buf[:n])
			_ = rc.Flush()
			if err != nil {
				break
			}
		}
		w.Header().Set("Grpc-Status", "0")
	})
	for _, x := range []struct {
		name      string
		protocol  route.Protocol
		protocols func(*http.Protocols)
		secure    bool
	}{
		{"http", route.HTTP, nil, false},
		{"h2c", route.H2C, h2c, false},
		{"https", route.HTTPS, func(p *http.Protocols) { p.SetHTTP1(true) }, true},
		{"h2", route.H2, func(p *http.Protocols) { p.SetHTTP1(true); p.SetHTTP2(true) }, true},
	} {
		t.Run(x.name, func(t *testing.T) {
			p := policy()
			p.Protocol = x.protocol
			r := newRig(t, Config{}, p, server(t, echo, x.protocols, x.secure))
			both(t, func(t *testing.T, c *http.Client) {
				for range 3 {
					pr, pw := io.Pipe()
					req, _ := http.NewRequest("POST", "http://"+r.addr+"/", pr)
					req.Header.Set("TE", "trailers")
					go fmt.Fprint(pw, "ping0")
					resp, err := c.Do(req)
					if err != nil {
						t.Fatal(err)
					}
					buf := make([]byte, 5)
					for i := range 20 {
						if _, err := io.ReadFull(resp.Body, buf); err != nil || string(buf) != fmt.Sprintf("ping%d", i%10) {
							t.Fatalf("got %q, %v", buf, err)
						}
						if i < 19 {
							fmt.Fprintf(pw, "ping%d", (i+1)%10)
						}
					}
					pw.Close()
					if b, err := io.ReadAll(resp.Body); len(b) > 0 || err != nil {
						t.Fatalf("the end: %q %v", b, err)
					}
					resp.Body.Close()
					if resp.Trailer.Get("Grpc-Status") != "0" {
						t.Errorf("trailers %v", resp.Trailer)
					}
				}
			})
		})
	}
}

// TestCancel: a client of HTTP/2 that gives up ends the request to the endpoint.
func TestCancel(t *testing.T) {
	for _, protocol := range []route.Protocol{route.HTTP, route.H2C} {
		began, ended := make(chan struct{}), make(chan struct{})
		p := policy()
		p.Protocol = protocol
		r := newRig(t, Config{}, p, server(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			close(began)
			<-r.Context().Done()
			close(ended)
		}), func(p *http.Protocols) { p.SetHTTP1(true); h2c(p) }, false))
		tr := &http.Transport{Protocols: &http.Protocols{}}
		h2c(tr.Protocols)
		ctx, cancel := context.WithCancel(t.Context())
		req, _ := http.NewRequestWithContext(ctx, "GET", "http://"+r.addr+"/", nil)
		done := make(chan struct{})
		go func() { _, _ = tr.RoundTrip(req); close(done) }()
		<-began
		cancel()
		<-ended
		<-done
		tr.CloseIdleConnections()
	}
}

func TestRedirects(t *testing.T) {
	p := policy()
	p.ForceSSLRedirect = true
	r := newRig(t, Config{}, p, newEndpoint(t, hello("x")))
	both(t, func(t *testing.T, c *http.Client) {
		resp, err := c.Get("http://" + r.addr + "/a?b")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 308 || !strings.HasPrefix(resp.Header.Get("Location"), "https://127.0.0.1") {
			t.Errorf("%d %s", resp.StatusCode, resp.Header.Get("Location"))
		}
	})
}

// TestExternalAuth: another server is asked, by service.
func TestExternalAuth(t *testing.T) {
	auth := server(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "let me in" {
			w.WriteHeader(401)
			return
		}
		w.Header().Set("X-User", "ada")
	}), nil, false)
	ep := newEndpoint(t, func(w *wire, _ int) {
		for {
			h, err := w.tryHead()
			if err != nil {
				return
			}
			fmt.Fprintf(w.Conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(h), h)
		}
	})
	p := policy()
	p.Auth = &route.ExternalAuth{URL: "http://" + auth.addr().String() + "/check", ResponseFields: []string{"X-User"}}
	r := newRig(t, Config{}, p, ep)
	both(t, func(t *testing.T, c *http.Client) {
		for _, x := range []struct {
			secret string
			want   int
		}{{"", 401}, {"let me in", 200}, {"wrong", 401}, {"let me in", 200}} {
			req, _ := http.NewRequest("GET", "http://"+r.addr+"/", nil)
			req.Header.Set("Authorization", x.secret)
			resp, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			b, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if resp.StatusCode != x.want || x.want == 200 && !strings.Contains(strings.ToLower(string(b)), "x-user: ada") {
				t.Errorf("%q: %d %s", x.secret, resp.StatusCode, b)
			}
		}
	})
}

var pages = catalog.Key{Namespace: "default", Name: "pages"}

// TestCustomErrors: another service answers for statuses and for missing endpoints.
func TestCustomErrors(t *testing.T) {
	back := server(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(404)
		fmt.Fprintf(w, "sorry for %s at %s", r.Header.Get("X-Code"), r.Header.Get("X-Original-URI"))
	}), nil, false)
	p := policy()
	p.CustomErrors = []int{418, 503}
	p.Errors = &route.Backend{Service: pages, Port: "80"}
	r := newRig(t, Config{}, p, newEndpoint(t, func(w *wire, _ int) {
		for {
			if _, err := w.tryHead(); err != nil {
				return
			}
			w.send("HTTP/1.1 418 Teapot\r\nContent-Length: 3\r\n\r\nTea")
		}
	}))
	addr := back.addr()
	r.service(pages, addr)
	both(t, func(t *testing.T, c *http.Client) {
		resp, err := c.Get("http://" + r.addr + "/pot")
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(b) != "sorry for 418 at /pot" {
			t.Errorf("%d %s", resp.StatusCode, b)
		}
	})
	r.endpoints()
	_, body := r.client().send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").want(404)
	if body != "sorry for 503 at /x" {
		t.Errorf("%s", body)
	}
}

// service adds another service with one endpoint.
func (r *rig) service(k catalog.Key, addr netip.AddrPort) {
	r.t.Helper()
	r.cat.Update(func(t *catalog.Txn) {
		t.PutService(&catalog.Service{Key: k, Type: catalog.ClusterIP, Ports: []catalog.Port{{Name: "http", Protocol: catalog.TCP, Port: 80, Target: "80"}}})
		t.PutEndpoints(k, []catalog.Endpoint{{Addr: addr.Addr(), Ports: []catalog.EndpointPort{{Name: "http", Protocol: catalog.TCP, Port: addr.Port()}}, Ready: true, Serving: true, Weight: 100}})
	})
	s := r.cat.Snapshot()
	if err := r.e.Apply(r.t.Context(), catalog.Batch{Snapshot: s, Changes: []catalog.Change{{Key: k, New: s.Get(k)}}}); err != nil {
		r.t.Fatal(err)
	}
}

// TestAffinity: the cookie keeps a client at an endpoint until that is gone.
func TestAffinity(t *testing.T) {
	p := policy()
	p.Affinity = &route.Affinity{Cookie: "route"}
	a, b := newEndpoint(t, hello("a")), newEndpoint(t, hello("b"))
	r := newRig(t, Config{}, p, a, b)
	c := r.client()
	head, first := c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").want(200)
	_, cookie, ok := strings.Cut(head, "Set-Cookie: ")
	if !ok {
		t.Fatalf("no cookie in %s", head)
	}
	cookie, _, _ = strings.Cut(cookie, ";")
	for range 20 {
		if _, body := c.send("GET / HTTP/1.1\r\nHost: a\r\nCookie: " + cookie + "\r\n\r\n").want(200); body != first {
			t.Fatalf("another endpoint: %s", body)
		}
	}
	left := map[string]*endpoint{"a": b, "b": a}[first]
	r.endpoints(left)
	head, body := c.send("GET / HTTP/1.1\r\nHost: a\r\nCookie: " + cookie + "\r\n\r\n").want(200)
	if body == first || !strings.Contains(head, "Set-Cookie: ") {
		t.Errorf("%s\n%s", head, body)
	}
}

// TestBuffered: with BufferRequest an endpoint is asked when the body is there.
func TestBuffered(t *testing.T) {
	asked := make(chan struct{}, 1)
	p := policy()
	p.BufferRequest = true
	r := newRig(t, Config{}, p, newEndpoint(t, func(w *wire, _ int) {
		h := w.head()
		asked <- struct{}{}
		w.send(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", 10, w.body(lengthOf(h))))
	}))
	c := r.client().send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello")
	select {
	case <-asked:
		t.Error("the endpoint is asked too early")
	case <-time.After(50 * time.Millisecond):
	}
	if _, body := c.send("world").want(200); body != "helloworld" {
		t.Errorf("%q", body)
	}
}

// TestHalfClosed: a client that has said everything may still wait.
func TestHalfClosed(t *testing.T) {
	r := newRig(t, Config{}, policy(), newEndpoint(t, hello("x")))
	c := r.client().send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	_ = c.Conn.(*net.TCPConn).CloseWrite()
	c.want(200)
	if err := c.closed(); err != nil {
		t.Errorf("the end: %v", err)
	}
}
