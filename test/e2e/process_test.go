//go:build linux

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience is how long anything may take before a test gives up. It is long
// because machines that run tests are busy; nothing waits for it to pass.
const patience = 2 * time.Minute

// child is a process that a test started.
type child struct {
	name string
	cmd  *exec.Cmd
	log  string // file of its stdout and stderr
	out  string // file of its stdout, when it is kept apart
	done chan struct{}
	err  error // after done
}

// spawn starts a program. What it prints is in the log.
func spawn(name, dir string, cmd *exec.Cmd) (*child, error) {
	f, err := os.CreateTemp(dir, name+"-*.log")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	c := &child{name: name, cmd: cmd, log: f.Name(), done: make(chan struct{})}
	if cmd.Stdout == nil {
		cmd.Stdout = f
	}
	cmd.Stderr = f
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL // a test that panics leaves nobody behind
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("e2e: start %s: %w", name, err)
	}
	go func() {
		c.err = cmd.Wait()
		close(c.done)
	}()
	return c, nil
}

// start is spawn for a test: it ends with it, and its log is shown if the test
// failed.
func start(t testing.TB, name string, cmd *exec.Cmd) *child {
	t.Helper()
	c, err := spawn(name, tools.dir, cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.stop()
		if t.Failed() {
			t.Logf("log of %s:\n%s", name, tail(c.text(), 60))
		}
	})
	return c
}

// startApart is start with stdout in a file of its own.
func startApart(t testing.TB, name string, cmd *exec.Cmd) *child {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), name+".out"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd.Stdout = f
	c := start(t, name, cmd)
	c.out = f.Name()
	return c
}

func (c *child) text() string { b, _ := os.ReadFile(c.log); return string(b) }

// output is what it wrote to stdout so far.
func (c *child) output() string { b, _ := os.ReadFile(c.out); return string(b) }

func (c *child) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// waitFor waits until the log holds text.
func (c *child) waitFor(text string) error {
	return poll(func() error {
		if strings.Contains(c.text(), text) {
			return nil
		}
		if c.ended() {
			return halt{fmt.Errorf("%s ended (%v) before it said %q:\n%s", c.name, c.err, text, tail(c.text(), 60))}
		}
		return fmt.Errorf("%s did not say %q:\n%s", c.name, text, tail(c.text(), 60))
	})
}

func (c *child) signal(s os.Signal) { _ = c.cmd.Process.Signal(s) }

// kill is kill -9.
func (c *child) kill() {
	c.signal(syscall.SIGKILL)
	<-c.done
}

// stop asks first.
func (c *child) stop() {
	c.signal(syscall.SIGTERM)
	select {
	case <-c.done:
	case <-time.After(patience):
		c.kill()
	}
}

// code waits for the end and gives the exit code, -1 for a signal.
func (c *child) code(t testing.TB) int {
	t.Helper()
	select {
	case <-c.done:
		return c.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		t.Fatalf("%s does not end:\n%s", c.name, tail(c.text(), 40))
		return 0
	}
}

// result is what a command that ended by itself said.
type result struct {
	out, err string
	code     int
}

// finish runs a command to its end.
func finish(t testing.TB, cmd *exec.Cmd) result {
	t.Helper()
	var out, errw bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errw
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if ctx.Err() != nil {
		t.Fatalf("%s does not end:\n%s%s", strings.Join(cmd.Args, " "), out.String(), errw.String())
	}
	return result{out.String(), errw.String(), cmd.ProcessState.ExitCode()}
}

func tail(text string, lines int) string {
	all := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// halt is an error that no waiting mends.
type halt struct{ error }

// poll tries until it works, and gives the last error when it never does.
func poll(try func() error) error { return pollFor(patience, try) }

func pollFor(most time.Duration, try func() error) error {
	end := time.Now().Add(most)
	for pause := 5 * time.Millisecond; ; pause = min(pause*3/2, 250*time.Millisecond) {
		err := try()
		var h halt
		if err == nil || errors.As(err, &h) || time.Now().After(end) {
			return err
		}
		<-time.After(pause)
	}
}

// eventually is poll for a test.
func eventually(t testing.TB, what string, try func() error) {
	t.Helper()
	if err := poll(try); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}
