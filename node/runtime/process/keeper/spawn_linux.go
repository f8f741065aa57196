package keeper

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	goruntime "runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/fingerpost/fingerpost/node/runtime/process/stage"
)

// child is a process that this keeper started and waits for.
type child struct {
	pid    int
	start  uint64 // in the kernel's ticks: with pid it names the process for ever
	done   chan struct{}
	status syscall.WaitStatus // after done
}

// reap waits for all children, as one goroutine instead of a thread for each.
func (k *Keeper) reap() {
	sig := make(chan os.Signal, 1)
	signal.Notify(sig, syscall.SIGCHLD)
	for range sig {
		k.reapAll()
	}
}

func (k *Keeper) reapAll() {
	for {
		// The lock: a child must be known before it can be waited for, and
		// may not be signalled after.
		k.forkMu.Lock()
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if c := k.children[pid]; c != nil && pid > 0 && (status.Exited() || status.Signaled()) {
			c.status = status
			delete(k.children, pid)
			close(c.done)
		}
		k.forkMu.Unlock()
		if pid <= 0 && !errors.Is(err, syscall.EINTR) {
			return
		}
	}
}

// signal sends a signal to a child that was not waited for yet.
func (k *Keeper) signal(c *child, sig syscall.Signal) {
	k.forkMu.Lock()
	defer k.forkMu.Unlock()
	if k.children[c.pid] == c {
		syscall.Kill(c.pid, sig) //nolint:errcheck // a zombie is fine
	}
}

// launch is a stage to be started.
type launch struct {
	spec  stage.Spec
	stdio [3]int
	netNS, utsNS, ipcNS, mntNS, cgroupNS,
	pidNS int // -1: none
	newPID bool
	dir    int // of a cgroup to be born in; -1: none
	// born is called with the process before it knows what to do.
	born func(*child) error
}

func newLaunch() *launch {
	return &launch{netNS: -1, utsNS: -1, ipcNS: -1, mntNS: -1, cgroupNS: -1, pidNS: -1, dir: -1, stdio: [3]int{-1, -1, -1}}
}

// stageError is what a stage said went wrong.
type stageError struct {
	reason string
	cannot bool // the command, not the container
}

func (e *stageError) Error() string { return e.reason }

// run starts a stage and returns when its command was executed, with the
// keeper's end of the terminal if there is one (else -1). On an error the child
// may be there as well; it is ending.
func (k *Keeper) run(l *launch) (*child, int, error) {
	k.starting <- struct{}{}
	defer func() { <-k.starting }()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, -1, fmt.Errorf("socket to the stage: %w", err)
	}
	defer unix.Close(pair[0]) //nolint:errcheck
	files := []uintptr{0, 0, 0, uintptr(pair[1])}
	for i, fd := range l.stdio {
		if fd < 0 {
			fd = k.null
		}
		files[i] = uintptr(fd)
	}
	pass := func(fd int, to *int) {
		if fd >= 0 {
			*to = len(files)
			files = append(files, uintptr(fd))
		}
	}
	pass(l.netNS, &l.spec.NetFD)
	pass(l.utsNS, &l.spec.UTSFD)
	pass(l.ipcNS, &l.spec.IPCFD)
	pass(l.mntNS, &l.spec.MntFD)
	pass(l.cgroupNS, &l.spec.CgroupFD)
	data, err := json.Marshal(&l.spec)
	if err != nil {
		unix.Close(pair[1]) //nolint:errcheck
		return nil, -1, err
	}
	attr := &syscall.ProcAttr{Dir: "/", Env: []string{"GOGC=off", "GOMAXPROCS=1"}, Files: files, Sys: &syscall.SysProcAttr{Setsid: true}}
	if l.newPID {
		attr.Sys.Cloneflags |= unix.CLONE_NEWPID
	}
	if l.dir >= 0 {
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, l.dir
	}
	c, err := k.fork(attr, l.pidNS)
	unix.Close(pair[1]) //nolint:errcheck
	if err != nil {
		return nil, -1, err
	}
	if l.born != nil {
		if err := l.born(c); err != nil {
			k.signal(c, syscall.SIGKILL)
			return c, -1, err
		}
	}
	tty, err := converse(pair[0], data)
	if err != nil {
		k.signal(c, syscall.SIGKILL)
		if tty >= 0 {
			unix.Close(tty) //nolint:errcheck
		}
		return c, -1, err
	}
	return c, tty, nil
}

// fork starts a process of our own program in a pid namespace.
func (k *Keeper) fork(attr *syscall.ProcAttr, pidNS int) (c *child, err error) {
	start := func() {
		k.forkMu.Lock()
		defer k.forkMu.Unlock()
		pid, e := syscall.ForkExec("/proc/self/exe", []string{stage.Name}, attr)
		if e != nil {
			err = fmt.Errorf("start a process: %w", e)
			return
		}
		c = &child{pid: pid, done: make(chan struct{})}
		k.children[pid] = c
		c.start, _ = startTime(pid)
	}
	if pidNS < 0 {
		start()
		return c, err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		// The thread is not given back: it ends with this goroutine.
		goruntime.LockOSThread()
		if e := unix.Setns(pidNS, unix.CLONE_NEWPID); e != nil {
			err = fmt.Errorf("join the pid namespace: %w", e)
			return
		}
		start()
	}()
	<-done
	return c, err
}

// converse tells a stage what to do and hears how it went.
func converse(fd int, data []byte) (tty int, err error) {
	tty = -1
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 60}) //nolint:errcheck // else it waits longer
	for len(data) > 0 {
		n, err := unix.SendmsgN(fd, data, nil, nil, unix.MSG_NOSIGNAL)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return tty, fmt.Errorf("tell the stage what to do: %w", err)
		}
		data = data[n:]
	}
	unix.Shutdown(fd, unix.SHUT_WR) //nolint:errcheck // then the stage is gone, as Recvmsg tells
	var said []byte
	buf, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4*4))
	for {
		n, oobn, _, _, err := unix.Recvmsg(fd, buf, oob, unix.MSG_CMSG_CLOEXEC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return tty, fmt.Errorf("the stage does not answer: %w", err)
		}
		if oobn > 0 {
			if msgs, err := unix.ParseSocketControlMessage(oob[:oobn]); err == nil {
				for i := range msgs {
					if fds, err := unix.ParseUnixRights(&msgs[i]); err == nil && len(fds) > 0 {
						tty = fds[0]
					}
				}
			}
		}
		if n == 0 {
			break
		}
		said = append(said, buf[:n]...)
	}
	text := strings.TrimPrefix(string(said), string(rune(stage.SaysTTY)))
	switch {
	case text == string(rune(stage.SaysReady)):
		return tty, nil
	case text == "":
		return tty, &stageError{reason: "killed while it was being set up (is the memory limit too small?)"}
	}
	text = strings.TrimPrefix(text, string(rune(stage.SaysReady)))
	return tty, &stageError{reason: text[1:], cannot: text[0] == stage.SaysCannot}
}

// startTime of a process, in ticks since the machine's start.
func startTime(pid int) (uint64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name in parentheses may hold anything.
	f := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	if len(f) < 20 {
		return 0, fmt.Errorf("/proc/%d/stat is short", pid)
	}
	if f[0] == "Z" || f[0] == "X" {
		return 0, os.ErrProcessDone
	}
	return strconv.ParseUint(f[19], 10, 64)
}
