package ebpf

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
	ReasonConflict = vip.ReasonConflict // another service has the address already
	ReasonFull     = "VirtualIPMapFull" // no room for the service in the kernel's maps
)

// Config says what to serve. The zero value of a field means what its comment
// says.
type Config struct {
	Node     string // this node's name: endpoints of its own, traffic policy Local
	NodeZone string // "": zones play no part

	// NodeAddresses are where node ports answer, besides 127.0.0.1 and ::1 of
	// this process's network namespace. Empty: all addresses of that namespace,
	// read again every few seconds.
	NodeAddresses []netip.Addr
	// NoLoopback: node ports do not answer on 127.0.0.1 and ::1.
	NoLoopback bool
	// GuardNodePorts refuses a node port to programs of the node's namespace
	// (EADDRINUSE): they would bind it, and their clients land at the service.
	GuardNodePorts bool
	// CgroupPath is the control group whose processes are served, with those
	// below it. "": the root of the cgroup2 hierarchy.
	CgroupPath string
	// PinPath is a directory, on a bpf file system, that keeps programs and maps
	// while no process has them. It is made if need be. "": they end with the
	// process.
	PinPath string

	Log        *slog.Logger          // nil: no log
	Registerer prometheus.Registerer // nil: no metrics
	// Events is told what the owner of a service should know, once per cause.
	// It must return at once. nil: only the log.
	Events func(key catalog.Key, reason, message string)
	Now    func() time.Time // nil: time.Now

	// Resync is how often everything is compared with the kernel; 0: 30 s.
	Resync time.Duration

	// Sizes of the kernel's maps. Pinned ones keep theirs until Cleanup.
	MaxFrontends int // 0: 128 Ki
	MaxSlots     int // endpoints of all frontends; 0: 1 Mi
	MaxFlows     int // sockets whose virtual IP is remembered; 0: 128 Ki
	MaxAffinity  int // clients and UDP sockets whose endpoint is; 0: 64 Ki

	// onlyNetns limits the driver to network namespaces, by their cookies: in a
	// test, machines that are not this one run under the same kernel.
	onlyNetns []uint64
}

// stickyUDP is how long an idle unconnected UDP socket keeps its endpoint: what
// conntrack gives a stream.
const stickyUDP = 2 * time.Minute

func (c Config) withDefaults() Config {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Events == nil {
		c.Events = func(catalog.Key, string, string) {}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Resync == 0 {
		c.Resync = 2 * time.Minute
	}
	c.NodeAddresses = slices.Clone(c.NodeAddresses)
	for i := range c.NodeAddresses {
		c.NodeAddresses[i] = c.NodeAddresses[i].Unmap()
	}
	for n, otherwise := range map[*int]int{
		&c.MaxFrontends: 128 << 10, &c.MaxSlots: 1 << 20, &c.MaxFlows: 128 << 10, &c.MaxAffinity: 64 << 10,
	} {
		if *n <= 0 {
			*n = otherwise
		}
	}
	return c
}
