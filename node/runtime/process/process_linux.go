package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fingerpost/fingerpost/node/runtime"
	"github.com/fingerpost/fingerpost/node/runtime/process/keeper"
)

// Runtime is the agent's side: a client of the keeper.
type Runtime struct {
	dir, cgroup string
	hide        []string
	log         *slog.Logger
	ended       chan runtime.ContainerID
	start       sync.Mutex // one keeper is started at a time
	mnt         *os.File   // our mount namespace, for containers to see what we see
}

var (
	_ runtime.Runtime  = (*Runtime)(nil)
	_ runtime.Notifier = (*Runtime)(nil)
	_ runtime.Streamer = (*Runtime)(nil)
)

// New prepares a runtime. The keeper is started by the first call.
func New(c Config) (*Runtime, error) {
	if c.Dir == "" {
		return nil, errors.New("process: Config.Dir: say where pods live")
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("process: pods as processes take root: run the node as root")
	}
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return nil, fmt.Errorf("process: directory %s: %w", c.Dir, err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("process: directory %s: %w", dir, err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, fmt.Errorf("process: directory %s: %w", dir, err)
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, fmt.Errorf("process: directory %s: %w", c.Dir, err)
	}
	mnt, err := os.Open("/proc/self/ns/mnt")
	if err != nil {
		return nil, fmt.Errorf("process: mount namespace: %w", err)
	}
	r := &Runtime{dir: dir, cgroup: c.CgroupRoot, hide: append([]string{dir}, c.Hide...), log: c.Log, ended: make(chan runtime.ContainerID, 64), mnt: mnt}
	if r.cgroup == "" {
		r.cgroup = "/fingerpost"
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	return r, nil
}

// Close lets go of the keeper, which stays with its containers.
func (r *Runtime) Close() { r.mnt.Close() }

// Run tells Ended of containers until ctx ends, and sees to it that a keeper
// is there.
func (r *Runtime) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := r.follow(ctx); err != nil && ctx.Err() == nil {
			r.log.Warn("the keeper of the containers went away; another one takes over", "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
	return nil
}

func (r *Runtime) follow(ctx context.Context) error {
	c, err := r.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // nothing was written
	defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })()
	if err := c.Send(&keeper.Request{Op: keeper.OpWatch}); err != nil {
		return err
	}
	for {
		var reply keeper.Reply
		if _, err := c.Receive(&reply); err != nil {
			return err
		}
		if reply.ID == nil {
			continue
		}
		select {
		case r.ended <- *reply.ID:
		case <-ctx.Done():
			return nil
		}
	}
}

// Ended implements runtime.Notifier; Run must run.
func (r *Runtime) Ended() <-chan runtime.ContainerID { return r.ended }

// dial connects to the keeper, and starts one if there is none.
func (r *Runtime) dial(ctx context.Context) (*keeper.Conn, error) {
	c, err := keeper.Dial(r.dir)
	if err == nil {
		return c, nil
	}
	r.start.Lock()
	defer r.start.Unlock()
	deadline := time.Now().Add(retry)
	next := time.Time{}
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		if c, err = keeper.Dial(r.dir); err == nil {
			return c, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("process: the keeper of %s does not come up (see %s): %w", r.dir, filepath.Join(r.dir, "keeper.log"), err)
		}
		if time.Now().After(next) {
			// Again after a while: one that ends for want of work may have
			// stood in the way of the first.
			if err := r.startKeeper(); err != nil {
				return nil, err
			}
			next = time.Now().Add(time.Second)
		}
		<-time.After(wait)
	}
}

