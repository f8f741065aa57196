package vip

import (
	"net/netip"

	"github.com/fingerpost/fingerpost/catalog"
)

// Hit is how many connections, and flows of datagrams, an endpoint was chosen
// for as one of a service's port. What is zero may be left out; what counts
// several frontends of the port apart gives several.
type Hit struct {
	Service catalog.Key      `json:"service"`
	Port    string           `json:"port,omitempty"` // the name of the service's port
	Proto   catalog.Protocol `json:"protocol"`
	Backend netip.AddrPort   `json:"backend"`
	Count   uint64           `json:"count"`
}

// HitCounter is a driver that counts. An endpoint that left and came back may
// begin anew.
type HitCounter interface {
	// Hits gives the counts so far. ok is false if this one does not count.
	Hits() (hits []Hit, ok bool, err error)
}
