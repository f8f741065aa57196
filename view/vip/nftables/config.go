package nftables

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
	ReasonConflict    = vip.ReasonConflict          // another service has the address already
	ReasonCannotCheck = "CannotServeHealthCheck"    // the health check node port cannot be had
	ReasonUnsupported = "AddressFamilyNotSupported" // this kernel has no nftables for the family
)

// Config says what to serve. The zero value of a field means what its comment
// says.
type Config struct {
	Node     string // this node's name: endpoints of its own, traffic policy Local
	NodeZone string // "": zones play no part

	// NodeAddresses are where node ports answer. Empty: all addresses of this
	// machine but 127.0.0.0/8 and ::1.
	NodeAddresses []netip.Addr
	// PodCIDRs are the addresses of pods, of the whole cluster. What comes from
	// elsewhere to a ClusterIP is masqueraded. Empty: not known, then only this
	// machine's own traffic is.
	PodCIDRs []netip.Prefix
	// ServiceCIDRs are where ClusterIPs come from: what goes to one that no
	// service has is dropped. Empty: not known.
	ServiceCIDRs []netip.Prefix

	Table          string // name of the tables; "": "fingerpost"
	MasqueradeMark uint32 // the bit of packet marks that is ours; 0: 0x1000

	Log        *slog.Logger          // nil: no log
	Registerer prometheus.Registerer // nil: no metrics
	// Events is told what the owner of a service should know, once per cause.
	// It must return at once. nil: only the log.
	Events func(key catalog.Key, reason, message string)
	Now    func() time.Time // nil: time.Now

	// Resync is how often everything is compared with the kernel; 0: 30 s.
	Resync time.Duration

	// FlowsFirst makes each Apply wait until UDP flows to endpoints that left are
	// cut. Without it, changes in quick succession are cut together, soon after.
	FlowsFirst bool

	// Counters has the kernel count, for each endpoint, the connections and UDP
	// flows that it got. A table that was made without is made anew.
	Counters bool

	netns int // of tests: a namespace to work in; 0: this process's
}

// Sizes of transactions: the kernel works on one with its lock held, and
// attributes are at most 64 KiB.
const (
	frontsPerTransaction = 200
	elementsPerMessage   = 400
	maxAffinity          = 1 << 18 // clients remembered, per map
)

func (c Config) withDefaults() Config {
	if c.Table == "" {
		c.Table = "fingerpost"
	}
	if c.MasqueradeMark == 0 {
		c.MasqueradeMark = 0x1000
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
	if c.Resync == 0 {
		c.Resync = 30 * time.Second
	}
	c.NodeAddresses = slices.Clone(c.NodeAddresses)
	for i := range c.NodeAddresses {
		c.NodeAddresses[i] = c.NodeAddresses[i].Unmap()
	}
	return c
}
