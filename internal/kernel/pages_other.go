//go:build !linux

package kernel

// ReleaseStartPages does nothing here.
func ReleaseStartPages() error { return nil }
