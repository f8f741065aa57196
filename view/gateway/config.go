package gateway

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fingerpost/fingerpost/view/gateway/cert"
	"github.com/fingerpost/fingerpost/view/gateway/cluster"
	"github.com/fingerpost/fingerpost/view/gateway/filter"
	"github.com/fingerpost/fingerpost/view/gateway/observe"
	"github.com/fingerpost/fingerpost/wire/http/h1"
)

// Listener is an address where clients connect.
type Listener struct {
	Addr string // host:port; ":80" is every address
	TLS  bool
	// Proxied are the addresses that begin connections with a PROXY protocol
	// header, such as a load balancer's. From others it is not understood.
	Proxied []netip.Prefix
}

// Config is what an Engine needs. The zero value of each member has a default.
type Config struct {
	Listeners  []Listener
	Node, Zone string // where the gateway runs, to prefer near endpoints
	// Class names the gateway in its own answers ("Server"); "": fingerpost.
	Name string

	Timeouts Timeouts
	Limits   Limits
	Cluster  cluster.Config // Node, Zone, Dial, codecs and Log are filled in
	Filter   filter.Config

	// Certificates is how TLS towards clients is done.
	Certificates cert.Config

	Log        *slog.Logger
	Registerer prometheus.Registerer // nil: no metrics
	// NoAliases leaves out the metrics under the names of ingress-nginx.
	NoAliases bool
	AccessLog *observe.LogConfig // nil: none
	Now       func() time.Time   // nil: time.Now
}

// Timeouts are how long the gateway waits. Policies of rules may say otherwise
// for endpoints.
type Timeouts struct {
	Handshake time.Duration // of TLS, and the PROXY header; 0: 10 s
	Head      time.Duration // for a whole head; 0: 15 s
	Idle      time.Duration // of a client's connection between requests; 0: 75 s
	BodyRead  time.Duration // between two reads of a request's body; 0: 60 s
	Write     time.Duration // between two writes to a client; 0: 60 s
	Connect   time.Duration // to an endpoint; 0: 5 s
	Read      time.Duration // between two reads from an endpoint; 0: 60 s
	Send      time.Duration // between two writes to an endpoint; 0: 60 s
	Tunnel    time.Duration // of a tunnel without bytes; 0: 1 h
	Drain     time.Duration // for exchanges under way at shutdown; 0: 30 s
	// Lameduck goes on accepting for so long after shutdown began, so that load
	// balancers notice (Ready says no); 0: none.
	Lameduck time.Duration
}

// Limits bound what clients may cost.
type Limits struct {
	Head        h1.Limits
	Body        int64 // of a request, if the policy says nothing; 0: 1 GiB, -1: none
	Connections int   // of clients; 0: 65536
	// BodyRate is what a client must send of a body with a known length on
	// average, in bytes per second, after BodyGrace; 0: 240, -1: any.
	BodyRate  int
	BodyGrace time.Duration // of waiting for the client; 0: 30 s
}

func (c *Config) complete() error {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Name == "" {
		c.Name = "fingerpost"
	}
	t := &c.Timeouts
	for _, d := range []struct {
		value *time.Duration
		other time.Duration
	}{
		{&t.Handshake, 10 * time.Second}, {&t.Head, 15 * time.Second}, {&t.Idle, 75 * time.Second},
		{&t.BodyRead, time.Minute}, {&t.Write, time.Minute}, {&t.Connect, 5 * time.Second},
		{&t.Read, time.Minute}, {&t.Send, time.Minute}, {&t.Tunnel, time.Hour}, {&t.Drain, 30 * time.Second},
	} {
		if *d.value < 0 {
			return errors.New("gateway: a timeout is negative: use 0 for the default")
		}
		if *d.value == 0 {
			*d.value = d.other
		}
	}
	l := &c.Limits
	if l.Body == 0 {
		l.Body = 1 << 30
	}
	if l.Connections <= 0 {
		l.Connections = 65536
	}
	if l.BodyRate == 0 {
		l.BodyRate = 240
	}
	if l.BodyGrace <= 0 {
		l.BodyGrace = 30 * time.Second
	}
	seen := map[string]bool{}
	for _, x := range c.Listeners {
		if seen[x.Addr] && x.Addr[max(0, len(x.Addr)-2):] != ":0" {
			return fmt.Errorf("gateway: two listeners for %s: remove one", x.Addr)
		}
		seen[x.Addr] = true
	}
	return nil
}