func (r *Runtime) startKeeper() error {
	log, err := os.OpenFile(filepath.Join(r.dir, "keeper.log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("process: start the keeper: %w", err)
	}
	defer log.Close()
	if fi, err := log.Stat(); err == nil && fi.Size() > 1<<20 {
		log.Truncate(0) //nolint:errcheck // it grows a little more
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("process: start the keeper: %w", err)
	}
	defer null.Close()
	p, err := os.StartProcess("/proc/self/exe", []string{keeper.Name, r.dir, r.cgroup}, &os.ProcAttr{
		Dir: r.dir, Env: []string{}, Files: []*os.File{null, log, log}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return fmt.Errorf("process: start the keeper: %w", err)
	}
	go p.Wait() //nolint:errcheck // only so that it is no zombie
	return nil
}

// call asks the keeper something. Every call may be repeated, so one that a
// dying keeper did not answer is.
func (r *Runtime) call(ctx context.Context, q *keeper.Request, fds ...int) (*keeper.Reply, error) {
	for try := 0; ; try++ {
		reply, err := r.ask(ctx, q, fds)
		if err == nil {
			return reply, failure(reply)
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		lost := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
		if !lost || try == 2 {
			return nil, fmt.Errorf("process: %s: ask the keeper: %w", q.Op, err)
		}
	}
}

func (r *Runtime) ask(ctx context.Context, q *keeper.Request, fds []int) (*keeper.Reply, error) {
	c, err := r.dial(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close() //nolint:errcheck // answered or not
	defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })()
	if err := c.Send(q, fds...); err != nil {
		return nil, err
	}
	var reply keeper.Reply
	if _, err := c.Receive(&reply); err != nil {
		return nil, err
	}
	return &reply, nil
}

// failure gives the error of an answer as one of the contract's.
func failure(r *keeper.Reply) error {
	switch {
	case r.Error == "":
		return nil
	case r.Kind == keeper.KindNotFound:
		return &told{"process: " + r.Error, runtime.ErrNotFound}
	case r.Kind == keeper.KindCannotRun:
		return &told{"process: " + r.Error, runtime.ErrCannotRun}
	}
	return errors.New("process: " + r.Error)
}

// told is an error of the keeper, of a kind.
type told struct {
	text string
	kind error
}

func (t *told) Error() string { return t.text }
func (t *told) Unwrap() error { return t.kind }

// List implements runtime.Runtime.
func (r *Runtime) List(ctx context.Context) ([]runtime.Pod, error) {
	reply, err := r.call(ctx, &keeper.Request{Op: keeper.OpList})
	if err != nil {
		return nil, err
	}
	return reply.Pods, nil
}

// StartPod implements runtime.Runtime.
func (r *Runtime) StartPod(ctx context.Context, c runtime.PodConfig) error {
	var fds []int
	if c.NetNS != "" {
		fd, err := unix.Open(c.NetNS, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("process: start pod %s: network namespace %s: %w", c.UID, c.NetNS, err)
		}
		defer unix.Close(fd) //nolint:errcheck
		fds = append(fds, fd)
	}
	_, err := r.call(ctx, &keeper.Request{Op: keeper.OpPod, Pod: &c}, fds...)
	return err
}

// StartContainer implements runtime.Runtime.
func (r *Runtime) StartContainer(ctx context.Context, c runtime.ContainerConfig) error {
	_, err := r.call(ctx, &keeper.Request{Op: keeper.OpStart, Container: &c, Hide: r.hide}, int(r.mnt.Fd()))
	return err
}

// StopContainer implements runtime.Runtime.
func (r *Runtime) StopContainer(ctx context.Context, id runtime.ContainerID, grace time.Duration) error {
	_, err := r.call(ctx, &keeper.Request{Op: keeper.OpStop, ID: &id, Grace: grace})
	return err
}

// RemovePod implements runtime.Runtime.
func (r *Runtime) RemovePod(ctx context.Context, uid string) error {
	_, err := r.call(ctx, &keeper.Request{Op: keeper.OpRemove, UID: uid})
	return err
}

// Quit removes every pod; the keeper ends when its clients have gone.
func (r *Runtime) Quit(ctx context.Context) error {
	_, err := r.call(ctx, &keeper.Request{Op: keeper.OpQuit})
	return err
}
