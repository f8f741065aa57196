//go:build !linux

package kernel

// CanAddRoutes says whether AddLocalRange may work: only on Linux.
func CanAddRoutes() bool { return false }
