package kernel

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// CanBindPrivileged says whether this process may listen on every port from 1
// to 1023.
func CanBindPrivileged() bool { return CanBindPort(1) }

// CanBindPort says whether this process has the right to listen on a port,
// whoever holds it now.
func CanBindPort(port uint16) bool {
	return port >= unprivilegedStart() || hasCapability(unix.CAP_NET_BIND_SERVICE)
}

// unprivilegedStart reads the first port that needs no rights: 1024 unless the
// administrator chose another, per network namespace, since Linux 4.11.
func unprivilegedStart() uint16 {
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	if err != nil {
		return 1024
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 16)
	if err != nil {
		return 1024
	}
	return uint16(n)
}

func hasCapability(bit int) bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return os.Geteuid() == 0
	}
	return data[bit/32].Effective&(1<<(bit%32)) != 0
}
