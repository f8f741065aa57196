package gateway

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/fingerpost/fingerpost/view/gateway"
	"github.com/fingerpost/fingerpost/view/gateway/route"
)

// twoHost is a site whose endpoints are asked by HTTP/2.
const twoHost = "two.example.com"

// churnFor is how long the churn goes on: 10 s, or as $FINGERPOST_CHURN says.
func churnFor(t *testing.T) time.Duration {
	v := os.Getenv("FINGERPOST_CHURN")
	if v == "" {
		return 10 * time.Second
	}
	d, err := time.ParseDuration(v)
	if err != nil {
		t.Fatalf("FINGERPOST_CHURN: %v", err)
	}
	return d
}

// fleet is endpoints in processes of their own.
type fleet struct {
	t     *testing.T
	r     *rig
	stay  []string // endpoints that are never touched; WebSockets live there
	alive []*child
	gone  []*child // removed, not killed yet
	n     int
	turn  int
}

func (f *fleet) start() error {
	f.n++
	c, err := newChild(fmt.Sprintf("child%d", f.n))
	if err != nil {
		return err
	}
	f.alive = append(f.alive, c)
	return nil
}

// tell makes those that are alive, and others, the endpoints of the service.
func (f *fleet) tell(others ...*child) {
	addrs := append([]string{}, f.stay...)
	for _, c := range append(f.alive[:len(f.alive):len(f.alive)], others...) {
		addrs = append(addrs, c.addr)
	}
	f.r.endpoints("web", addrs...)
	// Those that are asked by HTTP/2 come and go, too, but are not killed: they write
	// heads and bodies apart, and nobody can hide that a body is missing.
	f.turn = (f.turn + 1) % len(f.stay)
	f.r.endpoints("two", f.stay[f.turn])
}

func (f *fleet) end() {
	for _, c := range append(f.alive, f.gone...) {
		c.kill()
	}
}

// change does one of the things that happen to endpoints and certificates.
func (f *fleet) change(i int) error {
	take := func() *child {
		k := rand.IntN(len(f.alive))
		c := f.alive[k]
		f.alive = append(f.alive[:k:k], f.alive[k+1:]...)
		return c
	}
	switch i % 5 {
	case 0: // one more
		if err := f.start(); err != nil {
			return err
		}
		f.tell()
	case 1: // removed; what it works on it may finish
		f.gone = append(f.gone, take())
		f.tell()
	case 2: // killed, and the catalog does not know yet
		c := take()
		c.kill()
		f.tell(c)
		if err := f.start(); err != nil {
			return err
		}
	case 3: // now it does
		f.tell()
	case 4:
		f.r.e.SetRoutes(route.Update{
			Certificates: map[string]*route.Certificate{"wildcard": {Hosts: wildcard, Chain: f.r.ca.leaf(f.t, wildcard...)}},
			Hosts:        map[string]*route.Host{host: {Name: host, Rules: []route.Rule{rule("/", "web", nil), rule(fmt.Sprintf("/r%d", i), "web", nil)}}},
		})
	}
	// What was removed a while ago is stopped.
	for len(f.gone) > 3 {
		f.gone[0].kill()
		f.gone = f.gone[1:]
	}
	return nil
}

// TestChurn: endpoints are added, removed and killed without a word, and
// certificates and routes replaced, ten times a second under full load. No request
// fails and no connection of a client is closed.
func TestChurn(t *testing.T) {
	t.Parallel()
	r := newRig(t, gateway.Config{})
	r.site(host, "web", nil)
	two := usual()
	two.Protocol = route.H2C
	r.site(twoHost, "two", two)
	f := &fleet{t: t, r: r, stay: []string{serve(t, echo("stay1")), serve(t, echo("stay2"))}}
	t.Cleanup(f.end)
	for range 4 {
		if err := f.start(); err != nil {
			t.Fatal(err)
		}
	}
	// The sockets open while there is nobody but those that stay.
	r.endpoints("web", f.stay...)
	sockets := openSockets(t, r)
	f.tell()

	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var wg sync.WaitGroup
	var requests, messages, lost atomic.Int64
	for _, c := range []struct {
		two  bool
		url  string
		each int
	}{
		{false, "http://" + host, 6}, {false, "https://" + host, 4}, {true, "http://" + host, 4}, {true, "https://" + host, 4},
		// Endpoints that are asked by HTTP/2.
		{true, "http://" + twoHost, 4},
	} {
		tr := r.transport(c.two)
		tr.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := r.dial(ctx, network, addr)
			return &watched{Conn: conn, lost: &lost}, err
		}
		// Asked by many at once, the client opens connections of HTTP/2 that it then
		// closes: one is to be there before.
		if !ask(ctx, t, tr, c.url, 1, &requests) {
			return
		}
		for range c.each {
			wg.Go(func() { ask(ctx, t, tr, c.url, 1<<62, &requests) })
		}
	}
	for _, c := range sockets {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil && !t.Failed(); i++ {
				swap(t, c, websocket.TextMessage, fmt.Appendf(nil, "message %d", i))
				messages.Add(1)
				pause()
			}
		})
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	changes := 0
	for end := time.Now().Add(churnFor(t)); time.Now().Before(end) && !t.Failed(); changes++ {
		<-tick.C
		if err := f.change(changes); err != nil {
			t.Error(err)
		}
	}
	stop()
	wg.Wait()
	t.Logf("%d changes, %d requests, %d messages, %d connections of clients", changes, requests.Load(), messages.Load(), r.e.Stats().Connections)
	if n := lost.Load(); n != 0 {
		t.Errorf("%d connections of clients were closed", n)
	}
	if requests.Load() < int64(changes) || messages.Load() < int64(changes) {
		t.Error("there was no load")
	}
}

// watched is a client's connection that counts if the other side closes it.
type watched struct {
	net.Conn
	lost   *atomic.Int64
	closed atomic.Bool
}

func (c *watched) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil && !c.closed.Swap(true) {
		c.lost.Add(1)
	}
	return n, err
}

func (c *watched) Close() error {
	c.closed.Store(true)
	return c.Conn.Close()
}

func openSockets(t *testing.T, r *rig) (out []*websocket.Conn) {
	for _, way := range ways {
		for range 2 {
			c, _ := r.websocket(t, way, "/ws")
			_ = c.SetReadDeadline(time.Now().Add(churnFor(t) + patience))
			_ = c.SetWriteDeadline(time.Now().Add(churnFor(t) + patience))
			out = append(out, c)
		}
	}
	return out
}

// ask asks on and on, or so many times. The bodies are small and the methods idempotent, as those of
// requests that may be sent again when a process dies under them.
func ask(ctx context.Context, t *testing.T, tr *http.Transport, url string, most int, requests *atomic.Int64) bool {
	for i := 0; i < most && ctx.Err() == nil; i++ {
		path, method, body := fmt.Sprintf("/%d", i), "GET", ""
		if i%4 == 0 {
			method, body = "PUT", strings.Repeat("b", i%5000)
		}
		req, err := http.NewRequest(method, url+path, strings.NewReader(body))
		if err == nil {
			err = same(tr, req, fmt.Sprintf("%s %s %d", method, path, len(body)))
		}
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
			return false
		}
		requests.Add(1)
	}
	return true
}
