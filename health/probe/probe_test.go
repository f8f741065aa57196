package probe

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	grpchealth "google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// within gives a context for a probe that should end by itself.
func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := Within(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func targetOf(t *testing.T, addr string) Target {
	t.Helper()
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return Target{Addr: ap.Addr().String(), Port: ap.Port()}
}

func check(t *testing.T, got Result, ok bool, output string) {
	t.Helper()
	if got.OK != ok || !strings.Contains(got.Output, output) {
		t.Errorf("got %t %q, want %t with %q", got.OK, got.Output, ok, output)
	}
	if len([]rune(got.Output)) > maxOutput || strings.ContainsAny(got.Output, "\r\n") {
		t.Errorf("the output is not one short line: %q", got.Output)
	}
}

func TestHTTP(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1") // must not be asked
	mux := http.NewServeMux()
	for _, code := range []int{200, 204, 304, 399, 400, 404, 500, 503} {
		mux.HandleFunc(fmt.Sprintf("/%d", code), func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(code)
			if code >= 400 {
				fmt.Fprint(w, "secret")
			}
		})
	}
	mux.HandleFunc("/{$}", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/head", func(w http.ResponseWriter, r *http.Request) {
		if r.UserAgent() != userAgent || r.Host != "web.example" || r.URL.Query().Get("a") != "b" || !r.Close || r.Method != "GET" {
			w.WriteHeader(500)
		}
	})
	mux.HandleFunc("/big", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(make([]byte, 1<<20))
	})
	mux.HandleFunc("/broken", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		fmt.Fprint(w, "only this")
	})
	mux.Handle("/here", http.RedirectHandler("/200", http.StatusFound))
	mux.Handle("/here503", http.RedirectHandler("/503", http.StatusFound))
	mux.Handle("/loop", http.RedirectHandler("/loop", http.StatusFound))
	mux.Handle("/elsewhere", http.RedirectHandler("http://other.example/503", http.StatusMovedPermanently))
	s := httptest.NewServer(mux)
	defer s.Close()

	for _, tc := range []struct {
		path   string
		ok     bool
		output string
	}{
		{"", true, "HTTP 200 OK"},
		{"/200", true, "HTTP 200 OK"},
		{"200", true, "HTTP 200 OK"},
		{"/204", true, "HTTP 204"},
		{"/304", true, "HTTP 304"},
		{"/399", true, "HTTP 399"},
		{"/400", false, "HTTP 400"},
		{"/404", false, "HTTP 404 Not Found"},
		{"/500", false, "HTTP 500"},
		{"/503", false, "HTTP 503 Service Unavailable"},
		{"/big", true, "HTTP 200"},
		{"/broken", false, "unexpected EOF"},
		{"/here", true, "HTTP 200"},
		{"/here503", false, "HTTP 503"},
		{"/loop", false, "stopped after 10 redirects"},
		{"/elsewhere", true, "HTTP 301 Moved Permanently, warning"},
		{"http://other.example/", false, "give a path"},
		{"//other.example/x", false, "give a path"},
		{"/%zz", false, "give a path"},
	} {
		t.Run(tc.path, func(t *testing.T) {
			target := targetOf(t, s.Listener.Addr().String())
			target.Path = tc.path
			got := HTTP(within(t, time.Minute), target)
			check(t, got, tc.ok, tc.output)
			if strings.Contains(got.Output, "secret") {
				t.Error("the body is in the output")
			}
		})
	}
	target := targetOf(t, s.Listener.Addr().String())
	target.Path, target.Host = "/head?a=b", "web.example"
	check(t, HTTP(within(t, time.Minute), target), true, "200")
}

func TestHTTPS(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS.ServerName != "web.example" {
			w.WriteHeader(500)
		}
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // it would tell of the plain words below
	s.StartTLS()
	defer s.Close()
	target := targetOf(t, s.Listener.Addr().String())
	target.TLS, target.Host = true, "web.example:443"
	check(t, HTTP(within(t, time.Minute), target), true, "200")
	target.TLS = false
	check(t, HTTP(within(t, time.Minute), target), false, "HTTP 400") // plain words to a TLS port
}

