//go:build !linux

package kernel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
)

// AddLocalRange needs Linux.
func AddLocalRange(prefix netip.Prefix) error {
	if _, err := checkRange(prefix); err != nil {
		return fmt.Errorf("kernel: add local range: %w", err)
	}
	return fmt.Errorf("kernel: add local range %s: %s cannot make a whole range local: %w; add the addresses one by one (`ifconfig lo0 alias <address>`)",
		prefix, runtime.GOOS, errors.ErrUnsupported)
}

// RemoveLocalRange has nothing to remove.
func RemoveLocalRange(netip.Prefix) error { return nil }

// IsLocalAddress says whether addr is an address of this machine.
func IsLocalAddress(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	all, err := net.InterfaceAddrs()
	if err != nil {
		return addr.IsLoopback()
	}
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok {
			if own, ok := netip.AddrFromSlice(n.IP); ok && own.Unmap() == addr {
				return true
			}
		}
	}
	return false
}
