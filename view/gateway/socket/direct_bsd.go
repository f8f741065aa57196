//go:build unix && !linux

package socket

import "syscall"

func sysRead(fd uintptr, p []byte) (int, syscall.Errno) {
	n, err := syscall.Read(int(fd), p)
	return n, number(err)
}

func sysWrite(fd uintptr, p []byte) (int, syscall.Errno) {
	n, err := syscall.Write(int(fd), p)
	return n, number(err)
}

func sysWriteBoth(fd uintptr, a, _ []byte) (int, syscall.Errno) { return sysWrite(fd, a) }

func number(err error) syscall.Errno {
	if err == nil {
		return 0
	}
	if e, ok := err.(syscall.Errno); ok {
		return e
	}
	return syscall.EIO
}

// Acknowledge does nothing here.
func (c *Conn) Acknowledge() {}

// Unacknowledged cannot be told here.
func (c *Conn) Unacknowledged() (n int, ok bool) { return 0, false }
