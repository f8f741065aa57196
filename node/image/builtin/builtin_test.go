package builtin

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/fingerpost/fingerpost/node/image"
)

func TestNames(t *testing.T) {
	find := Images("/bin/fingerpost")
	for ref, want := range map[string]string{
		"nginx":                                       "web",
		"nginx:1.27":                                  "web",
		"docker.io/library/nginx":                     "web",
		"k8s.gcr.io/serve_hostname":                   "hostnames",
		"registry.k8s.io/serve_hostname:1":            "hostnames",
		"defaultbackend:1.0":                          "default-backend",
		"gcr.io/google_containers/defaultbackend:1.0": "default-backend",
		"registry.k8s.io/pause:3.10":                  "pause",
		"mysql":                                       "listen",
		"example.com/nginx":                           "",
		"someone/nginx":                               "",
		"busybox:1.36":                                "shell",
		"debian":                                      "",
	} {
		n, err := image.ParseName(ref)
		if err != nil {
			t.Fatal(err)
		}
		img, ok := find(n)
		if ok != (want != "") || ok && img.ID != "builtin:"+want {
			t.Errorf("%s: %v %v, want %q", ref, img, ok, want)
		}
	}
}

func TestAnswers(t *testing.T) {
	for _, tc := range []struct {
		program, path string
		status        int
		want          string
	}{
		{"web", "/some/path", 200, "This is pod-1, answering GET /some/path"},
		{"web", "/healthz", 200, "ok"},
		{"hostnames", "/", 200, "pod-1\n"},
		{"default-backend", "/x", 404, "default backend - 404"},
		{"default-backend", "/healthz", 200, "ok"},
		{"echo", "/x?y=1", 200, "GET /x?y=1 HTTP/1.1"},
	} {
		w := httptest.NewRecorder()
		Handler(tc.program, "pod-1").ServeHTTP(w, httptest.NewRequest("GET", tc.path, nil))
		if w.Code != tc.status || !strings.Contains(w.Body.String(), tc.want) || w.Header().Get("X-Hostname") != "pod-1" {
			t.Errorf("%s %s: %d %q", tc.program, tc.path, w.Code, w.Body)
		}
	}
}

func TestRun(t *testing.T) {
	for _, program := range []string{"web", "listen", "pause"} {
		for !runs(t, program) { // somebody else has taken the port
		}
	}
	if err := Run(t.Context(), "nothing", 0, io.Discard); err == nil {
		t.Error("an unknown program ran")
	}
}

// runs says whether a program got its port.
func runs(t *testing.T, program string) bool {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	var log bytes.Buffer
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, program, port, io.MultiWriter(w, &log))
		w.Close()
	}()
	first := make([]byte, 100)
	if program != "pause" {
		if _, err := r.Read(first); err != nil { // it listens
			if err := <-done; !errors.Is(err, syscall.EADDRINUSE) {
				t.Fatal(err)
			}
			cancel()
			return false
		}
		go io.Copy(io.Discard, r)
	}
	at := "127.0.0.1:" + strconv.Itoa(port)
	switch program {
	case "web":
		got, err := http.Get("http://" + at)
		if err != nil {
			t.Fatal(err)
		}
		got.Body.Close()
	case "listen":
		c, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(c)
		if !strings.Contains(string(b), "stand-in") {
			t.Errorf("%q", b)
		}
		c.Close()
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	return true
}
