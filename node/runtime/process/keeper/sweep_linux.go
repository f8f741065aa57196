package keeper

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"
)

// The processes of a container whose pid namespace is not its own are known by
// their mount namespace: each container has its own, whatever else it shares.
// The kernel gives the number of a namespace that is gone to the next one, of
// whoever on this machine, so the namespace is held open until they are gone.

func mountNamespace(pid int) string { return fmt.Sprintf("/proc/%d/ns/mnt", pid) }

// hold opens the mount namespace of a container that has been started, and gives
// its name.
func (k *Keeper) hold(c *container) string {
	k.forkMu.Lock() // until it is waited for, its number is nobody else's
	defer k.forkMu.Unlock()
	if k.children[c.child.pid] != c.child {
		return ""
	}
	return c.open(c.child.pid)
}

func (c *container) open(pid int) string {
	f, err := os.Open(mountNamespace(pid))
	if err != nil {
		return ""
	}
	name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	if err != nil || sameNamespace(int(f.Fd()), "/proc/self/ns/mnt") {
		_ = f.Close()
		return ""
	}
	c.mnt = f
	return name
}

// holdAdopted does the same for a container of another keeper, which runs.
func (c *container) holdAdopted() {
	if c.state.MntNS == "" {
		return
	}
	if name := c.open(c.state.PID); name != "" && (name != c.state.MntNS || !sameProcess(c.state.PID, c.state.Start)) {
		_ = c.mnt.Close()
		c.mnt = nil
	}
}

// left says which processes are the container's. nil: that cannot be told.
func (c *container) left() func(pid int) bool {
	if c.mnt != nil {
		return func(pid int) bool { return sameNamespace(int(c.mnt.Fd()), mountNamespace(pid)) }
	}
	if c.state.MntNS == "" || c.pod.pidNS < 0 {
		return nil
	}
	// It ended while there was no keeper, and its mount namespace with it, unless
	// it left something behind. That is in the pod's pid namespace, which is held,
	// and in there nothing was started since.
	return func(pid int) bool {
		ns, err := os.Readlink(mountNamespace(pid))
		return err == nil && ns == c.state.MntNS && sameNamespace(c.pod.pidNS, fmt.Sprintf("/proc/%d/ns/pid", pid))
	}
}

// sweep kills what a container that has ended left behind, and sees it go.
func (c *container) sweep() {
	mine := c.left()
	for range 400 {
		found := false
		entries, err := os.ReadDir("/proc")
		if err != nil || mine == nil {
			break
		}
		for _, e := range entries {
			if pid, err := strconv.Atoi(e.Name()); err == nil && mine(pid) {
				found = true
				syscall.Kill(pid, syscall.SIGKILL) //nolint:errcheck // it has just ended
			}
		}
		if !found {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	if c.mnt != nil {
		_ = c.mnt.Close()
		c.mnt = nil
	}
}
