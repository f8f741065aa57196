//go:build linux

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// system is a running dev or server, and how to talk to it.
type system struct {
	*child
	site   *site
	home   string // HOME of what talks to it
	data   string
	listen string // address of the API
	dns    string
	obs    string // address of the metrics
	http   string // address of the gateway
}

// layout gives a system its places; nothing runs yet.
func layout(s *site, host int, dir string) *system {
	return &system{
		site: s, home: filepath.Join(dir, "home"), data: filepath.Join(dir, "data"),
		listen: s.at(0, host, 6443), dns: s.at(0, host, 8053), obs: s.at(0, host, 9464), http: s.at(0, host, 8080),
	}
}

// args are the flags of dev (or server, which has no views).
func (s *system) args(kind string, more ...string) []string {
	a := []string{kind, "--data-dir", s.data, "--listen", s.listen, "--metrics-address", s.obs, "--service-cidr", s.site.cidr()}
	if kind == "dev" {
		// Pods need a machine of their own: see cell.
		a = append(a, "--no-pods", "--dns-address", s.dns, "--node-address", strings.TrimSuffix(s.dns, ":8053"),
			"--gateway-http", s.http, "--gateway-https", strings.TrimSuffix(s.http, "8080")+"8443")
	}
	return append(a, more...)
}

// launch starts the process for a test and waits until it is ready.
func (s *system) launch(t testing.TB, kind string, more ...string) *system {
	t.Helper()
	s.child = start(t, kind, s.fingerpost(t, s.args(kind, more...)...))
	if err := s.waitFor("is ready"); err != nil {
		t.Fatal(err)
	}
	return s
}

// dev starts a system of the test's own.
func dev(t testing.TB, more ...string) *system {
	t.Helper()
	return layout(newSite(t), 1, t.TempDir()).launch(t, "dev", more...)
}

// shared is the one system that most tests use, each in its own namespace.
type shared struct {
	once sync.Once
	sys  *system
	err  error
	next atomic.Int64
}

var common shared

func (s *shared) system(t testing.TB) *system {
	t.Helper()
	bin := tools.bin(t)
	s.once.Do(func() {
		var at *site
		if at, s.err = claimSite(); s.err != nil {
			return
		}
		sys := layout(at, 1, filepath.Join(tools.dir, "shared"))
		if s.err = os.MkdirAll(sys.home, 0o755); s.err != nil {
			return
		}
		cmd := exec.Command(filepath.Join(bin, "fingerpost"), sys.args("dev")...)
		cmd.Env = environ(t, sys.home)
		if sys.child, s.err = spawn("dev", tools.dir, cmd); s.err == nil {
			s.err = sys.waitFor("is ready")
		}
		s.sys = sys
	})
	if s.err != nil {
		t.Fatal(s.err)
	}
	return s.sys
}

func (s *shared) stop() {
	if s.sys == nil || s.sys.child == nil {
		return
	}
	s.sys.child.stop()
	if text := s.sys.text(); strings.Contains(text, "panic:") {
		fmt.Fprintf(os.Stderr, "the shared server panicked:\n%s\n", tail(text, 100))
	}
}

// namespace makes one for the test.
func (s *shared) namespace(t testing.TB, prefix string) (*system, string) {
	t.Helper()
	sys := s.system(t)
	ns := fmt.Sprintf("%s-%d", prefix, s.next.Add(1))
	sys.makeNamespace(t, ns)
	return sys, ns
}

func (s *system) makeNamespace(t testing.TB, ns string) {
	t.Helper()
	s.api(t).want(t, http.StatusCreated, "POST", "/api/v1/namespaces", `{"metadata":{"name":"`+ns+`"}}`)
	eventually(t, "the namespace's service account", func() error {
		code, body := s.api(t).do("GET", "/api/v1/namespaces/"+ns+"/serviceaccounts/default", "")
		return unless(code == 200, "%d %s", code, body)
	})
}

func unless(ok bool, format string, args ...any) error {
	if ok {
		return nil
	}
	return fmt.Errorf(format, args...)
}

func (s *system) env(t testing.TB) []string {
	t.Helper()
	if err := os.MkdirAll(s.home, 0o755); err != nil {
		t.Fatal(err)
	}
	return environ(t, s.home, "FINGERPOST_DATA="+s.data)
}

