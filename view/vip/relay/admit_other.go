//go:build !linux

package relay

import (
	"net/netip"

	"github.com/fingerpost/fingerpost/catalog"
)

// No other system has rules that lead here.

type doubt struct{}

func (*doubt) close() {}

func (*Relay) admit(catalog.Protocol, netip.AddrPort, netip.AddrPort) bool { return false }

func free(spot) bool { return false }
