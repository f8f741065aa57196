package prober

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fingerpost/fingerpost/health"
	"github.com/fingerpost/fingerpost/health/probe"
)

// answers passes from a time on.
func answers(start time.Time, from, to time.Duration) func(context.Context) probe.Result {
	return func(context.Context) probe.Result {
		at := time.Since(start)
		return probe.Result{OK: at >= from && at < to, Output: "said"}
	}
}

func TestGroup(t *testing.T) {
	const s = time.Second
	for _, tc := range []struct {
		name   string
		probes func(start time.Time) []Probe
		want   string
	}{
		{"ready at once", func(b time.Time) []Probe {
			return []Probe{{Kind: Readiness, Ask: answers(b, 0, 15*s), Failure: 1}}
		}, "0s Readiness Passing, 20s Readiness Failing"},
		{"ready a little later", func(b time.Time) []Probe {
			return []Probe{{Kind: Readiness, Cheap: true, Ask: answers(b, 80*time.Millisecond, 1000*s)}}
		}, "150ms Readiness Passing"},
		{"an exec probe waits its period", func(b time.Time) []Probe {
			return []Probe{{Kind: Readiness, Ask: answers(b, 80*time.Millisecond, 1000*s)}}
		}, "10s Readiness Passing"},
		{"startup gates", func(b time.Time) []Probe {
			return []Probe{{Kind: Startup, Period: s, Failure: 30, Ask: answers(b, 5*s, 1000*s)},
				{Kind: Liveness, Period: s, Delay: 2 * s, Failure: 3, Ask: answers(b, 0, 8500*time.Millisecond)},
				{Kind: Readiness, Period: s, Delay: 7 * s, Ask: answers(b, 0, 1000*s)}}
		}, "5s Startup Passing, 5s Liveness Passing, 7s Readiness Passing, 11s Liveness Failing"},
		{"startup fails", func(b time.Time) []Probe {
			return []Probe{{Kind: Startup, Period: s, Failure: 3, Ask: answers(b, 50*s, 1000*s)}, {Kind: Liveness, Ask: answers(b, 0, 0)}}
		}, "2s Startup Failing"},
		{"a slow answer", func(time.Time) []Probe {
			return []Probe{{Kind: Liveness, Period: 3 * s, Timeout: 2 * s, Failure: 2, Ask: func(ctx context.Context) probe.Result {
				<-ctx.Done()
				return probe.Result{}
			}}}
		}, "5s Liveness Failing"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				var told []string
				g := Start(Config{Probes: tc.probes(start), Since: start, Report: func(r Report) {
					if r.Changed {
						told = append(told, fmt.Sprintf("%s %s %s", time.Since(start), r.Kind, r.State))
					}
				}})
				time.Sleep(25 * s)
				g.Stop()
				synctest.Wait()
				got := strings.Join(told, ", ")
				if slices.Sort(told); got != tc.want && strings.Join(told, ", ") != tc.want {
					t.Errorf("got  %s\nwant %s", got, tc.want)
				}
			})
		})
	}
}

func TestTakenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now().Add(-time.Hour)
		n := 0
		g := Start(Config{Since: start, Started: true, Probes: []Probe{
			{Kind: Startup, Ask: func(context.Context) probe.Result { t.Error("asked for the start"); return probe.Result{} }},
			{Kind: Liveness, Period: time.Second, Ask: func(context.Context) probe.Result { return probe.Result{OK: true} }},
		}, Report: func(r Report) { n++ }})
		time.Sleep(10 * time.Second)
		g.Stop()
		synctest.Wait()
		if n < 9 || n > 10 {
			t.Errorf("asked %d times in 10 s", n)
		}
	})
}

func target(t testing.TB, raw string) HTTP {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	port, _ := strconv.Atoi(u.Port())
	return HTTP{Addr: u.Hostname(), Port: uint16(port), TLS: u.Scheme == "https"}
}

func handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RawQuery != "" && r.URL.Query().Get("host") != r.Host || r.Header.Get("X-A") != "b" {
			w.WriteHeader(400)
		}
	})
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/bad", http.StatusFound) })
	mux.HandleFunc("/away", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://elsewhere.invalid/", http.StatusFound)
	})
	mux.HandleFunc("/loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/loop", http.StatusFound) })
	mux.HandleFunc("/bad", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500) })
	mux.HandleFunc("/hang", func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.HandleFunc("/broken", func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) })
	return mux
}

func TestHTTP(t *testing.T) {
	plain, secure := httptest.NewServer(handler()), httptest.NewTLSServer(handler())
	defer plain.Close()
	defer secure.Close()
	for _, base := range []string{plain.URL, secure.URL} {
		h := target(t, base)
		h.Headers = http.Header{"X-A": {"b"}, "Host": {"web.example"}}
		for path, want := range map[string]string{
			"/ok?host=web.example": "true HTTP 200 OK", "ok": "true HTTP 200 OK",
			"/moved": "false HTTP probe failed with statuscode: 500", "/bad": "false HTTP probe failed with statuscode: 500",
			"/away": "true HTTP 302 Found, the redirect", "/loop": "false stopped after 10 redirects",
			"/hang": "false Get", "/broken": "false Get",
		} {
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			h.Path = path
			r := h.Get(ctx)
			cancel()
			if got := fmt.Sprint(r.OK, " ", r.Output); !strings.HasPrefix(got, want) {
				t.Errorf("%s%s: %s, want %s", base, path, got, want)
			}
		}
	}
	plain.Close()
	h := target(t, plain.URL)
	if r := h.Get(t.Context()); r.OK || !strings.Contains(r.Output, "refused") {
		t.Errorf("a closed port: %+v", r)
	}
}

func BenchmarkHTTP(b *testing.B) {
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer s.Close()
	h := target(b, s.URL)
	b.ReportAllocs()
	for b.Loop() {
		if r := h.Get(b.Context()); !r.OK {
			b.Fatal(r)
		}
	}
}

var _ = health.Passing
