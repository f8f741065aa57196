package gateway

import "syscall"

// deferAccept lets connections be accepted when their first bytes are there, or
// after a second: in all protocols spoken here the client begins. That saves
// waking up twice for a connection.
func deferAccept(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		// Without it everything works, too.
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_DEFER_ACCEPT, 1)
	})
}
