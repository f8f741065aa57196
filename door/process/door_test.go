package process

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
	"github.com/fingerpost/fingerpost/door/process/claim/claimtest"
)

var loopback = netip.MustParseAddr("127.0.0.1")

// stage is a supervisor on a fake API with everything that was written to it.
type stage struct {
	t    *testing.T
	api  claimtest.API
	cfg  Config
	out  bytes.Buffer
	stop context.CancelFunc
	done chan struct{}
	err  error
	sup  *Supervisor

	mu      sync.Mutex
	history []string // "State reason" of each write of our claim, "gone"
	wake    chan struct{}
}

func newStage(t *testing.T, play string) *stage {
	s := &stage{t: t, done: make(chan struct{}), wake: make(chan struct{}, 1)}
	s.cfg = Config{
		Service: "web", Command: []string{os.Args[0]}, Env: append(os.Environ(), playVariable+"="+play),
		Ports: []Port{{}}, Address: loopback, NodeName: "node", DrainDelay: -1,
		Client: &s.api, Stdout: &s.out, Stderr: &s.out,
	}
	s.api.OnChange = func(_ string, in *v1alpha1.Instance) {
		line := "gone"
		if in != nil {
			line = ""
			for _, c := range in.Spec.Claims {
				if c.Door == Door {
					line = strings.TrimSpace(string(c.State) + " " + c.Reason)
				}
			}
		}
		s.mu.Lock()
		s.history = append(s.history, line)
		s.mu.Unlock()
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
	return s
}

func (s *stage) start() *stage {
	s.t.Helper()
	sup, err := New(s.cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	s.sup = sup
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	go func() { s.err = sup.Run(ctx); close(s.done) }()
	s.t.Cleanup(func() { cancel(); <-s.done })
	return s
}

// end stops the supervisor and gives what Run said.
func (s *stage) end() error { s.stop(); return s.wait() }

func (s *stage) wait() error { <-s.done; return s.err }

func (s *stage) past() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.history...)
}

// until waits until the history, from its line n on, has one that begins so.
func (s *stage) until(n int, prefix string) int {
	s.t.Helper()
	for {
		past := s.past()
		for i := n; i < len(past); i++ {
			if strings.HasPrefix(past[i], prefix) {
				return i
			}
		}
		select {
		case <-s.wake:
		case <-s.t.Context().Done():
		case <-time.After(2 * time.Minute):
			s.t.Fatalf("%q does not come; so far %q\n%s", prefix, past[n:], s.out.String())
		}
	}
}

func (s *stage) port() int32 {
	s.t.Helper()
	all := s.api.All()
	if len(all) != 1 {
		s.t.Fatalf("%d instances, want 1:\n%s", len(all), s.api.Dump())
	}
	return all[0].Spec.Ports[0].Port
}

func (s *stage) get(path string) string {
	s.t.Helper()
	resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d%s", s.port(), path))
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return string(b)
}

