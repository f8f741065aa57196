package gateway

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/fingerpost/fingerpost/view/gateway/route"
)

// chat is an endpoint that takes upgrades and echoes.
func chat(w *wire, _ int) {
	h, err := w.tryHead()
	if err != nil {
		return
	}
	if !strings.Contains(h, "Upgrade: websocket") {
		w.send("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		return
	}
	w.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\nwelcome")
	_, _ = io.Copy(w.Conn, w.r)
}

const upgrade = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n"

// TestUpgrade: bytes flow both ways, early ones too, across changes of routes and
// endpoints; each side can end its half.
func TestUpgrade(t *testing.T) {
	r := newRig(t, Config{}, policy(), newEndpoint(t, chat))
	c := r.client().send(upgrade + "early")
	if h := c.head(); !strings.HasPrefix(h, "HTTP/1.1 101") || !strings.Contains(h, "Upgrade: websocket") || !strings.Contains(h, "Sec-WebSocket-Accept: x") {
		t.Fatalf("head: %s", h)
	}
	if got := c.body(len("welcomeearly")); got != "welcomeearly" {
		t.Errorf("got %q", got)
	}
	r.e.SetRoutes(route.Update{Replace: true})
	r.endpoints()
	r.client().send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").want(404)
	if got := c.send("still here").body(10); got != "still here" {
		t.Errorf("got %q", got)
	}
	if n := r.e.Stats().Tunnels; n != 1 {
		t.Errorf("%d tunnels", n)
	}
	_ = c.Conn.(*net.TCPConn).CloseWrite()
	if err := c.closed(); err != nil {
		t.Errorf("the end: %v", err)
	}
	// One that the endpoint does not want is an ordinary answer.
	r = newRig(t, Config{}, policy(), newEndpoint(t, chat))
	r.client().send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n").want(400)
}

func TestTunnelIdle(t *testing.T) {
	t.Parallel() // it waits
	r := newRig(t, Config{Timeouts: Timeouts{Tunnel: 4 * time.Second}}, policy(), newEndpoint(t, chat))
	c := r.client().send(upgrade)
	c.head()
	c.body(len("welcome"))
	for range 3 { // longer than the limit altogether
		<-time.After(1500 * time.Millisecond)
		c.send("x").body(1)
	}
	_ = c.closed()
}

func TestConnect(t *testing.T) {
	r := newRig(t, Config{}, policy(), newEndpoint(t, func(w *wire, _ int) {
		if h := w.head(); !strings.HasPrefix(h, "CONNECT a:443 HTTP/1.1\r\n") {
			t.Errorf("head: %s", h)
		}
		w.send("HTTP/1.1 200 OK\r\n\r\n")
		_, _ = io.Copy(w.Conn, w.r)
	}))
	c := r.client().send("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n")
	if h := c.head(); !strings.HasPrefix(h, "HTTP/1.1 200") || strings.Contains(h, "Content-Length") {
		t.Fatalf("head: %s", h)
	}
	if got := c.send("ping").body(4); got != "ping" {
		t.Errorf("got %q", got)
	}
}

// TestSlow: who sends a head or a body too slowly is told so.
func TestSlow(t *testing.T) {
	t.Parallel() // it waits
	cfg := Config{Timeouts: Timeouts{Head: 2 * time.Second, BodyRead: 2 * time.Second, Idle: 2 * time.Second}}
	r := newRig(t, cfg, policy(), newEndpoint(t, hello("x")))
	c := r.client().send("GET / HTTP/1.1\r\nHost:")
	c.want(408)
	if err := c.closed(); err != nil {
		t.Errorf("head: %v", err)
	}
	r.client().send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc").want(408)
	// One byte at a time does not make it longer.
	c = r.client()
	go func() {
		for range 100 {
			if _, err := io.WriteString(c.Conn, "G"); err != nil {
				return
			}
			<-time.After(50 * time.Millisecond)
		}
	}()
	c.want(408)
	idle := r.client()
	idle.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").want(200)
	if err := idle.closed(); err != nil {
		t.Errorf("idle: %v", err)
	}
}

// TestStalled: a client that does not read is let go, and so is the endpoint.
func TestStalled(t *testing.T) {
	ended := make(chan struct{})
	r := newRig(t, Config{Timeouts: Timeouts{Write: 100 * time.Millisecond}}, policy(), newEndpoint(t, func(w *wire, _ int) {
		defer close(ended)
		w.head()
		w.send("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
		_, _ = io.CopyN(w.Conn, &pattern{}, 100000000)
	}))
	r.client().send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	<-ended
}

func TestDrain(t *testing.T) {
	asked, answer := make(chan struct{}), make(chan struct{})
	r := newRig(t, Config{}, policy(), newEndpoint(t, func(w *wire, _ int) {
		for {
			if h, err := w.tryHead(); err != nil {
				return
			} else if strings.Contains(h, "/slow") {
				close(asked)
				<-answer
			}
			w.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	}))
	idle, busy := r.client(), r.client()
	idle.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").want(200)
	busy.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
	<-asked
	stopped := make(chan struct{})
	go func() { r.stop(); close(stopped) }()
	if err := idle.closed(); err != nil {
		t.Errorf("idle: %v", err)
	}
	if ok, why := r.e.Ready(); ok || !strings.Contains(why, "shutting down") {
		t.Errorf("ready: %v %s", ok, why)
	}
	close(answer)
	if h, _ := busy.want(200); !strings.Contains(h, "Connection: close") {
		t.Errorf("head: %s", h)
	}
	if err := busy.closed(); err != nil {
		t.Errorf("busy: %v", err)
	}
	<-stopped
}

// TestDrainEnds: an endpoint that never answers does not hold up the end for ever,
// and the client sees that there is no answer.
func TestDrainEnds(t *testing.T) {
	asked := make(chan struct{})
	r := newRig(t, Config{Timeouts: Timeouts{Drain: 100 * time.Millisecond}}, policy(), newEndpoint(t, func(w *wire, _ int) {
		w.head()
		close(asked)
		_, _ = io.Copy(io.Discard, w.r)
	}))
	c := r.client().send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	<-asked
	r.stop()
	_ = c.closed()
}

// TestGoroutines: nothing is left after the engine has ended.
func TestGoroutines(t *testing.T) {
	before := runtime.NumGoroutine()
	func() {
		ep := newEndpoint(t, chat)
		r := newRig(t, Config{Timeouts: Timeouts{Drain: 200 * time.Millisecond}}, policy(), ep)
		for range 10 {
			c := r.client().send(upgrade)
			c.head()
			r.client()
		}
		r.stop()
		ep.kill()
	}()
	settled(t, before+1) // the test's context
}

func selfSigned(t *testing.T, names ...string) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: names[0]}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: names}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestTLS(t *testing.T) {
	r := newRig(t, Config{Listeners: []Listener{{Addr: "127.0.0.1:0", TLS: true}}}, policy(), newEndpoint(t, func(w *wire, _ int) {
		for {
			h, err := w.tryHead()
			if err != nil {
				return
			}
			w.send(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(h), h))
		}
	}))
	r.e.SetRoutes(route.Update{Certificates: map[string]*route.Certificate{"s": {Hosts: []string{"shop.example.com"}, Chain: selfSigned(t, "shop.example.com")}}})
	for _, protocols := range [][]string{{"http/1.1"}, {"h2"}} {
		roots := &tls.Config{InsecureSkipVerify: true, ServerName: "shop.example.com", NextProtos: protocols}
		tr := &http.Transport{TLSClientConfig: roots, ForceAttemptHTTP2: protocols[0] == "h2"}
		c := &http.Client{Transport: tr, Timeout: patience}
		for range 3 {
			req, _ := http.NewRequest("GET", "https://"+r.addr+"/x", nil)
			req.Host = "shop.example.com"
			resp, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			b, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if !strings.Contains(string(b), "X-Forwarded-Proto: https") || resp.TLS.PeerCertificates[0].Subject.CommonName != "shop.example.com" {
				t.Errorf("%s over %v: %s", resp.Proto, protocols, b)
			}
			if resp.ProtoMajor != map[string]int{"h2": 2, "http/1.1": 1}[protocols[0]] {
				t.Errorf("%s over %v", resp.Proto, protocols)
			}
		}
		tr.CloseIdleConnections()
	}
}

