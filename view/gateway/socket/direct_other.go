//go:build !unix

package socket

import "syscall"

const able = false

const (
	eintr  = syscall.EINTR
	eagain = syscall.EAGAIN
)

func sysRead(uintptr, []byte) (int, syscall.Errno) { return 0, syscall.EINVAL }

func sysWrite(uintptr, []byte) (int, syscall.Errno) { return 0, syscall.EINVAL }

func sysWriteBoth(uintptr, []byte, []byte) (int, syscall.Errno) { return 0, syscall.EINVAL }

func (c *Conn) tryRead(uintptr) bool  { return true }
func (c *Conn) tryWrite(uintptr) bool { return true }

// Acknowledge does nothing here.
func (c *Conn) Acknowledge() {}

// Unacknowledged cannot be told here.
func (c *Conn) Unacknowledged() (n int, ok bool) { return 0, false }
