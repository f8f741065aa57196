//go:build linux

package readme

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

var console = regexp.MustCompile("(?ms)^```console\n(.*?)^```")

// TestTour types the commands of the README into a shell, all of them in their
// order, beside a system of its own.
func TestTour(t *testing.T) {
	for _, p := range []string{"bash", "curl", "pkill"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("the README's commands need %s, which is not installed here", p)
		}
	}
	text, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	script := w.script(string(text))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", script)
	cmd.Dir, cmd.Env = w.dir, w.env
	// A session of its own: the commands look for processes by name, and must
	// not find anybody else's.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s\n--- of these commands\n%s", err, out, script)
	}
	for _, want := range []string{
		"I am 127.0.0.1:",               // a call through the virtual IP
		"-> FAILING",                    // the watch saw the killed one, READY or just not listed any more
		"exited: signal: killed; took ", // and said who noticed, why and how fast
		`"kind":"Renewal"`,              // a heartbeat was taken
		"WEB_SERVICE_HOST",
		"OutOfService",
		"Ingress default/web rule 0 Prefix /: chosen", // what the gateway does with a request
	} {
		if !bytes.Contains(out, []byte(want)) {
			t.Errorf("the commands did not show %q", want)
		}
	}
	if bytes.Contains(out, []byte(`"Failure"`)) {
		t.Error("a request was refused")
	}
	if t.Failed() {
		t.Logf("what they showed:\n%s", out)
	}
}

// world is a running system and the environment of a shell beside it.
type world struct {
	dir, host, cidr, api, dns string
	env                       []string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir := t.TempDir()
	bin := filepath.Join(dir, "bin")
	n := claimNetwork(t)
	w := &world{dir: dir, host: fmt.Sprintf("127.%d.128.1", n), cidr: fmt.Sprintf("127.%d.0.0/17", n)}
	w.api, w.dns = w.host+":6443", w.host+":8053"
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	program := os.Getenv("FINGERPOST_BIN")
	if program == "" {
		program = filepath.Join(dir, "fingerpost.built")
		compile(t, program, "./cmd/fingerpost")
	}
	compile(t, filepath.Join(bin, "whoami"), "./examples/whoami")
	link(t, program, filepath.Join(bin, "fingerpost"))
	if kubectl := os.Getenv("KUBECTL"); kubectl != "" {
		link(t, kubectl, filepath.Join(bin, "kubectl"))
	} else if err := os.WriteFile(filepath.Join(bin, "kubectl"), []byte("#!/bin/sh\nexec fingerpost kubectl \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, e := range os.Environ() {
		switch k, _, _ := strings.Cut(e, "="); k {
		case "HOME", "PATH", "KUBECONFIG", "FINGERPOST_DATA", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY":
		default:
			w.env = append(w.env, e)
		}
	}
	w.env = append(w.env, "HOME="+dir, "FINGERPOST_DATA="+filepath.Join(dir, "data"), "PATH="+bin+":"+os.Getenv("PATH"))
	w.start(t, filepath.Join(bin, "fingerpost"))
	return w
}

// start runs the system until the test ends.
func (w *world) start(t *testing.T, program string) {
	t.Helper()
	cmd := exec.Command(program, "dev", "--no-pods", "--listen", w.api, "--dns-address", w.dns, "--node-address", w.host,
		"--metrics-address", w.host+":9464", "--service-cidr", w.cidr, "--gateway-http", w.host+":8080", "--gateway-https", w.host+":8443")
	cmd.Env = w.env
	var out bytes.Buffer
	ready, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := make(chan bool, 1)
	go func() {
		buf := make([]byte, 1) // anything on stdout: it is ready
		_, err := ready.Read(buf)
		said <- err == nil
		var rest bytes.Buffer
		_, _ = rest.ReadFrom(ready)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("fingerpost dev ended badly: %v\n%s", err, out.String())
		}
	})
	select {
	case ok := <-said:
		if !ok {
			t.Fatal("fingerpost dev ended before it was ready")
		}
	case <-time.After(time.Minute):
		t.Fatal("fingerpost dev is not ready after a minute")
	}
}

// script is what a person would type, with the addresses of this world.
func (w *world) script(readme string) string {
	places := strings.NewReplacer(
		"https://127.0.0.1:6443", "https://"+w.api,
		"@127.0.0.1 -p 8053", "@"+w.host+" -p 8053",
		"http://127.0.0.1:8080", "http://"+w.host+":8080",
		"fingerpost gateway routes", "fingerpost gateway routes --metrics-address "+w.host+":9464",
		"fingerpost gateway explain", "fingerpost gateway explain --metrics-address "+w.host+":9464",
		"pkill ", "pkill -s 0 ",
		// A person sees when it is there; a busy machine may take longer than 5 s.
		"--timeout 5s &", "--timeout 100s > watched 2>&1 &",
	)
	var b strings.Builder
	b.WriteString("set -eu -o pipefail\ntrap 'trap - TERM EXIT; kill $(jobs -p) 2>/dev/null; wait' EXIT\n")
	for _, block := range console.FindAllStringSubmatch(readme, -1) {
		for _, c := range strings.Split("\n"+block[1], "\n$ ")[1:] {
			c = strings.TrimRight(c, "\n")
			switch {
			case strings.HasPrefix(c, "export PATH="), strings.HasPrefix(c, "go build "):
				continue // done already
			case strings.HasPrefix(c, "dig "):
				c = "if command -v dig >/dev/null; then " + c + "; fi"
			}
			fmt.Fprintf(&b, "echo '$' %q >&2\n%s\n", strings.ReplaceAll(c, "$", ""), places.Replace(c))
			switch { // what a person waits for by looking
			case strings.HasPrefix(c, "fingerpost run "):
				b.WriteString("for _ in $(seq 200); do fingerpost get services web 2>&1 | grep -q 2/2 && break; sleep 0.1; done\n")
			case strings.Contains(c, " create ingress "):
				b.WriteString("for _ in $(seq 200); do curl -s -H 'Host: web.example.com' http://" + w.host + ":8080/ | grep -q 'I am' && break; sleep 0.1; done\n")
			case strings.HasPrefix(c, "fingerpost watch "):
				b.WriteString("watcher=$!\nfor _ in $(seq 300); do test -s watched && break; sleep 0.1; done\nsleep 1\n")
			case strings.HasPrefix(c, "pkill "):
				b.WriteString("for _ in $(seq 300); do grep -q -e '-> FAILING' watched && break; sleep 0.1; done\n")
			}
		}
	}
	b.WriteString("cat watched\nkill $watcher\n")
	return b.String()
}

// claimNetwork finds a network 127.N.0.0/16 that no other test uses. Who holds
// the socket has the network; test/e2e asks in the same way.
func claimNetwork(t *testing.T) int {
	t.Helper()
	for range 200 {
		n := 100 + rand.IntN(150)
		if l, err := net.Listen("tcp", fmt.Sprintf("127.%d.255.254:65000", n)); err == nil {
			t.Cleanup(func() { _ = l.Close() })
			return n
		}
	}
	t.Fatal("no network 127.N.0.0/16 is free")
	return 0
}

func compile(t *testing.T, to, pkg string) {
	t.Helper()
	cmd := exec.Command("go", "build", "-o", to, pkg)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build %s: %v\n%s", pkg, err, out)
	}
}

func link(t *testing.T, from, to string) {
	t.Helper()
	abs, err := filepath.Abs(from)
	if err == nil {
		err = os.Symlink(abs, to)
	}
	if err != nil {
		t.Fatal(err)
	}
}
