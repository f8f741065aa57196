//go:build !linux

package gateway

import "syscall"

func deferAccept(_, _ string, _ syscall.RawConn) error { return nil }
