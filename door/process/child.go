package process

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// outputGrace is how long output is still read after the process ended: a
// descendant that left the group may hold the pipe open for ever.
const outputGrace = time.Second

// child is one running process, with its group.
type child struct {
	pid  int
	proc *os.Process
	end  exit          // valid after done
	done chan struct{} // closed when the process has ended
	// flushed is closed, later, when its output has been passed on.
	flushed chan struct{}
}

// exit says how a process ended.
type exit struct {
	code int    // 128 + the signal's number if it was killed by one
	text string // "exited: signal: killed", "exited: exit status 1"
}

func (e exit) failed() bool { return e.code != 0 }

type flusher interface{ Flush() }

// startChild runs the command. Output that goes to a file goes there directly;
// other output is copied.
func startChild(cmd *exec.Cmd, stdout, stderr io.Writer) (*child, error) {
	var theirs, ours []*os.File
	closeAll := func(files []*os.File) {
		for _, f := range files {
			f.Close()
		}
	}
	copied := make(chan struct{}, 2)
	copies := 0
	pipe := func(to io.Writer) (*os.File, error) {
		if f, ok := to.(*os.File); ok {
			return f, nil
		}
		r, w, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		ours, theirs = append(ours, r), append(theirs, w)
		copies++
		go func() {
			_, _ = io.Copy(to, r)
			if f, ok := to.(flusher); ok {
				f.Flush()
			}
			copied <- struct{}{}
		}()
		return w, nil
	}
	// Files given as *os.File are inherited as they are: exec starts no
	// goroutine whose end Wait would have to wait for.
	out, err := pipe(stdout)
	if err == nil {
		cmd.Stdout = out
		out, err = pipe(stderr)
		cmd.Stderr = out
	}
	if err != nil {
		closeAll(theirs)
		closeAll(ours)
		return nil, fmt.Errorf("door/process: start %s: %w", cmd.Path, err)
	}
	setGroup(cmd)

	c := &child{done: make(chan struct{}), flushed: make(chan struct{})}
	started := make(chan error)
	go func() {
		// The kernel ties the signal for the supervisor's death to the thread
		// that started the process, so this thread lives as long as that does.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		closeAll(theirs)
		if err != nil {
			closeAll(ours)
			started <- err
			return
		}
		c.proc, c.pid = cmd.Process, cmd.Process.Pid
		started <- nil
		state, err := cmd.Process.Wait()
		c.end = exitOf(state, err)
		killGroup(c.proc) // descendants must not live on without it
		close(c.done)
		defer close(c.flushed)
		grace := time.NewTimer(outputGrace)
		defer grace.Stop()
		for range copies {
			select {
			case <-copied:
			case <-grace.C:
				closeAll(ours)
				<-copied
			}
		}
		closeAll(ours)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return c, nil
}

// stop asks the group to end, and makes it end when it has not after timeout
// or when force is ready.
func (c *child) stop(timeout time.Duration, force <-chan struct{}) {
	select {
	case <-c.done:
		return
	default:
	}
	terminateGroup(c.proc)
	t := time.NewTimer(timeout)
	defer t.Stop()
	select {
	case <-c.done:
		return
	case <-t.C:
	case <-force:
	}
	killGroup(c.proc)
	<-c.done
}

func exitOf(state *os.ProcessState, err error) exit {
	if err != nil {
		return exit{1, "lost: " + err.Error()}
	}
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return exit{128 + int(ws.Signal()), "exited: " + state.String()}
	}
	return exit{state.ExitCode(), "exited: " + state.String()}
}

// startReason is the part of a start error that a person needs.
func startReason(err error) string {
	var path *os.PathError
	if errors.As(err, &path) {
		return "cannot start: " + path.Path + ": " + path.Err.Error()
	}
	return "cannot start: " + strings.TrimPrefix(err.Error(), "exec: ")
}
