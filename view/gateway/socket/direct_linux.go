package socket

import (
	"syscall"
	"unsafe"
)

// The calls never wait, as the descriptors are non-blocking. So the scheduler
// is not told about them, which is worth 50 ns each.

func sysRead(fd uintptr, p []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), 0, 0, 0)
	return int(n), errno
}

func sysWrite(fd uintptr, p []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), syscall.MSG_NOSIGNAL, 0, 0)
	return int(n), errno
}

// sysWriteBoth writes what it can of one and then the other.
func sysWriteBoth(fd uintptr, a, b []byte) (int, syscall.Errno) {
	var v [2]syscall.Iovec
	v[0].Base, v[1].Base = unsafe.SliceData(a), unsafe.SliceData(b)
	v[0].SetLen(len(a))
	v[1].SetLen(len(b))
	m := syscall.Msghdr{Iov: &v[0], Iovlen: 2}
	n, _, errno := syscall.RawSyscall(syscall.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(&m)), syscall.MSG_NOSIGNAL)
	return int(n), errno
}

// Acknowledge tells the peer at once what has arrived, which the kernel puts off
// for up to 40 ms: a peer that collects small writes (Nagle) waits for it before
// it sends more. Whoever is about to answer needs not call it.
func (c *Conn) Acknowledge() {
	if c.raw != nil {
		_ = c.raw.Control(func(fd uintptr) {
			_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_QUICKACK, 1)
		})
	}
}

// Unacknowledged is how much of what was written the peer's system has not
// confirmed. false: that cannot be told.
func (c *Conn) Unacknowledged() (n int, ok bool) {
	if c.raw == nil {
		return 0, false
	}
	var left int32
	err := c.raw.Control(func(fd uintptr) {
		_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, fd, syscall.TIOCOUTQ, uintptr(unsafe.Pointer(&left)))
		ok = errno == 0
	})
	return int(left), ok && err == nil
}
