package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fingerpost/fingerpost/node/runtime"
	"github.com/fingerpost/fingerpost/node/runtime/process/keeper"
)

// linger is how long output that still comes is waited for after a command has
// ended: something that it started may have its streams open for ever.
const linger = 100 * time.Millisecond

// Exec implements runtime.Streamer.
func (r *Runtime) Exec(ctx context.Context, id runtime.ContainerID, e runtime.ExecConfig) (int, error) {
	c, err := r.dial(ctx)
	if err != nil {
		return 0, err
	}
	defer c.Close() //nolint:errcheck // that is how the keeper knows
	defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })()
	q := &keeper.Request{Op: keeper.OpExec, ID: &id, Args: e.Args, TTY: e.TTY}
	q.Streams = [3]bool{e.Stdin != nil, e.Stdout != nil, e.Stderr != nil && !e.TTY}
	var ours [3]*os.File
	var theirs []int
	drop := func() {
		for _, fd := range theirs {
			unix.Close(fd) //nolint:errcheck
		}
		theirs = nil
	}
	defer drop()
	for i, want := range q.Streams {
		if !want || e.TTY {
			continue
		}
		var p [2]int
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			return 0, fmt.Errorf("process: exec in %s: %w", id.Name, err)
		}
		mine, other := p[0], p[1]
		if i == 0 {
			mine, other = p[1], p[0]
		}
		unix.SetNonblock(mine, true) //nolint:errcheck // only ours: each end is a description of its own
		ours[i] = os.NewFile(uintptr(mine), "stream")
		defer ours[i].Close()
		theirs = append(theirs, other)
	}
	if err := c.Send(q, theirs...); err != nil {
		return 0, fmt.Errorf("process: exec in %s: ask the keeper: %w", id.Name, err)
	}
	drop()
	var reply keeper.Reply
	fds, err := c.Receive(&reply)
	if err != nil {
		return 0, execLost(ctx, id, err)
	}
	if err := failure(&reply); err != nil {
		return 0, err
	}
	if e.TTY {
		if len(fds) == 0 {
			return 0, fmt.Errorf("process: exec in %s: the terminal did not come", id.Name)
		}
		f := os.NewFile(uintptr(fds[0]), "terminal")
		defer f.Close()
		ours = [3]*os.File{f, f, nil}
	}
	s := e.Streams
	cp := newCopying(&s, ours)
	_, err = c.Receive(&reply)
	if err != nil {
		cp.stop()
		return 0, execLost(ctx, id, err)
	}
	cp.finish(ctx)
	return reply.Code, failure(&reply)
}

func execLost(ctx context.Context, id runtime.ContainerID, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("process: exec in %s: the keeper went away: %w", id.Name, err)
}

// Attach implements runtime.Streamer.
func (r *Runtime) Attach(ctx context.Context, id runtime.ContainerID, s runtime.Streams) error {
	c, err := r.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // that is how the keeper knows
	defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })()
	q := &keeper.Request{Op: keeper.OpAttach, ID: &id, TTY: s.TTY, Streams: [3]bool{s.Stdin != nil, s.Stdout != nil, s.Stderr != nil}}
	if err := c.Send(q); err != nil {
		return fmt.Errorf("process: attach to %s: ask the keeper: %w", id.Name, err)
	}
	var reply keeper.Reply
	fds, err := c.Receive(&reply)
	if err == nil {
		err = failure(&reply)
	}
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return err
	}
	var ours [3]*os.File
	for i, comes := range reply.Streams {
		if !comes || len(fds) == 0 {
			continue
		}
		unix.SetNonblock(fds[0], true) //nolint:errcheck // all of them can
		ours[i] = os.NewFile(uintptr(fds[0]), "stream")
		defer ours[i].Close()
		fds = fds[1:]
	}
	cp := newCopying(&s, ours)
	go func() {
		select {
		case <-cp.inDone:
			c.Write([]byte{1}) //nolint:errcheck // the keeper sees us hang up then
		case <-cp.closed:
		}
	}()
	ended := make(chan error, 1)
	go func() {
		_, err := c.Receive(&reply)
		ended <- err
	}()
	select {
	case err = <-ended:
	case <-cp.streamsGone(s):
		cp.stop()
		c.SetDeadline(time.Unix(1, 0)) //nolint:errcheck
		<-ended
		return nil
	}
	if err != nil {
		cp.stop()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("process: attach to %s: the keeper went away: %w", id.Name, err)
	}
	cp.finish(ctx)
	return nil
}

