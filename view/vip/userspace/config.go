package userspace

import (
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/vip"
)

// Reasons that go with Config.Events.
const (
	ReasonCannotListen = "CannotListen"         // the address or port cannot be had
	ReasonConflict     = vip.ReasonConflict     // another service has the address already
	ReasonLoop         = "EndpointLoop"         // an endpoint is an address of the proxy itself
	ReasonUnsupported  = "ProtocolNotSupported" // SCTP
)

// Config says what to serve and within which bounds. The zero value of a field
// means what its comment says.
type Config struct {
	Node     string // this node's name: endpoints of its own, traffic policy Local
	NodeZone string // "": zones play no part

	// NodeAddresses are where node ports listen, and what counts as this node
	// for externalTrafficPolicy Local. Empty: 127.0.0.1 and ::1.
	NodeAddresses []netip.Addr
	// NodePortsOnly: nothing else is listened on. For node ports on loopback
	// addresses, beside a driver whose packets do not leave those.
	NodePortsOnly bool
	// Owned says which ExternalIPs and load balancer addresses to listen on.
	// nil: none.
	Owned func(netip.Addr) bool
	// Admit is asked about each client before it is served, a UDP client once
	// for a flow: at is the address it sent to. nil: everybody may come.
	Admit func(proto catalog.Protocol, client, at netip.AddrPort) bool

	Log        *slog.Logger          // nil: no log
	Registerer prometheus.Registerer // nil: no metrics
	// Events is told what the owner of a service should know, once per cause.
	// It must return at once. nil: only the log.
	Events func(key catalog.Key, reason, message string)
	Now    func() time.Time // nil: time.Now

	DialTimeout    time.Duration // for one endpoint; 0: 1 s
	UDPIdle        time.Duration // 0: 30 s
	Drain          time.Duration // how long Run waits for connections at the end; 0: 5 s, negative: not at all
	MaxConnections int           // TCP connections at once; 0: what the open files allow
	MaxFlows       int           // UDP flows at once, one descriptor each; 0: 16,384
	MaxAffinity    int           // remembered clients; 0: 65,536

	net network // tests choose it
}

const (
	// TCP keepalive towards clients and endpoints: a peer that vanished
	// without a word is noticed after 60+5×15 seconds.
	keepAliveIdle     = 60
	keepAliveInterval = 15
	keepAliveCount    = 5

	// suspicion is how long an endpoint that failed is avoided. Health checks
	// take over from there.
	suspicion = 5 * time.Second

	retryFirst = time.Second
	retryMost  = time.Minute
)

func (c Config) withDefaults() Config {
	if len(c.NodeAddresses) == 0 {
		c.NodeAddresses = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
	}
	c.NodeAddresses = slices.Clone(c.NodeAddresses)
	for i := range c.NodeAddresses {
		c.NodeAddresses[i] = c.NodeAddresses[i].Unmap()
	}
	if c.Owned == nil {
		c.Owned = func(netip.Addr) bool { return false }
	}
	if c.Admit == nil {
		c.Admit = func(catalog.Protocol, netip.AddrPort, netip.AddrPort) bool { return true }
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Events == nil {
		c.Events = func(catalog.Key, string, string) {}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	c.DialTimeout = orDuration(c.DialTimeout, time.Second)
	c.UDPIdle = orDuration(c.UDPIdle, 30*time.Second)
	c.Drain = orDuration(c.Drain, 5*time.Second)
	c.MaxFlows = orInt(c.MaxFlows, 16<<10)
	c.MaxAffinity = orInt(c.MaxAffinity, 64<<10)
	return c
}

func orDuration(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}

func orInt(n, otherwise int) int {
	if n <= 0 {
		return otherwise
	}
	return n
}
