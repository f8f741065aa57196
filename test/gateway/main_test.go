package gateway

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"
)

// childVariable makes the test binary an endpoint that can be killed: its value
// is the endpoint's name.
const childVariable = "FINGERPOST_TEST_ENDPOINT"

func TestMain(m *testing.M) {
	if name := os.Getenv(childVariable); name != "" {
		serveChild(name)
		return
	}
	code := m.Run()
	if left := settle(patience); left != "" && code == 0 {
		fmt.Fprintf(os.Stderr, "goroutines are left at the end:\n%s", left)
		code = 1
	}
	os.Exit(code)
}

// settle waits until only this goroutine and those of the runtime are there, and
// gives the others if they stay.
func settle(limit time.Duration) string {
	if t, ok := http.DefaultTransport.(*http.Transport); ok {
		t.CloseIdleConnections()
	}
	deadline := time.Now().Add(limit)
	for {
		buf := make([]byte, 4<<20)
		buf = buf[:runtime.Stack(buf, true)]
		var left []string
		for i, g := range strings.Split(string(buf), "\n\n") {
			// The first is this one; signals are handled for the whole process.
			if i > 0 && !strings.Contains(g, "os/signal.") && !strings.Contains(g, "runtime.ensureSigM") {
				left = append(left, g)
			}
		}
		if len(left) == 0 {
			return ""
		}
		if time.Now().After(deadline) {
			return strings.Join(left, "\n\n") + "\n"
		}
		pause()
	}
}

// pause gives others time between two looks at something.
func pause() { <-time.After(5 * time.Millisecond) }

// patience is how long anything may take before a test gives up. It is long
// because machines that run tests are busy; nothing waits for it to pass.
const patience = 2 * time.Minute

// until looks again and again until it is so.
func until(t testing.TB, what string, so func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !so() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patience, what)
		}
		pause()
	}
}

// serveChild serves until standard input ends, or until it is killed.
func serveChild(name string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	s := newServer(echo(name))
	go s.Serve(l)
	fmt.Println(l.Addr())
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// child is an endpoint in a process of its own.
type child struct {
	cmd  *exec.Cmd
	in   io.Closer
	addr string
}

func newChild(name string) (*child, error) {
	c := &child{cmd: exec.Command(os.Args[0])}
	c.cmd.Env = append(os.Environ(), childVariable+"="+name)
	c.cmd.Stderr = os.Stderr
	in, err := c.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	c.in = in
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		c.kill()
		return nil, fmt.Errorf("an endpoint in a process does not start: %w", err)
	}
	c.addr = strings.TrimSpace(line)
	return c, nil
}

// kill ends it without a word.
func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	_ = c.in.Close()
	_ = c.cmd.Wait()
}