// copying moves the streams of a command.
type copying struct {
	files  [3]*os.File
	out    sync.WaitGroup // readers of output
	closed chan struct{}  // of our side
	broken chan struct{}  // the caller's output takes no more
	once   sync.Once
	inDone chan struct{} // the caller's input ended
}

func newCopying(s *runtime.Streams, files [3]*os.File) *copying {
	c := &copying{files: files, closed: make(chan struct{}), broken: make(chan struct{}), inDone: make(chan struct{})}
	tty := files[0] != nil && files[0] == files[1] || s.TTY
	if files[0] != nil && s.Stdin != nil {
		go func() {
			defer close(c.inDone)
			io.Copy(files[0], s.Stdin) //nolint:errcheck // the command may not read it all
			if tty {
				files[0].Write([]byte{4}) //nolint:errcheck // end of input, as a terminal says it
			} else {
				files[0].Close() //nolint:errcheck
			}
		}()
	}
	if tty && s.Resize != nil && files[0] != nil {
		go func() {
			for {
				select {
				case size, ok := <-s.Resize:
					if !ok {
						return
					}
					resize(files[0], size)
				case <-c.closed:
					return
				}
			}
		}()
	}
	for i, w := range []io.Writer{s.Stdout, s.Stderr} {
		if f := files[i+1]; f != nil && w != nil {
			c.out.Go(func() {
				_, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{f}, make([]byte, 16<<10))
				if errors.Is(err, os.ErrDeadlineExceeded) {
					err = drain(f, w)
				}
				if err != nil && !ofFile(err) {
					c.once.Do(func() { close(c.broken) })
				}
			})
		}
	}
	return c
}

// drain takes what a stream still holds, without waiting for more.
func drain(f *os.File, w io.Writer) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	buf := make([]byte, 16<<10)
	for {
		n := 0
		if err := raw.Control(func(fd uintptr) { n, _ = unix.Read(int(fd), buf) }); err != nil {
			return err
		}
		if n <= 0 {
			return nil
		}
		if _, err := w.Write(buf[:n]); err != nil {
			return err
		}
	}
}

// ofFile says whether an error is of our end of a stream, not of the caller's.
func ofFile(err error) bool {
	var pe *os.PathError
	return errors.As(err, &pe) || errors.Is(err, os.ErrClosed)
}

func resize(f *os.File, size runtime.Size) {
	raw, err := f.SyscallConn()
	if err != nil {
		return
	}
	raw.Control(func(fd uintptr) { //nolint:errcheck // closed then
		unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: size.Height, Col: size.Width}) //nolint:errcheck
	})
}

// streamsGone is closed when the caller's streams have ended: its output is
// broken, or there is only input and that is at its end.
func (c *copying) streamsGone(s runtime.Streams) <-chan struct{} {
	if s.Stdout == nil && s.Stderr == nil {
		return c.inDone
	}
	return c.broken
}

// finish waits for the rest of the output of a command that has ended.
func (c *copying) finish(ctx context.Context) {
	all := make(chan struct{})
	go func() { c.out.Wait(); close(all) }()
	select {
	case <-all:
	case <-time.After(linger):
		for _, f := range c.files[1:] {
			if f != nil {
				f.SetReadDeadline(time.Now()) //nolint:errcheck
			}
		}
		select {
		case <-all:
		case <-ctx.Done():
		}
	}
	c.stop()
}

func (c *copying) stop() {
	close(c.closed)
	for _, f := range c.files {
		if f != nil {
			f.Close() //nolint:errcheck
		}
	}
}