// TestH2C: HTTP/2 by prior knowledge on a plain listener.
func TestH2C(t *testing.T) {
	r := newRig(t, Config{}, policy(), newEndpoint(t, hello("two")))
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	tr := &http.Transport{Protocols: &p}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr, Timeout: patience}).Get("http://" + r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, _ := io.ReadAll(resp.Body); string(b) != "two" || resp.ProtoMajor != 2 {
		t.Errorf("%s %q", resp.Proto, b)
	}
}

func TestPassthrough(t *testing.T) {
	server := selfSigned(t, "bank.example.com")
	ep := newEndpoint(t, func(w *wire, _ int) {
		s := tls.Server(w.Conn, &tls.Config{Certificates: []tls.Certificate{*server}})
		_, _ = io.Copy(s, s)
		_ = s.CloseWrite()
	})
	r := newRig(t, Config{Listeners: []Listener{{Addr: "127.0.0.1:0", TLS: true}}}, policy(), ep)
	r.e.SetRoutes(route.Update{Hosts: map[string]*route.Host{"bank.example.com": {Passthrough: &route.Backend{Service: web, Port: "80"}}}})
	c, err := tls.Dial("tcp", r.addr, &tls.Config{ServerName: "bank.example.com", InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if cn := c.ConnectionState().PeerCertificates[0].Subject.CommonName; cn != "bank.example.com" {
		t.Errorf("certificate of %s", cn)
	}
	fmt.Fprint(c, "through")
	_ = c.CloseWrite()
	if b, err := io.ReadAll(c); string(b) != "through" || err != nil {
		t.Errorf("%q %v", b, err)
	}
	// Other names end here.
	o, err := tls.Dial("tcp", r.addr, &tls.Config{ServerName: "other.example.com", InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	o.Close()
}

func TestProxyProtocol(t *testing.T) {
	r := newRig(t, Config{Listeners: []Listener{{Addr: "127.0.0.1:0", Proxied: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}}}, policy(), newEndpoint(t, func(w *wire, _ int) {
		h := w.head()
		w.send(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(h), h))
	}))
	c := r.client().send("PROXY TCP4 192.0.2.7 192.0.2.1 4711 80\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if _, body := c.want(200); !strings.Contains(body, "X-Forwarded-For: 192.0.2.7") {
		t.Errorf("the endpoint got %s", body)
	}
	bad := r.client().send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	_ = bad.closed()
}

// TestLimit: over the limit of connections the oldest idle one gives way.
func TestLimit(t *testing.T) {
	r := newRig(t, Config{Limits: Limits{Connections: 2}}, policy(), newEndpoint(t, hello("x")))
	a, b := r.client(), r.client()
	a.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").want(200)
	b.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").want(200)
	for r.e.Stats().Idle < 2 {
		<-time.After(time.Millisecond)
	}
	r.client().send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").want(200)
	_ = a.closed()
}

// TestIdleMemory: what a connection costs between requests.
func TestIdleMemory(t *testing.T) {
	if raced {
		t.Skip("the race detector needs memory of its own")
	}
	const n = 2000
	r := newRig(t, Config{}, policy(), newEndpoint(t, hello("x")))
	r.client().send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").want(200)
	measure := func() int64 {
		runtime.GC()
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapInuse + m.StackInuse)
	}
	// What other tests left behind goes in its own time, and must not be counted.
	before := measure()
	for calm := 0; calm < 3; {
		runtime.Gosched()
		if now := measure(); now < before {
			before, calm = now, 0
		} else {
			calm++
		}
	}
	conns := make([]net.Conn, 0, n)
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	buf := make([]byte, 4096)
	for range n {
		c, err := net.Dial("tcp", r.addr)
		if err != nil {
			if errors.Is(err, os.ErrPermission) || strings.Contains(err.Error(), "too many open files") {
				t.Skip("this machine does not allow so many open files")
			}
			t.Fatal(err)
		}
		conns = append(conns, c)
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		if _, err := c.Read(buf); err != nil {
			t.Fatal(err)
		}
	}
	after := measure()
	each := (after - before) / n
	// The test's own end of each connection is in it, too: about 1 KiB.
	t.Logf("%d bytes for each idle connection", each)
	if each > 10<<10 {
		t.Errorf("%d bytes for each idle connection, at most 10 KiB", each)
	}
}

func TestExplain(t *testing.T) {
	ep := newEndpoint(t, hello("x"))
	r := newRig(t, Config{}, policy(), ep)
	x := r.e.Explain(Question{Host: "shop.example.com", Path: "/a"})
	if !x.Ready || len(x.Backends) != 1 || len(x.Backends[0].Endpoints) != 1 || x.Backends[0].Endpoints[0].Address != ep.addr().String() {
		t.Errorf("%+v", x)
	}
	if len(r.e.Routes()) != 1 {
		t.Errorf("%+v", r.e.Routes())
	}
}

// TestPanic: a mistake breaks one request.
func TestPanic(t *testing.T) {
	r := newRig(t, Config{}, policy(), newEndpoint(t, hello("x")))
	good := r.e.state.Load()
	m := good.table.Match(&route.Query{Host: []byte("a"), Path: []byte("/")})
	bad := *m.Data.(*lazy).target()
	bad.primary.policy = nil // which nothing can make
	broken := &lazy{}
	broken.made.Store(&bad)
	r.e.state.Store(&state{ready: true, table: route.Build(&route.Update{Hosts: map[string]*route.Host{"": {Rules: []route.Rule{{Path: route.Path{Value: "/"}}}}}},
		func(*route.Host, *route.Rule) any { return broken })})
	c := r.client().send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx")
	if err := c.closed(); err == nil {
		t.Error("the connection ends as if all were well")
	}
	r.e.state.Store(good)
	r.client().send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").want(200)
}
