//go:build !linux

package conntrack

import "net/netip"

// Cut deletes flows. Only Linux has such.
func Cut([]netip.Addr, func(*Flow) bool) (int, error) { return 0, nil }
