//go:build !linux

package kernel

import "net/netip"

// AddReach does nothing: there are no rules that need a route.
func AddReach(netip.Prefix) (bool, error) { return false, nil }

// RemoveReach does nothing.
func RemoveReach(netip.Prefix) error { return nil }
