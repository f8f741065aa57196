//go:build !linux

package userspace

import (
	"io"
	"net"
)

// copier copies streams.
type copier struct{}

// copy copies until the end of from.
func (copier) copy(to, from *net.TCPConn) (int64, error) {
	buf := make([]byte, 16<<10)
	return io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, buf)
}