// fingerpost is a command of the binary that talks to this system.
func (s *system) fingerpost(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(filepath.Join(tools.bin(t), "fingerpost"), args...)
	cmd.Env, cmd.Dir = s.env(t), s.home
	return cmd
}

// kubectl is the real one, with the administrator's credentials.
func (s *system) kubectl(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(filepath.Join(tools.bin(t), "kubectl"), args...)
	cmd.Env, cmd.Dir = append(s.env(t), "KUBECONFIG="+s.kubeconfig()), s.home
	return cmd
}

// must runs kubectl and wants it to succeed.
func (s *system) must(t testing.TB, args ...string) string {
	t.Helper()
	r := finish(t, s.kubectl(t, args...))
	if r.code != 0 {
		t.Fatalf("kubectl %s: exit %d\n%s%s", strings.Join(args, " "), r.code, r.out, r.err)
	}
	return r.out
}

// apply feeds a manifest to kubectl apply.
func (s *system) apply(t testing.TB, ns, manifest string) {
	t.Helper()
	cmd := s.kubectl(t, "apply", "-n", ns, "-f", "-")
	cmd.Stdin = strings.NewReader(manifest)
	if r := finish(t, cmd); r.code != 0 {
		t.Fatalf("kubectl apply: exit %d\n%s%s\n%s", r.code, r.out, r.err, manifest)
	}
}

func (s *system) kubeconfig() string { return filepath.Join(s.data, "admin.kubeconfig") }

// clusterIP is the Service's virtual IP.
func (s *system) clusterIP(t testing.TB, ns, service string) string {
	t.Helper()
	var v struct{ Spec struct{ ClusterIP string } }
	s.api(t).get(t, "/api/v1/namespaces/"+ns+"/services/"+service, &v)
	if !s.site.contains(v.Spec.ClusterIP) {
		t.Fatalf("service %s/%s has ClusterIP %q, not of %s", ns, service, v.Spec.ClusterIP, s.site.cidr())
	}
	return v.Spec.ClusterIP
}

// metric reads one metric's value, "" when it is not there.
func (s *system) metric(name string) string { return metric(s.obs, name) }

func metric(addr, name string) string {
	code, body := fetch("http://" + addr + "/metrics")
	if code != 200 {
		return ""
	}
	for line := range strings.Lines(body) {
		if v, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// client is the API over HTTP, without a Kubernetes library between.
type client struct {
	base string
	http *http.Client
}

// api talks as the administrator.
func (s *system) api(t testing.TB) *client {
	t.Helper()
	cfg, err := clientcmd.BuildConfigFromFlags("", s.kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	return clientFor(t, cfg)
}

func clientFor(t testing.TB, cfg *rest.Config) *client {
	t.Helper()
	h, err := rest.HTTPClientFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	h.Timeout = patience
	return &client{cfg.Host, h}
}

// do sends a request; the code is 0 when there was no answer.
func (c *client) do(method, path, body string) (int, string) {
	code, b, err := c.try(method, path, body)
	if err != nil {
		return 0, err.Error()
	}
	return code, b
}

func (c *client) try(method, path, body string) (int, string, error) {
	req, err := http.NewRequest(method, c.base+path, bytes.NewBufferString(body))
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Content-Type", "application/json")
	if method == http.MethodPatch {
		req.Header.Set("Content-Type", "application/merge-patch+json")
	}
	res, err := c.http.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, string(b), err
}

func (c *client) want(t testing.TB, code int, method, path, body string) string {
	t.Helper()
	got, text := c.do(method, path, body)
	if got != code {
		t.Fatalf("%s %s: %d, want %d: %s", method, path, got, code, text)
	}
	return text
}

func (c *client) get(t testing.TB, path string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(c.want(t, 200, "GET", path, "")), into); err != nil {
		t.Fatal(err)
	}
}

// caller makes a connection for each request, as the choice among endpoints is
// made for each connection.
var caller = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// fetch gets a URL; the code is 0 when there was no answer.
func fetch(url string) (int, string) {
	res, err := caller.Get(url)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err.Error()
	}
	return res.StatusCode, string(b)
}
