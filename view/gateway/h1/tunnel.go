package h1

import (
	"net"
	"time"

	"github.com/fingerpost/fingerpost/view/gateway/socket"
)

// tunnel is a connection after HTTP. What was read ahead comes first.
type tunnel struct {
	c     net.Conn
	ahead []byte
}

// newTunnel takes what was read ahead out of the buffers: they go back to the
// pool while the tunnel lives on.
func newTunnel(c net.Conn, in *input) *tunnel {
	t := &tunnel{c: c}
	if in.cur != nil && in.r < in.w {
		t.ahead = append(t.ahead, in.cur.B[in.r:in.w]...)
		in.r = in.w
	}
	return t
}

func (t *tunnel) Read(p []byte) (int, error) {
	if len(t.ahead) > 0 {
		n := copy(p, t.ahead)
		t.ahead = t.ahead[n:]
		return n, nil
	}
	return t.c.Read(p)
}

// ReadBuffer is Read that takes a buffer only when bytes are there.
func (t *tunnel) ReadBuffer(s socket.Size) (*socket.Buffer, int, error) {
	if k, ok := t.c.(*socket.Conn); ok && len(t.ahead) == 0 {
		return k.ReadBuffer(s)
	}
	// Over TLS waiting without one would give single bytes: a small one is kept.
	b := socket.Get(socket.Small)
	n, err := t.Read(b.B)
	if n == 0 {
		b.Put()
		return nil, 0, err
	}
	return b, n, err
}

func (t *tunnel) Write(p []byte) (int, error) { return t.c.Write(p) }

func (t *tunnel) CloseWrite() error {
	if k, ok := t.c.(interface{ CloseWrite() error }); ok {
		return k.CloseWrite()
	}
	return t.c.Close()
}

func (t *tunnel) Close() error                       { return t.c.Close() }
func (t *tunnel) SetReadDeadline(d time.Time) error  { return t.c.SetReadDeadline(d) }
func (t *tunnel) SetWriteDeadline(d time.Time) error { return t.c.SetWriteDeadline(d) }
