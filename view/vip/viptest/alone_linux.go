package viptest

import (
	"fmt"
	"os"
	"runtime"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Alone starts the test binary again in a network namespace of its own, so that
// no other program takes a port that a test has chosen or hears what it sends.
// It returns in there; it says false where that cannot be had, which takes root.
// Ports from 10000 to 29999 are nobody's but those that tests give out: what the
// kernel chooses begins above. Call it from TestMain; [Main] does.
func Alone() bool {
	if os.Getenv(aloneEnv) != "" {
		return true
	}
	runtime.LockOSThread() // what a thread has when it calls execve, the program has
	defer runtime.UnlockOSThread()
	if os.Geteuid() != 0 || unix.Unshare(unix.CLONE_NEWNET) != nil {
		return false
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err == nil {
		err = os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte("32768 60999"), 0)
	}
	if err == nil {
		err = syscall.Exec("/proc/self/exe", os.Args, append(os.Environ(), aloneEnv+"=1"))
	}
	fmt.Fprintln(os.Stderr, "viptest: start again in a network namespace:", err)
	os.Exit(1)
	return false
}
