package keeper

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pidfdInfo is struct pidfd_info of <linux/pidfd.h> (Linux 6.15).
type pidfdInfo struct {
	mask            uint64
	cgroupID        uint64
	pid, tgid, ppid uint32
	ids             [8]uint32
	exitCode        int32
}

const (
	pidfdGetInfo  = 0xc0000000 | unsafe.Sizeof(pidfdInfo{})<<16 | 0xff<<8 | 11 // _IOWR(0xff, 11, struct pidfd_info)
	pidfdInfoExit = 1 << 3
)

// exitOf asks the kernel how a process ended that is not our child. Kernels
// before 6.15 do not tell, and none does before the process was waited for.
func exitOf(fd int) (syscall.WaitStatus, bool) {
	for range 50 {
		info := pidfdInfo{mask: pidfdInfoExit}
		_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), pidfdGetInfo, uintptr(unsafe.Pointer(&info)))
		if e == 0 && info.mask&pidfdInfoExit != 0 {
			return syscall.WaitStatus(info.exitCode), true
		}
		if e != 0 && e != unix.ESRCH {
			return 0, false
		}
		// Its parent has not waited for it yet.
		unix.Nanosleep(&unix.Timespec{Nsec: 2e6}, nil) //nolint:errcheck
	}
	return 0, false
}
