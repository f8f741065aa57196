package cli

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// startProxy runs the command and gives the address that it prints.
func startProxy(t *testing.T, server string, args ...string) string {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	r, w := io.Pipe()
	ended := make(chan struct{})
	cfg := kubeconfigOf(t, server)
	go func() {
		defer close(ended)
		code, chatter := invoke(ctx, w, (*App).proxyCmd, append([]string{"--kubeconfig", cfg, "proxy"}, args...)...)
		if code != 0 {
			t.Errorf("exit %d: %s", code, chatter)
		}
		w.Close()
	}()
	t.Cleanup(func() { stop(); <-ended })
	line, _ := bufio.NewReader(r).ReadString('\n')
	addr, ok := strings.CutPrefix(strings.TrimSpace(line), "Starting to serve on ")
	if !ok {
		t.Fatalf("it printed %q", line)
	}
	return addr
}

func TestProxyFilter(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.URL.Path)
	}))
	defer backend.Close()
	files := t.TempDir()
	if err := os.WriteFile(filepath.Join(files, "a.txt"), []byte("a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	usual := startProxy(t, backend.URL, "--port", "0")
	open := startProxy(t, backend.URL, "--port", "0", "--accept-hosts", `^.*$`, "--www", files)
	tight := startProxy(t, backend.URL, "--port", "0", "--accept-paths", "^/api/", "--reject-methods", "DELETE")
	for _, c := range []struct {
		to, method, host, path string
		code                   int
		body                   string
	}{
		{usual, "GET", "127.0.0.1:8001", "/api/v1/services", 200, "/api/v1/services"},
		{usual, "GET", "localhost", "/version", 200, "/version"},
		{usual, "GET", "[::1]:8001", "/version", 403, ""}, // as kubectl: the brackets are gone by then
		{usual, "GET", "evil.example", "/api/v1/secrets", 403, ""},
		{usual, "GET", "127.0.0.1.evil.example", "/api/v1/secrets", 403, ""},
		{usual, "POST", "localhost", "/api/v1/namespaces/default/pods/x/exec", 403, ""},
		{open, "GET", "evil.example", "/api", 200, "/api"},
		{open, "GET", "localhost", "/static/a.txt", 200, "a file"},
		{tight, "GET", "localhost", "/api/v1", 200, "/api/v1"},
		{tight, "GET", "localhost", "/version", 403, ""},
		{tight, "DELETE", "localhost", "/api/v1", 403, ""},
	} {
		req, _ := http.NewRequest(c.method, "http://"+c.to+c.path, nil)
		req.Host = c.host
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != c.code || c.body != "" && string(b) != c.body {
			t.Errorf("%s %s as %s: %d %q, want %d %q", c.method, c.path, c.host, resp.StatusCode, b, c.code, c.body)
		}
	}
}

func TestProxyOnUnixSocket(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
	defer backend.Close()
	path := filepath.Join(t.TempDir(), "s")
	if got := startProxy(t, backend.URL, "--unix-socket", path); got != path {
		t.Errorf("serves on %s, want %s", got, path)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
	resp, err := client.Get("http://localhost/api")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Errorf("status %s", resp.Status)
	}
}

func TestProxyUsage(t *testing.T) {
	cfg := kubeconfigOf(t, "http://127.0.0.1:1")
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	_, port, _ := net.SplitHostPort(busy.Addr().String())
	for _, c := range []struct {
		args string
		code int
		err  string
	}{
		{"--accept-hosts (", ExitUsage, "--accept-hosts"},
		{"--port 1 --unix-socket x", ExitUsage, "exclude"},
		{"--www /nonexistent", ExitUsage, "want a directory"},
		{"extra", ExitUsage, "extra"},
		{"--port " + port, ExitError, "address already in use"},
	} {
		code, chatter := invoke(t.Context(), io.Discard, (*App).proxyCmd, append([]string{"--kubeconfig", cfg, "proxy"}, strings.Fields(c.args)...)...)
		if code != c.code || !strings.Contains(chatter, c.err) {
			t.Errorf("%s: exit %d, %q; want %d and %q", c.args, code, chatter, c.code, c.err)
		}
	}
}
