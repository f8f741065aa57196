package server

import (
	"net/netip"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/vip"
	"github.com/fingerpost/fingerpost/view/vip/userspace"
)

// localhost serves node ports on loopback addresses beside a driver whose rules
// cannot: inside is what does, outside the rules.
type localhost struct{ both }

// withLocalhost adds that where node ports are to answer on loopback addresses.
func (c *Config) withLocalhost(rules driver, events func(catalog.Key, string, string)) (driver, error) {
	var at []netip.Addr
	for _, a := range c.NodeAddrs {
		if a.IsLoopback() {
			at = append(at, a)
		}
	}
	if len(at) == 0 {
		return rules, nil
	}
	d, err := userspace.New(userspace.Config{
		Node: c.NodeName, NodeZone: c.NodeZone, NodeAddresses: at, NodePortsOnly: true, Log: c.Log,
		Events: func(k catalog.Key, reason, message string) {
			if reason != vip.ReasonConflict { // the rules' driver tells that
				events(k, reason, message)
			}
		},
	})
	if err != nil {
		return nil, err
	}
	return localhost{both{d, rules}}, nil
}

// Hits implements [vip.HitCounter]. What came by loopback is added to what the
// rules have counted; if they have not, ok is false.
func (d localhost) Hits() (hits []vip.Hit, ok bool, err error) {
	if c, counts := d.outside.(vip.HitCounter); counts {
		hits, ok, err = c.Hits()
	}
	if c, counts := d.inside.(vip.HitCounter); counts && err == nil {
		var more []vip.Hit
		more, _, err = c.Hits()
		hits = append(hits, more...)
	}
	return hits, ok, err
}