func (s *stage) pid() int {
	s.t.Helper()
	n, err := strconv.Atoi(s.get("/pid"))
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

func mustCheck(t *testing.T, s string) Check {
	t.Helper()
	c, err := ParseCheck(s)
	if err != nil {
		t.Fatal(err)
	}
	c.Timeout = time.Minute // a busy machine is no sick process
	return c
}

func TestKilledProcessIsOutAtOnceAndComesBack(t *testing.T) {
	s := newStage(t, "serve")
	s.cfg.Ready = mustCheck(t, "http:/healthz")
	s.start()
	up := s.until(0, "Up")
	in := s.api.All()[0]
	if want := v1alpha1.InstanceName("web", "127.0.0.1", s.port()); in.Name != want {
		t.Errorf("the instance is called %s, want %s", in.Name, want)
	}
	before := s.pid()
	if err := syscall.Kill(before, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	down := s.until(up, "Down")
	if got := s.past()[down]; got != "Down exited: signal: killed" {
		t.Errorf("written: %q", got)
	}
	s.until(down, "Up")
	if after := s.pid(); after == before {
		t.Error("no new process")
	}
	c := s.api.All()[0].Spec.Claims[0]
	if c.Metadata["restarts"] != "1" || c.Metadata["lastExit"] != "exited: signal: killed" {
		t.Errorf("claim's metadata: %v", c.Metadata)
	}
	if c.ID != "node/web-0" || c.Origin != "node pid "+strconv.Itoa(s.pid()) || c.TTL.Duration != 15*time.Second {
		t.Errorf("claim: %+v", c)
	}
	if err := s.end(); err != nil {
		t.Error(err)
	}
	if d := s.api.Dump(); d != "" {
		t.Errorf("left behind:\n%s", d)
	}
}

func TestStopDrainsFirst(t *testing.T) {
	s := newStage(t, "serve")
	s.cfg.Ready = mustCheck(t, "tcp")
	s.cfg.DrainDelay = time.Hour
	s.start()
	up := s.until(0, "Up")
	s.stop()
	s.until(up, "Terminating")
	s.get("/healthz") // it goes on answering while the views learn of it
	s.sup.Kill()
	if err := s.wait(); err != nil {
		t.Error(err)
	}
	past := s.past()
	if last := past[len(past)-2:]; !strings.HasPrefix(last[0], "Terminating") || last[1] != "gone" {
		t.Errorf("order: %q", past)
	}
}

func TestStopWithoutTrafficNeedsNoDrain(t *testing.T) {
	s := newStage(t, "serve")
	s.cfg.Ready = mustCheck(t, "exec:exit 1")
	s.cfg.DrainDelay = time.Hour
	s.start()
	s.until(0, "Starting ready check exec:exit 1: exit status 1")
	if err := s.end(); err != nil {
		t.Error(err)
	}
}

func TestStubbornProcessIsKilled(t *testing.T) {
	s := newStage(t, "stubborn")
	s.cfg.Ready = mustCheck(t, "tcp")
	s.cfg.StopTimeout = 50 * time.Millisecond
	s.start()
	s.until(0, "Up")
	pid := s.pid()
	if err := s.end(); err != nil {
		t.Error(err)
	}
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d is still there: %v", pid, err)
	}
}

// A process that dies or is stopped takes its descendants along, also those
// that ignore SIGTERM.
func TestNoOrphans(t *testing.T) {
	peer, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	grandchild := func() net.Conn {
		c, err := peer.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		return c
	}
	s := newStage(t, "family")
	s.cfg.Env = append(s.cfg.Env, "TEST_PEER="+peer.Addr().String())
	s.cfg.Ready = mustCheck(t, "tcp")
	s.start()
	first := grandchild()
	up := s.until(0, "Up")
	if err := syscall.Kill(s.pid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, err := first.Read(make([]byte, 1)); err == nil {
		t.Error("the grandchild outlived the crash")
	}
	second := grandchild()
	s.until(s.until(up, "Down"), "Up")
	if err := s.end(); err != nil {
		t.Error(err)
	}
	if _, err := second.Read(make([]byte, 1)); err == nil {
		t.Error("the grandchild outlived the stop")
	}
	first.Close()
	second.Close()
}

func TestReadinessTakesOutAndBringsBack(t *testing.T) {
	s := newStage(t, "serve")
	s.cfg.Ready = mustCheck(t, "http:/healthz")
	s.cfg.Ready.Interval = 20 * time.Millisecond
	s.start()
	up := s.until(0, "Up")
	pid := s.pid()
	s.get("/fail")
	down := s.until(up, "Down ready check http:/healthz: ")
	if got := s.past()[down]; !strings.Contains(got, "503") {
		t.Errorf("the reason does not say what was wrong: %q", got)
	}
	s.get("/heal")
	s.until(down, "Up")
	if s.pid() != pid {
		t.Error("a failing ready check restarted the process")
	}
}

func TestLivenessRestarts(t *testing.T) {
	s := newStage(t, "serve")
	s.cfg.Ready = mustCheck(t, "http:/healthz")
	s.cfg.Live = mustCheck(t, "http:/healthz")
	s.cfg.Live.Interval = 20 * time.Millisecond
	s.start()
	up := s.until(0, "Up")
	pid := s.pid()
	s.get("/fail")
	down := s.until(up, "Down live check")
	s.until(down, "Up")
	if s.pid() == pid {
		t.Error("not restarted")
	}
}

func TestServerAwayAtTheStartAndInTheMiddle(t *testing.T) {
	s := newStage(t, "serve")
	s.cfg.Ready = mustCheck(t, "tcp")
	s.api.SetAway(true)
	tried := make(chan struct{}, 100)
	s.api.Before = func(string, string) error {
		select {
		case tried <- struct{}{}:
		default:
		}
		return nil
	}
	s.start()
	<-tried
	s.api.SetAway(false)
	up := s.until(0, "Up")
	pid := s.pid()
	s.api.SetAway(true)
	for len(tried) > 0 {
		<-tried
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-tried // the news cannot be told
	s.api.SetAway(false)
	s.until(up+1, "Up") // at the latest after the restart
	if s.pid() == pid {
		t.Error("not restarted while the server was away")
	}
}

// freePort is one that stays free: the kernel gives it to nobody who does not
// ask for it by its number.
func freePort(t *testing.T) int32 {
	t.Helper()
	for range 100 {
		port := 12000 + rand.Int32N(18000)
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}

func TestOtherDoorsClaimStays(t *testing.T) {
	port := freePort(t)
	s := newStage(t, "serve")
	s.cfg.Ports = []Port{{Number: port}}
	s.cfg.Ready = mustCheck(t, "tcp")
	_, err := s.api.Create(t.Context(), &v1alpha1.Instance{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: v1alpha1.InstanceName("web", "127.0.0.1", port)},
		Spec: v1alpha1.InstanceSpec{Service: "web", Address: "127.0.0.1", Ports: []v1alpha1.InstancePort{{Port: port}},
			Claims: []v1alpha1.Claim{{Door: "eureka", ID: "web:1", State: v1alpha1.ClaimUp}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.start()
	s.until(0, "Up")
	if err := s.end(); err != nil {
		t.Error(err)
	}
	if got, want := s.api.Dump(), fmt.Sprintf("default/web 127.0.0.1:%d eureka web:1 Up\n", port); got != want {
		t.Errorf("left behind:\n%swant\n%s", got, want)
	}
}

func TestReplicasHavePortsOfTheirOwn(t *testing.T) {
	s := newStage(t, "show")
	s.cfg.Replicas = 8
	s.cfg.Ports = []Port{{Name: "http"}, {Name: "admin"}}
	s.cfg.Restart = RestartNever
	s.cfg.Command = append(s.cfg.Command, "-http", "$PORT", "-admin={port.admin}", "${PORT_HTTP}", "$PORTAL", "{port.none}")
	s.cfg.Env = append(s.cfg.Env, "MINE=1", "WEB_SERVICE_HOST=mine")
	s.cfg.ServiceEnv = func() []string { return []string{"WEB_SERVICE_HOST=10.0.0.1"} }
	if err := s.start().wait(); err != nil {
		t.Fatal(err)
	}
	numbers, ends := map[string]bool{}, 0
	for lines := bufio.NewScanner(&s.out); lines.Scan(); {
		who, text, ok := strings.Cut(lines.Text(), " | ")
		if !ok || !strings.HasPrefix(who, "web-") {
			t.Fatalf("line without prefix: %q", lines.Text())
		}
		if after, ok := strings.CutPrefix(text, "-http "); ok {
			f := strings.Fields(after)
			admin := strings.TrimPrefix(f[1], "-admin=")
			if f[0] != f[2] || f[3] != "$PORTAL" || f[4] != "{port.none}" {
				t.Errorf("arguments: %q", text)
			}
			for _, n := range []string{f[0], admin} {
				if numbers[n] {
					t.Errorf("port %s was given twice", n)
				}
				numbers[n] = true
			}
		}
		switch {
		case strings.HasPrefix(text, "WEB_SERVICE_HOST=") && text != "WEB_SERVICE_HOST=mine",
			strings.HasPrefix(text, "MINE=") && text != "MINE=1",
			strings.HasPrefix(text, "FINGERPOST_NAMESPACE=") && text != "FINGERPOST_NAMESPACE=default",
			strings.HasPrefix(text, "FINGERPOST_REPLICA=") && text != "FINGERPOST_REPLICA="+who[4:5]:
			t.Errorf("%s was told %s", who, text)
		case text == "no end of line":
			ends++
		}
	}
	if len(numbers) != 16 || ends != 8 {
		t.Errorf("%d ports, %d last lines; want 16 and 8", len(numbers), ends)
	}
}

func TestRestartPolicies(t *testing.T) {
	for _, c := range []struct {
		policy Restart
		code   int
	}{{RestartNever, 0}, {RestartNever, 3}, {RestartOnFailure, 0}} {
		s := newStage(t, fmt.Sprintf("exit %d", c.code))
		s.cfg.Restart = c.policy
		err := s.start().wait()
		var e *ExitError
		if got := errors.As(err, &e); got != (c.code != 0) || got && e.Code != c.code {
			t.Errorf("%s, exit %d: Run says %v", c.policy, c.code, err)
		}
		if d := s.api.Dump(); d != "" {
			t.Errorf("left behind:\n%s", d)
		}
	}
}

func TestCrashLoopIsToldEachTime(t *testing.T) {
	s := newStage(t, "exit 7")
	s.cfg.Restart = RestartOnFailure
	s.cfg.Ready = mustCheck(t, "tcp")
	s.start()
	n := 0
	for range 2 {
		n = s.until(s.until(n, "Starting"), "Down exited: exit status 7")
	}
	for _, line := range s.past() {
		if strings.HasPrefix(line, "Up") {
			t.Errorf("it was up: %q", s.past())
		}
	}
}

func TestPortTakenByAStranger(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := int32(l.Addr().(*net.TCPAddr).Port)
	s := newStage(t, "serve")
	s.cfg.Ports = []Port{{Number: port}}
	s.cfg.Ready = mustCheck(t, "tcp")
	s.start()
	n := s.until(0, fmt.Sprintf("Down cannot start: port %d is taken by another process", port))
	l.Close()
	s.until(n, "Up")
}
