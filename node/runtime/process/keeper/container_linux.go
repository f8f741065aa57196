package keeper

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fingerpost/fingerpost/node/runtime"
	"github.com/fingerpost/fingerpost/node/runtime/process/stage"
)

// containerState is what state.json holds.
type containerState struct {
	runtime.Container
	Start  uint64 // of PID, in ticks
	MntNS  string // its mount namespace, if its pid namespace is not its own
	Cannot bool   // Failure is of the command, not of the container
}

type container struct {
	dir    string
	pod    *pod
	config runtime.ContainerConfig
	state  containerState // under Keeper.mu, and then only read while it starts
	child  *child         // nil: of another keeper
	out    *output
	stdin  int      // our end, which keeps it open; -1: none
	mnt    *os.File // its mount namespace if MntNS is set and it was there when we looked
	ended  chan struct{}
}

func (c *container) initial() runtime.Container {
	return runtime.Container{ID: c.config.ID, Image: c.config.Image, Labels: c.config.Labels, LogPath: c.config.LogPath}
}

func (c *container) name() string { return fmt.Sprintf("%s.%d", c.config.ID.Name, c.config.ID.Attempt) }

func (c *container) save() error { return writeJSON(filepath.Join(c.dir, "state.json"), &c.state) }

func (k *Keeper) find(id *runtime.ContainerID) (*pod, *container) {
	if id == nil {
		return nil, nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	p := k.pods[id.PodUID]
	if p == nil {
		return nil, nil
	}
	for _, c := range p.containers {
		if c.state.ID == *id {
			return p, c
		}
	}
	return p, nil
}

// kept is how many attempts of one container are remembered: the last and the
// one before, whose output people ask for.
const kept = 2

func (k *Keeper) startContainer(q *Request, mnt int) error {
	if q.Container == nil || !uidPattern.MatchString(q.Container.ID.Name) {
		return errors.New("start a container: its name must be of letters, digits and dashes")
	}
	id := q.Container.ID
	p, _ := k.find(&id)
	if p == nil {
		return fmt.Errorf("start container %s: pod %s: %w", id.Name, id.PodUID, runtime.ErrNotFound)
	}
	p.op.Lock()
	defer p.op.Unlock()
	if p2, c := k.find(&id); p2 == nil {
		return fmt.Errorf("start container %s: pod %s: %w", id.Name, id.PodUID, runtime.ErrNotFound)
	} else if c != nil {
		if c.state.Failure != "" && c.state.Started.IsZero() {
			return fmt.Errorf("start container %s: %w", id.Name, &stageError{reason: c.state.Failure, cannot: c.state.Cannot})
		}
		return nil
	}
	k.forget(p, id)
	c := &container{pod: p, config: *q.Container, stdin: -1, ended: make(chan struct{})}
	c.dir = filepath.Join(p.dir, "c", c.name())
	c.state.Container = c.initial()
	if err := k.prepare(c); err != nil {
		os.RemoveAll(c.dir) //nolint:errcheck // the first error counts
		return fmt.Errorf("start container %s: %w", id.Name, err)
	}
	if err := k.begin(c, q.Hide, mnt); err != nil {
		return fmt.Errorf("start container %s: %w", id.Name, err)
	}
	return nil
}

// forget removes attempts that nobody asks for any more.
func (k *Keeper) forget(p *pod, id runtime.ContainerID) {
	k.mu.Lock()
	var old []*container
	p.containers = slices.DeleteFunc(p.containers, func(c *container) bool {
		drop := c.state.ID.Name == id.Name && c.state.ID.Attempt <= id.Attempt-kept && !c.state.Ended.IsZero()
		if drop {
			old = append(old, c)
		}
		return drop
	})
	k.mu.Unlock()
	for _, c := range old {
		removeLogs(c.config.LogPath, c.config.LogMaxFiles)
		if err := os.RemoveAll(c.dir); err != nil {
			k.log.Warn("remove an old attempt", "container", c.name(), "err", err)
		}
	}
}

// prepare makes what a container has in its directory.
func (k *Keeper) prepare(c *container) error {
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return err
	}
	if err := writeJSON(filepath.Join(c.dir, "config.json"), &c.config); err != nil {
		return err
	}
	var pipes []string
	if !c.config.TTY {
		pipes = []string{"stdout", "stderr"}
		if c.config.Stdin {
			pipes = append(pipes, "stdin")
		}
	}
	for _, name := range pipes {
		if err := unix.Mkfifo(filepath.Join(c.dir, name), 0o600); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
	return nil
}

// begin starts the command of a prepared container, and records how it went.
func (k *Keeper) begin(c *container, hide []string, mnt int) error {
	l := newLaunch()
	if mnt >= 0 && !sameNamespace(mnt, "/proc/self/ns/mnt") {
		l.mntNS = mnt
	}
	p := c.pod
	l.netNS, l.utsNS, l.ipcNS = p.netNS, p.utsNS, p.ipcNS
	if p.pidNS >= 0 {
		l.pidNS = p.pidNS
	} else {
		l.newPID = !p.Config.HostPID
	}
	l.spec = k.spec(c, hide)
	out, stdio, err := k.streams(c)
	if err != nil {
		return err
	}
	l.stdio = stdio
	cg := k.cg.make(p, c)
	l.dir = cg.fd
	l.spec.NewCgroupNS, l.spec.Cgroup = cg.fd >= 0, k.cg.seenAt(cg)
	l.born = func(ch *child) error {
		cg.enter(ch.pid)
		if c.config.OOMScoreAdj != 0 {
			os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", ch.pid), fmt.Append(nil, c.config.OOMScoreAdj), 0) //nolint:errcheck // lowering it takes a right we may not have
		}
		c.state.PID, c.state.Start = ch.pid, ch.start
		return c.save()
	}
	c.out = out
	ch, tty, err := k.run(l)
	for _, fd := range stdio {
		if fd >= 0 {
			unix.Close(fd) //nolint:errcheck
		}
	}
	cg.close()
	c.child = ch
	mntNS := ""
	if err == nil && !l.newPID {
		mntNS = k.hold(c)
	}
	k.mu.Lock()
	c.state.MntNS = mntNS
	if err == nil {
		c.state.Started = time.Now()
	} else {
		c.state.Failure = err.Error()
		var se *stageError
		c.state.Cannot = errors.As(err, &se) && se.cannot
	}
	p.containers = append(p.containers, c)
	k.mu.Unlock()
	if tty >= 0 {
		out.terminal(tty)
	}
	out.start()
	if ch == nil {
		k.finish(c, 0, nil)
		return err
	}
	if err != nil {
		<-ch.done
		k.finish(c, ch.status, nil)
		return err
	}
	if err := c.save(); err != nil {
		k.log.Error("state of a container cannot be written", "container", c.name(), "err", err)
	}
	go func() {
		<-ch.done
		k.finish(c, ch.status, nil)
	}()
	return nil
}

func sameNamespace(fd int, path string) bool {
	var a, b unix.Stat_t
	return unix.Fstat(fd, &a) == nil && unix.Stat(path, &b) == nil && a.Ino == b.Ino
}

func (k *Keeper) spec(c *container, hide []string) stage.Spec {
	cfg := &c.config
	s := stage.Spec{
		Mode: stage.ModeStart, HostNet: c.pod.netNS < 0, HostPID: c.pod.Config.HostPID,
		Dir: c.dir, Layers: cfg.Root.Layers, ReadOnly: cfg.Root.ReadOnly, Hide: hide, Shm: k.shmDir(c.pod.Config.UID),
		Sysctls: c.pod.Config.Sysctls,
		Args:    cfg.Args, Env: cfg.Env, WorkDir: cfg.WorkDir,
		UID: uint32(cfg.User.UID), GID: uint32(cfg.User.GID), UserName: cfg.UserName,
		Privileged: cfg.Privileged, NoNewPrivs: cfg.NoNewPrivs, TTY: cfg.TTY,
		Caps: capabilities(cfg.Privileged, cfg.AddCaps, cfg.DropCaps),
	}
	for _, g := range cfg.User.Groups {
		s.Groups = append(s.Groups, uint32(g))
	}
	for _, m := range cfg.Mounts {
		s.Mounts = append(s.Mounts, stage.Mount{Source: m.Source, Target: m.Target, ReadOnly: m.ReadOnly, Shared: m.Shared, Slave: m.Slave})
	}
	return s
}

// streams opens the pipes of a container: our ends, and the ones that become
// its standard streams.
func (k *Keeper) streams(c *container) (out *output, stdio [3]int, err error) {
	stdio = [3]int{-1, -1, -1}
	out = k.newOutput(c)
	if c.config.TTY {
		return out, stdio, nil
	}
	defer func() {
		if err != nil {
			out.close()
		}
	}()
	open := func(name string, flags int) int {
		if err != nil {
			return -1
		}
		fd, e := unix.Open(filepath.Join(c.dir, name), flags|unix.O_CLOEXEC, 0)
		if e != nil {
			err = fmt.Errorf("open its %s: %w", name, e)
			return -1
		}
		return fd
	}
	for i, name := range []string{"stdout", "stderr"} {
		if fd := open(name, unix.O_RDONLY|unix.O_NONBLOCK); fd >= 0 {
			out.pipe(name, fd)
		}
		// For reading too: while it holds the pipe open itself, the end of a
		// keeper is no broken pipe.
		stdio[1+i] = open(name, unix.O_RDWR)
	}
	if c.config.Stdin {
		both := open("stdin", unix.O_RDWR|unix.O_NONBLOCK)
		c.stdin = open("stdin", unix.O_WRONLY|unix.O_NONBLOCK)
		stdio[0] = open("stdin", unix.O_RDONLY)
		if both >= 0 {
			unix.Close(both) //nolint:errcheck
		}
	}
	return out, stdio, err
}

// adopt takes a container over that another keeper started.
func (k *Keeper) adopt(c *container) {
	c.stdin = -1
	if !c.state.Ended.IsZero() {
		close(c.ended)
		return
	}
	if !sameProcess(c.state.PID, c.state.Start) {
		c.out = k.newOutput(c)
		c.drain()
		k.finish(c, 0, errors.New("it ended while nobody supervised it (its keeper was killed, or the machine restarted)"))
		return
	}
	c.holdAdopted()
	c.out = k.newOutput(c)
	for _, name := range []string{"stdout", "stderr"} {
		if fd, err := unix.Open(filepath.Join(c.dir, name), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err == nil {
			c.out.pipe(name, fd)
		}
	}
	if c.config.Stdin && !c.config.TTY {
		c.stdin, _ = unix.Open(filepath.Join(c.dir, "stdin"), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	}
	c.out.start()
	if c.state.Started.IsZero() {
		c.state.Started = time.Now()
	}
	go func() {
		status, err := waitAdopted(c.state.PID)
		k.finish(c, status, err)
	}()
}

// drain writes to the log what the pipes still hold. Nothing: a pipe without
// anybody who has it open is empty.
func (c *container) drain() { c.out.start() }

// finish records the end of a container and removes what only its processes
// needed. unseen says why status is not known.
func (k *Keeper) finish(c *container, status syscall.WaitStatus, unseen error) {
	if !c.state.Started.IsZero() && (c.pod.Config.SharePID || c.pod.Config.HostPID) {
		c.sweep() // what it left behind in a pid namespace that lives on
	}
	oom := k.cg.remove(c.pod.Config.UID, c.name())
	if c.out != nil {
		c.out.finish()
	}
	k.mu.Lock()
	if c.stdin >= 0 {
		unix.Close(c.stdin) //nolint:errcheck
		c.stdin = -1
	}
	k.mu.Unlock()
	for _, name := range []string{"upper", "work", "root", "stdin", "stdout", "stderr"} {
		if err := os.RemoveAll(filepath.Join(c.dir, name)); err != nil {
			k.log.Warn("remove what a container wrote", "container", c.name(), "err", err)
		}
	}
	k.mu.Lock()
	s := &c.state
	s.Ended = time.Now()
	switch {
	case s.Failure != "":
		s.ExitCode = 128
	case unseen != nil:
		s.ExitCode, s.Failure = 255, unseen.Error()
	case status.Signaled():
		s.Signal = int(status.Signal())
		s.ExitCode = 128 + s.Signal
		s.OOM = oom
	default:
		s.ExitCode = status.ExitStatus()
		s.OOM = oom && s.ExitCode == 137 // a shell says so of its child
	}
	s.PID = 0
	err := c.save()
	for w := range k.watchers {
		w.add(s.ID)
	}
	k.mu.Unlock()
	if err != nil {
		k.log.Error("state of a container cannot be written", "container", c.name(), "err", err)
	}
	close(c.ended)
}

// stop ends a container: by its signal, and after grace by force.
func (k *Keeper) stop(q *Request, hangup <-chan struct{}) error {
	_, c := k.find(q.ID)
	if c == nil {
		return nil
	}
	if q.Grace > 0 {
		sig := unix.SignalNum(signalName(c.config.StopSignal))
		if sig == 0 {
			sig = syscall.SIGTERM
		}
		k.signalContainer(c, sig)
		timer := time.NewTimer(q.Grace)
		defer timer.Stop()
		select {
		case <-c.ended:
			return nil
		case <-hangup:
			return nil
		case <-timer.C:
		}
	}
	k.kill(c)
	select {
	case <-c.ended:
	case <-hangup:
	}
	return nil
}

func signalName(name string) string {
	if name == "" {
		return "SIGTERM"
	}
	if !strings.HasPrefix(name, "SIG") {
		return "SIG" + name
	}
	return name
}

func (k *Keeper) signalContainer(c *container, sig syscall.Signal) {
	if c.child != nil {
		k.signal(c.child, sig)
		return
	}
	k.mu.Lock()
	pid, start := c.state.PID, c.state.Start
	k.mu.Unlock()
	if sameProcess(pid, start) {
		syscall.Kill(pid, sig) //nolint:errcheck // it has just ended
	}
}

// kill ends a container and everything in it. Where it has a pid namespace of
// its own the kernel does; where not, finish looks for the rest.
func (k *Keeper) kill(c *container) { k.signalContainer(c, syscall.SIGKILL) }

// waitAdopted waits for a process that is not our child.
func waitAdopted(pid int) (syscall.WaitStatus, error) {
	unseen := errors.New("it ended under another keeper than the one that started it, so its exit code is not known")
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return 0, unseen
	}
	defer unix.Close(fd) //nolint:errcheck
	for {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err == nil {
			break
		} else if !errors.Is(err, unix.EINTR) {
			return 0, unseen
		}
	}
	if status, ok := exitOf(fd); ok {
		return status, nil
	}
	return 0, unseen
}
