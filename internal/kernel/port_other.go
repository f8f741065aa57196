//go:build !linux

package kernel

import "os"

// CanBindPrivileged says whether this process may listen on every port from 1
// to 1023.
func CanBindPrivileged() bool { return CanBindPort(1) }

// CanBindPort says whether this process has the right to listen on a port,
// whoever holds it now.
func CanBindPort(port uint16) bool { return port >= 1024 || os.Geteuid() == 0 }
