package gateway

import (
	"fmt"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/gateway"
	"github.com/fingerpost/fingerpost/view/gateway/route"
)

// TestWebSocketLives: sockets outlive what happens around them: routes, endpoints,
// certificates.
func TestWebSocketLives(t *testing.T) {
	t.Parallel()
	r := web(t, gateway.Config{}, echo("one"))
	var live []*websocket.Conn
	for _, way := range ways {
		for range 3 {
			c, _ := r.websocket(t, way, "/ws")
			live = append(live, c)
		}
	}
	n := 0
	alive := func(after string) {
		t.Helper()
		for i, c := range live {
			n++
			swap(t, c, websocket.TextMessage, fmt.Appendf(nil, "%d after %s", n, after))
			if t.Failed() {
				t.Fatalf("socket %d after %s", i, after)
			}
		}
		if got := r.e.Stats().Tunnels; got != len(live) {
			t.Errorf("%d tunnels after %s", got, after)
		}
	}
	served := func() string {
		c, resp := r.websocket(t, "ws", "/ws")
		c.Close()
		return resp.Header.Get("Served-By")
	}
	alive("the beginning")
	for i := range 20 {
		r.site(fmt.Sprintf("host%d.example.com", i), "web", nil)
		r.site(host, "web", nil)
	}
	until(t, "closed sockets are gone", func() bool { return r.e.Stats().Tunnels == len(live) })
	alive("new routes")
	for range 10 {
		r.e.SetRoutes(route.Update{Certificates: map[string]*route.Certificate{"wildcard": {Hosts: wildcard, Chain: r.ca.leaf(t, wildcard...)}}})
	}
	alive("new certificates")

	// The endpoint drains: it serves what it has, and new ones go elsewhere.
	one := r.cat.Snapshot().Get(service("web")).Endpoints[0]
	one.Ready, one.Terminating = false, true
	second := serve(t, echo("two"))
	r.endpoints("drained", second)
	two := r.cat.Snapshot().Get(service("drained")).Endpoints[0]
	r.set("web", []catalog.Endpoint{one, two})
	alive("the endpoint began to end")
	for range 10 {
		if by := served(); by != "two" {
			t.Errorf("a new socket at %s", by)
		}
	}
	r.endpoints("web", second)
	until(t, "closed sockets are gone", func() bool { return r.e.Stats().Tunnels == len(live) })
	alive("the endpoint was removed")
	r.endpoints("web")
	alive("the service has no endpoint")
	r.e.SetRoutes(route.Update{Replace: true})
	alive("all routes were removed")
}

// TestWebSocketDrain: a gateway that shuts down leaves sockets half of the time
// it has, and ends them then.
func TestWebSocketDrain(t *testing.T) {
	t.Parallel()
	r := web(t, gateway.Config{Timeouts: gateway.Timeouts{Drain: 12 * time.Second}}, echo("one"))
	var live []*websocket.Conn
	for _, way := range ways {
		c, _ := r.websocket(t, way, "/ws")
		live = append(live, c)
	}
	go r.stop()
	until(t, "the gateway drains", func() bool { ok, _ := r.e.Ready(); return !ok })
	for i, c := range live {
		swap(t, c, websocket.TextMessage, fmt.Appendf(nil, "%d while it drains", i))
	}
	for i, c := range live {
		if _, _, err := c.ReadMessage(); err == nil {
			t.Errorf("socket %d: a message from nowhere", i)
		}
		c.Close()
	}
	select {
	case <-r.stopped:
	case <-time.After(patience):
		t.Error("the gateway does not end")
	}
}
