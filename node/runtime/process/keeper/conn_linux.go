package keeper

import (
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Conn is a connection of either side that carries descriptors.
type Conn struct {
	*net.UnixConn
	fds []int // that came and that nobody took
}

// Send writes a message with descriptors, which stay the caller's.
func (c *Conn) Send(v any, fds ...int) error {
	data, err := Encode(v)
	if err != nil {
		return err
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	n, _, err := c.WriteMsgUnix(data, oob, nil)
	if err == nil && n < len(data) {
		_, err = c.Write(data[n:])
	}
	return err
}

// Read implements io.Reader, and keeps the descriptors that come along.
func (c *Conn) Read(p []byte) (int, error) {
	oob := make([]byte, unix.CmsgSpace(4*8))
	n, oobn, _, _, err := c.ReadMsgUnix(p, oob)
	if oobn > 0 {
		if msgs, err := unix.ParseSocketControlMessage(oob[:oobn]); err == nil {
			for i := range msgs {
				if fds, err := unix.ParseUnixRights(&msgs[i]); err == nil {
					c.fds = append(c.fds, fds...)
				}
			}
		}
	}
	if err == nil && n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, err
}

// Receive reads a message and the descriptors that came with it, which become
// the caller's.
func (c *Conn) Receive(v any) ([]int, error) {
	if err := Decode(c, v); err != nil {
		return nil, err
	}
	fds := c.fds
	c.fds = nil
	return fds, nil
}

// Close closes the connection and descriptors that nobody took.
func (c *Conn) Close() error {
	closeAll(c.fds)
	c.fds = nil
	return c.UnixConn.Close()
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd) //nolint:errcheck // nothing to do about it
	}
}

// Dial connects to the keeper of a directory. The name of a socket is short
// (108 bytes) and directories are not, so it goes by a descriptor.
func Dial(dir string) (*Conn, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Net: "unix", Name: fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), Socket)})
	if err != nil {
		return nil, err
	}
	return &Conn{UnixConn: c}, nil
}
