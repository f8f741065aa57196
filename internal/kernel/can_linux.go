package kernel

import "golang.org/x/sys/unix"

// CanAddRoutes says whether AddLocalRange may work: CAP_NET_ADMIN.
func CanAddRoutes() bool { return hasCapability(unix.CAP_NET_ADMIN) }
