//go:build unix

package cluster

import (
	"net"
	"syscall"

	"github.com/fingerpost/fingerpost/view/gateway/socket"
)

// probe looks whether an idle connection is still alive, without reading from
// it. The function is made once per connection, so that a look allocates
// nothing.
type probe struct {
	raw   syscall.RawConn
	check func(fd uintptr)
	ok    *bool
}

func newProbe(conn net.Conn) probe {
	secure := false
	if t, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn, secure = t.NetConn(), true
	}
	if s, ok := conn.(*socket.Conn); ok {
		conn = s.Conn
	}
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return probe{}
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return probe{}
	}
	p := probe{raw: raw, ok: new(bool)}
	alive := p.ok
	head := make([]byte, 5)
	p.check = func(fd uintptr) {
		n, _, err := syscall.Recvfrom(int(fd), head, syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		switch {
		case err == syscall.EAGAIN || err == syscall.EINTR:
			*alive = true
		case err != nil || n <= 0 || !secure:
			// Closed, reset, or a response to nothing.
			*alive = false
		default:
			*alive = !alert(head[:n])
		}
	}
	return p
}

// alive says whether the peer has neither closed the connection nor sent
// anything. One that cannot be looked at counts as alive.
func (p *probe) alive() bool {
	if p.raw == nil {
		return true
	}
	*p.ok = false
	return p.raw.Control(p.check) == nil && *p.ok
}
