package observe

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fingerpost/fingerpost/wire/http"
)

var update = flag.Bool("update", false, "write the golden files anew")

// sink is a writer that may be stopped.
type sink struct {
	mu   sync.Mutex
	b    bytes.Buffer
	stop chan struct{} // nil: it runs
	err  error
}

func (s *sink) Write(p []byte) (int, error) {
	if s.stop != nil {
		<-s.stop
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.b.Write(p)
	return len(p), s.err
}

func sample(m *Metrics) []Record {
	begin := time.Date(2026, 11, 21, 8, 0, 0, 250e6, time.UTC)
	web := m.Route(Labels{Namespace: "default", Ingress: "web", Host: "shop.example.com", Service: "web", Port: "80"})
	next := m.Route(Labels{Namespace: "default", Ingress: "web", Host: "shop.example.com", Service: "web-next", Port: "80", Canary: true})
	return []Record{
		{Begin: begin, Took: 12 * time.Millisecond, Remote: []byte("192.0.2.7"), User: []byte("ann"), Method: []byte("GET"), Path: []byte("/a?b=c"), Host: []byte("shop.example.com"),
			Version: http.HTTP2, TLS: true, Referer: []byte("https://x/"), Agent: []byte("curl/8"), ID: []byte("abc"), Status: 200, Sent: 1024, Received: 17, Route: web,
			Attempts: 2, Upstream: netip.MustParseAddrPort("10.0.0.1:8080"), UpstreamStatus: 200, UpstreamTook: 3 * time.Millisecond, UpstreamSent: 1024},
		{Begin: begin, Took: 2 * time.Second, Remote: []byte("2001:db8::1"), Method: []byte("BREW"), Path: []byte("/\"\\\n\xff"), Host: []byte("a"), Agent: []byte("x\" 200 0 \"\xc3\xa4"), Status: 404, Sent: 9},
		{Begin: begin, Took: time.Minute, Remote: []byte("192.0.2.8"), Method: []byte("POST"), Path: []byte("/p"), Host: []byte("shop.example.com"), Version: http.HTTP11, Status: 0, Route: web, Canary: next,
			Attempts: 1, Upstream: netip.MustParseAddrPort("[fd00::1]:80")},
		{Begin: begin, Took: time.Millisecond, Remote: []byte("192.0.2.9"), Method: []byte("GET"), Path: []byte("/"), Host: []byte("shop.example.com"), Version: http.HTTP11, Status: 401, Route: web, By: "basic-auth"},
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
}

func TestFormats(t *testing.T) {
	for name, format := range map[string]Format{"combined.log": Combined, "plain.log": Plain, "access.json": JSON} {
		var s sink
		l, err := NewLog(LogConfig{Writer: &s, Format: format})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range sample(NewMetrics(MetricsConfig{})) {
			l.Write(&r)
		}
		l.flush()
		golden(t, name, s.b.Bytes())
		if format == JSON {
			for line := range strings.Lines(s.b.String()) {
				if !json.Valid([]byte(line)) {
					t.Errorf("no JSON: %s", line)
				}
			}
		}
	}
}

// TestNeverWaits: with a writer that hangs, lines are lost and counted.
func TestNeverWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{stop: make(chan struct{})}
		l, err := NewLog(LogConfig{Writer: s, Buffer: 4096})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- l.Run(ctx) }()
		r := sample(NewMetrics(MetricsConfig{}))[0]
		l.Write(&r)
		time.Sleep(2 * time.Second) // the writer hangs now
		const lines = 100
		for range lines {
			l.Write(&r)
		}
		lost := l.Dropped()
		if lost == 0 || lost == lines {
			t.Errorf("%d of %d lost", lost, lines)
		}
		close(s.stop)
		time.Sleep(2 * time.Second)
		l.Write(&r) // there is room again
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if got := strings.Count(s.b.String(), "\n"); got != 2+lines-int(lost) {
			t.Errorf("%d lines, want %d", got, 2+lines-int(lost))
		}
	})
}

func TestSample(t *testing.T) {
	s := &sink{err: errors.New("disk full")}
	l, err := NewLog(LogConfig{Writer: s, Sample: 10})
	if err != nil {
		t.Fatal(err)
	}
	list := sample(NewMetrics(MetricsConfig{}))
	for range 100 {
		l.Write(&list[0])
		l.Write(&list[3])
	}
	l.flush()
	if got := strings.Count(s.b.String(), "\n"); got != 110 || l.Failed() != 1 {
		t.Errorf("%d lines, %d failed", got, l.Failed())
	}
}

