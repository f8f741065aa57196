package iptables

import (
	"fmt"
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
	ReasonConflict    = vip.ReasonConflict       // another service has the address already
	ReasonCannotCheck = "CannotServeHealthCheck" // the health check node port cannot be had
	ReasonUnsupported = "NotSupported"           // this kernel has no iptables for the family, protocol or affinity
)

// Flavours of iptables.
const (
	Auto   = "auto"   // the one whose rules there are more of; else what iptables is on PATH
	Legacy = "legacy" // xtables
	NFT    = "nft"    // nf_tables with the language of iptables
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
	// service has is dropped, and to a port that its service does not have
	// rejected. Empty: not known, then neither is.
	ServiceCIDRs []netip.Prefix

	Flavour        string // auto, legacy or nft; "": auto
	MasqueradeMark uint32 // the bit of packet marks that is ours; 0: 0x4000

	Log        *slog.Logger          // nil: no log
	Registerer prometheus.Registerer // nil: no metrics
	// Events is told what the owner of a service should know, once per cause.
	// It must return at once. nil: only the log.
	Events func(key catalog.Key, reason, message string)
	Now    func() time.Time // nil: time.Now

	// Resync is how often everything is compared with the kernel; 0: 30 s.
	// At size it takes longer: a comparison may use 2 % of a CPU.
	Resync time.Duration

	// slowLook is how long a look at all UDP flows may take to be done before
	// Apply returns; where it takes longer, Run does it for many changes at
	// once. 0: 1 s. Tests look at once, on machines however slow.
	slowLook time.Duration
}

func (c Config) withDefaults() (Config, error) {
	switch c.Flavour {
	case "":
		c.Flavour = Auto
	case Auto, Legacy, NFT:
	default:
		return c, fmt.Errorf("iptables: read the configuration: flavour %q is not known; use %s, %s or %s", c.Flavour, Auto, Legacy, NFT)
	}
	if c.MasqueradeMark == 0 {
		c.MasqueradeMark = 0x4000
	}
	if c.MasqueradeMark&(c.MasqueradeMark-1) != 0 {
		return c, fmt.Errorf("iptables: read the configuration: masquerade mark %#x has more than one bit", c.MasqueradeMark)
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
	if c.slowLook == 0 {
		c.slowLook = time.Second
	}
	c.NodeAddresses = slices.Clone(c.NodeAddresses)
	for i := range c.NodeAddresses {
		c.NodeAddresses[i] = c.NodeAddresses[i].Unmap()
	}
	return c, nil
}

// ofFamily gives the prefixes of one family.
func ofFamily(all []netip.Prefix, v6 bool) (out []netip.Prefix) {
	for _, p := range all {
		if p.IsValid() && p.Addr().Is6() == v6 {
			out = append(out, p.Masked())
		}
	}
	return out
}
