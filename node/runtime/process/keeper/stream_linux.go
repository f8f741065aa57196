package keeper

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/fingerpost/fingerpost/node/runtime"
	"github.com/fingerpost/fingerpost/node/runtime/process/stage"
)

// running finds a container that streams can go to.
func (k *Keeper) running(id *runtime.ContainerID) (*container, error) {
	_, c := k.find(id)
	if c == nil {
		return nil, fmt.Errorf("container: %w", runtime.ErrNotFound)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if !c.state.Running() {
		return nil, fmt.Errorf("container %s does not run: %w", id.Name, runtime.ErrNotFound)
	}
	return c, nil
}

// exec runs a command in a container for as long as the client stays.
func (k *Keeper) exec(conn *Conn, q *Request, fds []int) {
	var r Reply
	code, err := k.execIn(conn, q, fds)
	r.Code = code
	r.fail(err)
	conn.Send(&r) //nolint:errcheck // the client is gone
}

func (k *Keeper) execIn(conn *Conn, q *Request, fds []int) (int, error) {
	defer func() { closeAll(fds) }()
	c, err := k.running(q.ID)
	if err != nil {
		return 0, fmt.Errorf("exec: %w", err)
	}
	l := newLaunch()
	next := 0
	for i, comes := range q.Streams {
		if comes && !q.TTY {
			if next >= len(fds) {
				return 0, fmt.Errorf("exec in %s: the streams did not come", q.ID.Name)
			}
			l.stdio[i] = fds[next]
			next++
		}
	}
	var open []int
	defer func() { closeAll(open) }()
	ns := func(name string) int {
		fd, e := unix.Open(fmt.Sprintf("/proc/%d/ns/%s", c.state.PID, name), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if e != nil {
			err = fmt.Errorf("exec in %s: container ended: %w", q.ID.Name, runtime.ErrNotFound)
			return -1
		}
		open = append(open, fd)
		return fd
	}
	l.mntNS, l.netNS, l.utsNS, l.ipcNS, l.cgroupNS, l.pidNS = ns("mnt"), ns("net"), ns("uts"), ns("ipc"), ns("cgroup"), ns("pid")
	if err != nil {
		return 0, err
	}
	l.spec = k.spec(c, nil)
	s := &l.spec
	s.Mode, s.Args, s.TTY, s.Layers, s.Mounts, s.Sysctls = stage.ModeExec, q.Args, q.TTY, nil, nil, nil
	cg := k.cg.open(c.pod.Config.UID, c.name())
	l.dir = cg.fd
	l.born = func(ch *child) error { cg.enter(ch.pid); return nil }
	ch, tty, err := k.run(l)
	cg.close()
	closeAll(fds)
	fds = nil
	if err != nil {
		if ch != nil {
			<-ch.done
		}
		return 0, fmt.Errorf("exec in %s: %w", q.ID.Name, err)
	}
	started := []int{}
	if tty >= 0 {
		started = append(started, tty)
	}
	err = conn.Send(&Reply{}, started...)
	closeAll(started)
	hangup := gone(conn)
	if err != nil {
		k.killGroup(ch)
	}
	select {
	case <-ch.done:
	case <-hangup:
		k.killGroup(ch)
		<-ch.done
	}
	if ch.status.Signaled() {
		return 128 + int(ch.status.Signal()), nil
	}
	return ch.status.ExitStatus(), nil
}

// killGroup kills a command and what it started in its session's first group.
func (k *Keeper) killGroup(c *child) {
	k.forkMu.Lock()
	defer k.forkMu.Unlock()
	if k.children[c.pid] == c {
		syscall.Kill(-c.pid, syscall.SIGKILL) //nolint:errcheck // it leads its group since it was a stage
		syscall.Kill(c.pid, syscall.SIGKILL)  //nolint:errcheck
	}
}

// attachPipe is how much output a reader may be behind.
const attachPipe = 1 << 20

// attach gives a client the streams of a container until either ends.
func (k *Keeper) attach(conn *Conn, q *Request) {
	var r Reply
	c, err := k.running(q.ID)
	if err != nil {
		r.fail(fmt.Errorf("attach: %w", err))
		conn.Send(&r) //nolint:errcheck // the client is gone
		return
	}
	a, give, streams, err := k.attachment(c, q)
	if err != nil {
		r.fail(fmt.Errorf("attach to %s: %w", q.ID.Name, err))
		conn.Send(&r) //nolint:errcheck
		return
	}
	r.Streams = streams
	err = conn.Send(&r, give...)
	closeAll(give)
	hangup, input := listen(conn)
	for err == nil {
		select {
		case <-c.ended:
			conn.Send(&Reply{}) //nolint:errcheck // the client is gone
			err = io.EOF
		case <-hangup:
			err = io.EOF
		case <-input:
			k.closeInput(c, q)
			input = nil
		}
	}
	o := c.out
	o.mu.Lock()
	if o.attached[a] {
		delete(o.attached, a)
		a.close()
	}
	o.mu.Unlock()
	k.closeInput(c, q)
}

// closeInput ends the input of a container that takes it from one attach only,
// which has ended.
func (k *Keeper) closeInput(c *container, q *Request) {
	if !q.Streams[0] || !c.config.StdinOnce {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if c.stdin >= 0 {
		unix.Close(c.stdin) //nolint:errcheck
		c.stdin = -1
	}
}

// attachment makes the descriptors of an attach: those to give away, in the
// order stdin or terminal, stdout, stderr.
func (k *Keeper) attachment(c *container, q *Request) (a *attachment, give []int, streams [3]bool, err error) {
	a = &attachment{stdout: -1, stderr: -1}
	defer func() {
		if err != nil {
			closeAll(give)
			a.close()
		}
	}()
	o := c.out
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return a, nil, streams, fmt.Errorf("container has ended: %w", runtime.ErrNotFound)
	}
	switch {
	case c.config.TTY && o.master >= 0:
		fd, err := unix.FcntlInt(uintptr(o.master), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return a, give, streams, err
		}
		give, streams[0] = append(give, fd), true
	case q.Streams[0] && c.config.Stdin && !c.config.TTY:
		fd, err := unix.Open(filepath.Join(c.dir, "stdin"), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return a, give, streams, fmt.Errorf("its standard input: %w", os.NewSyscallError("open", err))
		}
		give, streams[0] = append(give, fd), true
	}
	for i, to := range []*int{&a.stdout, &a.stderr} {
		if !q.Streams[i+1] {
			continue
		}
		var p [2]int
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
			return a, give, streams, err
		}
		unix.FcntlInt(uintptr(p[1]), unix.F_SETPIPE_SZ, attachPipe) //nolint:errcheck // smaller then
		*to = p[1]
		give, streams[i+1] = append(give, p[0]), true
	}
	o.attached[a] = true
	return a, give, streams, nil
}