func TestMetrics(t *testing.T) {
	m := NewMetrics(MetricsConfig{})
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(loose{m})
	m.Accepted.Add(10)
	m.Active.Add(5)
	m.Waiting.Add(3)
	m.Writing.Add(1)
	list := sample(m)
	for i := range list {
		m.Record(&list[i])
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, f := range families {
		for _, s := range f.GetMetric() {
			fmt.Fprintf(&b, "%s{", f.GetName())
			for _, l := range s.GetLabel() {
				if l.GetValue() != "" {
					fmt.Fprintf(&b, "%s=%s ", l.GetName(), l.GetValue())
				}
			}
			if h := s.GetHistogram(); h != nil {
				fmt.Fprintf(&b, "} count %d sum %g\n", h.GetSampleCount(), h.GetSampleSum())
			} else {
				fmt.Fprintf(&b, "} %g\n", s.GetCounter().GetValue()+s.GetGauge().GetValue())
			}
		}
	}
	golden(t, "metrics.txt", []byte(b.String()))
	runtime.KeepAlive(list)
}

// loose lets the pedantic registry check the metrics themselves.
type loose struct{ m *Metrics }

func (l loose) Describe(chan<- *prometheus.Desc)    {}
func (l loose) Collect(ch chan<- prometheus.Metric) { l.m.Collect(ch) }

func TestRoutesAreBounded(t *testing.T) {
	m := NewMetrics(MetricsConfig{Routes: 10})
	var keep []*Route
	for i := range 20 {
		keep = append(keep, m.Route(Labels{Service: fmt.Sprint(i)}))
	}
	if keep[0] != m.Route(Labels{Service: "0"}) {
		t.Error("a route that is held was made anew")
	}
	if keep[15].counters != m.other.counters || keep[15].upstream != "-15-" {
		t.Error("a route beyond the bound has series of its own, or no name")
	}
	runtime.KeepAlive(keep)
	keep = nil
	runtime.GC()
	if r := m.Route(Labels{Service: "30"}); r.counters == m.other.counters {
		t.Error("routes that are gone still take room")
	}
}

func TestHistogram(t *testing.T) {
	var h histogram
	for _, v := range []uint64{0, ms / 2, ms/2 + 1, 60000 * ms, 60000*ms + 1} {
		h.observe(&durations, v)
	}
	n, _, upTo := h.read(&durations)
	if n != 5 || upTo[0.0005] != 2 || upTo[0.001] != 3 || upTo[10] != 3 || upTo[60] != 4 {
		t.Errorf("%d %v", n, upTo)
	}
}

func TestAllocations(t *testing.T) {
	m := NewMetrics(MetricsConfig{})
	list := sample(m)
	for _, format := range []Format{Combined, JSON} {
		l, err := NewLog(LogConfig{Writer: &sink{}, Format: format, Buffer: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		l.waiting = make([]byte, 0, 1<<20)
		if got := testing.AllocsPerRun(100, func() { l.Write(&list[0]); m.Record(&list[0]) }); got != 0 {
			t.Errorf("format %d: %v allocations", format, got)
		}
	}
}

func BenchmarkRecord(b *testing.B) {
	m := NewMetrics(MetricsConfig{})
	r := sample(m)[0]
	b.ReportAllocs()
	for b.Loop() {
		m.Record(&r)
	}
}

func BenchmarkLog(b *testing.B) {
	for name, format := range map[string]Format{"combined": Combined, "json": JSON} {
		b.Run(name, func(b *testing.B) {
			l, err := NewLog(LogConfig{Writer: &sink{}, Format: format, Buffer: 1 << 20})
			if err != nil {
				b.Fatal(err)
			}
			r := sample(NewMetrics(MetricsConfig{}))[0]
			b.ReportAllocs()
			for b.Loop() {
				l.Write(&r)
				if len(l.waiting) > 1<<19 {
					l.waiting = l.waiting[:0]
				}
			}
		})
	}
}

func FuzzLog(f *testing.F) {
	f.Add([]byte("GET"), []byte("/\n"), []byte("\xff\"\\"))
	f.Fuzz(func(t *testing.T, method, path, agent []byte) {
		r := Record{Method: method, Path: path, Agent: agent, Referer: agent, User: path, Host: agent, ID: method}
		for _, format := range []Format{Combined, Plain, JSON} {
			s := &sink{}
			l, err := NewLog(LogConfig{Writer: s, Format: format})
			if err != nil {
				t.Fatal(err)
			}
			l.Write(&r)
			l.flush()
			out := s.b.Bytes()
			if bytes.Count(out, []byte("\n")) != 1 || format == JSON && !json.Valid(out) {
				t.Fatalf("%q", out)
			}
		}
	})
}