// mute accepts connections and never says a word.
func mute(t *testing.T) Target {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		var all []net.Conn
		for {
			c, err := l.Accept()
			if err != nil {
				break
			}
			all = append(all, c)
		}
		for _, c := range all {
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return targetOf(t, l.Addr().String())
}

// closed is an address where nobody listens.
func closed(t *testing.T) Target {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return targetOf(t, l.Addr().String())
}

func TestTCP(t *testing.T) {
	check(t, TCP(within(t, time.Minute), mute(t)), true, "connected to 127.0.0.1:")
	check(t, TCP(within(t, time.Minute), closed(t)), false, "connection refused")
}

func TestNobodyAnswers(t *testing.T) {
	for name, p := range map[string]Prober{"http": HTTP, "grpc": GRPC} {
		t.Run(name, func(t *testing.T) {
			check(t, p(within(t, 30*time.Millisecond), mute(t)), false, "no answer within 30ms")
			check(t, p(within(t, time.Minute), closed(t)), false, "connection refused")
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			check(t, p(ctx, mute(t)), false, "cancelled")
		})
	}
}

func TestGRPC(t *testing.T) {
	serve := func(register bool, opts ...grpc.ServerOption) (Target, *grpchealth.Server) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s, h := grpc.NewServer(opts...), grpchealth.NewServer()
		if register {
			healthpb.RegisterHealthServer(s, h)
		}
		done := make(chan struct{})
		go func() { defer close(done); _ = s.Serve(l) }()
		t.Cleanup(func() { s.Stop(); <-done })
		return targetOf(t, l.Addr().String()), h
	}
	target, h := serve(true)
	h.SetServingStatus("orders", healthpb.HealthCheckResponse_NOT_SERVING)
	check(t, GRPC(within(t, time.Minute), target), true, "SERVING")
	target.Host = "web.example"
	check(t, GRPC(within(t, time.Minute), target), true, "SERVING")
	target.Service = "orders"
	check(t, GRPC(within(t, time.Minute), target), false, "NOT_SERVING")
	h.SetServingStatus("orders", healthpb.HealthCheckResponse_SERVING)
	check(t, GRPC(within(t, time.Minute), target), true, "SERVING")
	target.Service = "nobody"
	check(t, GRPC(within(t, time.Minute), target), false, `does not know "nobody"`)

	plain, _ := serve(false)
	check(t, GRPC(within(t, time.Minute), plain), false, "does not implement grpc.health.v1.Health")

	web := httptest.NewTLSServer(nil) // for its certificate
	defer web.Close()
	secure, _ := serve(true, grpc.Creds(credentials.NewServerTLSFromCert(&web.TLS.Certificates[0])))
	secure.TLS = true
	check(t, GRPC(within(t, time.Minute), secure), true, "SERVING")
}

func TestExec(t *testing.T) {
	sh := func(script string) Target { return Target{Command: []string{"/bin/sh", "-c", script}} }
	if _, err := os.Stat("/bin/sh"); err != nil {
		t.Skip("there is no /bin/sh to run")
	}
	check(t, Exec(within(t, time.Minute), sh("echo fine")), true, "fine")
	check(t, Exec(within(t, time.Minute), sh("printf '\n\n  one\ntwo'; exit 3")), false, "exit status 3: one")
	check(t, Exec(within(t, time.Minute), sh("exit 1")), false, "exit status 1")
	check(t, Exec(within(t, time.Minute), sh("echo trouble >&2; exit 1")), false, "trouble")
	check(t, Exec(within(t, time.Minute), sh("i=0; while [ $i -lt 3000 ]; do echo aaaaaaaaaaaaaaaa; i=$((i+1)); done")), true, "aaaa")
	check(t, Exec(within(t, time.Minute), Target{}), false, "no command")
	check(t, Exec(within(t, time.Minute), Target{Command: []string{"/nowhere/to/be/found"}}), false, "no such file")

	dir := t.TempDir()
	env := sh(`[ "$PWD $A" = "` + dir + ` b" ]`)
	env.Dir, env.Env = dir, []string{"A=b"}
	if real, err := filepath.EvalSymlinks(dir); err == nil && real == dir {
		check(t, Exec(within(t, time.Minute), env), true, "")
	}

	// A child of the shell keeps the pipe open: it is killed too.
	check(t, Exec(within(t, 50*time.Millisecond), sh("sleep 600 & sleep 600")), false, "no answer within 50ms")
}

func TestClip(t *testing.T) {
	for in, want := range map[string]string{
		"":                       "",
		" \n\n one \n two":       "one",
		"a\tb\x00c\x1b[31m":      "a b c [31m",
		"bad \xff utf":           "bad ? utf",
		strings.Repeat("ä", 300): strings.Repeat("ä", 197) + "...",
	} {
		if got := clip(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func FuzzClip(f *testing.F) {
	f.Add("one\ntwo")
	f.Fuzz(func(t *testing.T, s string) {
		got := clip(s)
		if len([]rune(got)) > maxOutput || strings.ContainsAny(got, "\r\n\x00") || got != strings.TrimSpace(got) {
			t.Errorf("%q becomes %q", s, got)
		}
	})
}
