//go:build !linux

package viptest

// Alone needs Linux.
func Alone() bool { return false }
