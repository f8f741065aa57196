package server

import (
	"net/netip"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/internal/kernel"
	"github.com/fingerpost/fingerpost/view/vip"
	loopback "github.com/fingerpost/fingerpost/view/vip/relay"
)

// VIPHits is what a node's proxy tells at /vip/hits, beside its metrics.
type VIPHits struct {
	Counts bool      `json:"counts"` // everything: what is not in Hits is zero
	Hits   []vip.Hit `json:"hits,omitempty"`
	// Relays are the addresses that rules have in the place of endpoints on
	// loopback addresses: "192.0.0.8:61234/TCP" and the endpoint.
	Relays map[string]netip.AddrPort `json:"relays,omitempty"`
	Error  string                    `json:"error,omitempty"`
}

// relayed puts relays before a driver whose packets do not get to loopback
// addresses.
func (c *Config) relayed(d driver, err error, events func(catalog.Key, string, string)) (driver, error) {
	if err != nil {
		return nil, err
	}
	return loopback.New(loopback.Config{Node: c.NodeName, Log: c.Log, Registerer: c.Registry, Events: events}, d)
}

// reachable is relayed, and node ports answer on loopback addresses as well.
func (c *Config) reachable(d driver, err error, events func(catalog.Key, string, string)) (driver, error) {
	if d, err = c.relayed(d, err, events); err != nil {
		return nil, err
	}
	return c.withLocalhost(d, events)
}

// endRelays gives up the addresses of relays, to which no rule leads any more.
func (c *Config) endRelays() {
	if !kernel.CanAddRoutes() {
		return
	}
	if err := loopback.Cleanup(loopback.Config{}); err != nil {
		c.Log.Debug("addresses of relays were left behind", "error", err)
	}
}

func hitsOf(d driver) (h VIPHits) {
	var err error
	if c, ok := d.(vip.HitCounter); ok {
		h.Hits, h.Counts, err = c.Hits()
	}
	if err != nil {
		h.Counts, h.Error = false, err.Error()
	}
	switch b := d.(type) {
	case both:
		d = b.outside
	case localhost:
		d = b.outside
	}
	if r, ok := d.(*loopback.Relay); ok {
		h.Relays = r.Relays()
	}
	return h
}

// Hits implements [vip.HitCounter]: what comes from outside counts only if the
// rules do.
func (d both) Hits() ([]vip.Hit, bool, error) {
	c, ok := d.inside.(vip.HitCounter)
	if !ok {
		return nil, false, nil
	}
	hits, ok, err := c.Hits()
	if c, counts := d.outside.(vip.HitCounter); counts && err == nil {
		var more []vip.Hit
		more, _, err = c.Hits()
		hits = append(hits, more...)
	}
	return hits, ok, err
}
