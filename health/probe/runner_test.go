package probe

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fingerpost/fingerpost/health"
)

// bench runs a Runner with fake probers on the fake clock of a bubble.
type bench struct {
	*Runner
	start time.Time
	stop  func()

	mu      sync.Mutex
	probes  []string // "key@second" by the path of the target
	changes []string // "key state@second"
	down    map[string]bool
	takes   time.Duration // how long a probe takes
	running int
	most    int
}

func newBench(t *testing.T, cfg Config) *bench {
	b := &bench{start: time.Now(), down: map[string]bool{}}
	cfg.Probers = map[string]Prober{"fake": b.probe}
	cfg.OnChange = func(key string, s health.State, reason string, at time.Time) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.changes = append(b.changes, fmt.Sprintf("%s %s@%g", key, s, at.Sub(b.start).Seconds()))
	}
	r, err := NewRunner(cfg)
	if err != nil {
		t.Fatal(err)
	}
	b.Runner = r
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	b.stop = func() { cancel(); <-done }
	return b
}

func (b *bench) probe(ctx context.Context, t Target) Result {
	b.mu.Lock()
	b.probes = append(b.probes, fmt.Sprintf("%s@%g", t.Path, time.Since(b.start).Seconds()))
	b.running++
	b.most = max(b.most, b.running)
	takes, down := b.takes, b.down[t.Path]
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		b.running--
		b.mu.Unlock()
	}()
	if takes > 0 {
		select {
		case <-ctx.Done():
			return failed("no answer")
		case <-time.After(takes):
		}
	}
	if down {
		return failed("it is down")
	}
	return passed("")
}

func (b *bench) set(t *testing.T, key string, spec Spec) {
	t.Helper()
	spec.Type, spec.Target.Path = "fake", key
	if err := b.Set(key, spec); err != nil {
		t.Fatal(err)
	}
}

func (b *bench) fail(key string, down bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.down[key] = down
}

func (b *bench) take(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.takes = d
}

func (b *bench) forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.probes = nil
}

// until moves the fake clock.
func (b *bench) until(second float64) {
	<-time.After(time.Until(b.start.Add(time.Duration(second * float64(time.Second)))))
	synctest.Wait()
}

func (b *bench) want(t *testing.T, what string, got *[]string, want string) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := strings.Join(*got, ", "); s != want {
		t.Errorf("%s: %s; want %s", what, s, want)
	}
	*got = nil
}

func TestRunner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, Config{})
		defer b.stop()
		b.until(1)
		b.set(t, "web", Spec{Interval: 5 * time.Second, Fall: 3})
		synctest.Wait()
		b.want(t, "the first probe is at once", &b.probes, "web@1")
		b.want(t, "changes", &b.changes, "web Passing@1")
		b.until(11)
		b.want(t, "probes", &b.probes, "web@6, web@11")
		b.fail("web", true)
		b.until(21)
		b.want(t, "two failures are not the end", &b.changes, "")
		b.until(26)
		b.want(t, "the third is", &b.changes, "web Failing@26")
		if s, reason, since, ok := b.State("web"); !ok || s != health.Failing || reason != "it is down" || since.Sub(b.start) != 26*time.Second {
			t.Errorf("state %s %q %s %t", s, reason, since, ok)
		}
		b.fail("web", false)
		b.until(31)
		b.want(t, "one success suffices", &b.changes, "web Passing@31")

		b.forget()
		b.set(t, "web", Spec{Interval: 5 * time.Second, Fall: 3}) // the same
		b.until(35)
		b.want(t, "the same spec does not probe", &b.probes, "")
		b.set(t, "web", Spec{Interval: time.Second / 2, Fall: 1}) // other times: from now on
		b.until(36.5)
		b.want(t, "sooner", &b.probes, "web@35.5, web@36, web@36.5")
		b.fail("web", true)
		b.until(37)
		b.want(t, "the new fall counts", &b.changes, "web Failing@37")

		b.forget()
		if err := b.Set("web", Spec{Type: "fake", Target: Target{Path: "other"}}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		b.want(t, "another target starts anew", &b.changes, "web Passing@37")
		b.Remove("web")
		b.Remove("web")
		b.forget()
		b.until(100)
		b.want(t, "after Remove", &b.probes, "")
		if _, _, _, ok := b.State("web"); ok || b.Len() != 0 {
			t.Error("it is still there")
		}
	})
}

func TestRunnerTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, Config{})
		defer b.stop()
		b.take(time.Hour)
		b.set(t, "web", Spec{Interval: 2 * time.Second, Timeout: 5 * time.Second, Fall: 2}) // more than the interval
		b.until(4)
		b.want(t, "changes", &b.changes, "web Failing@4")
		b.want(t, "one at a time", &b.probes, "web@0, web@2, web@4")
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.most != 1 {
			t.Errorf("%d probes of one target at a time", b.most)
		}
	})
}

// Removed or replaced while a probe runs: it is cancelled and not counted.
func TestRunnerRemoveWhileProbing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, Config{})
		defer b.stop()
		b.take(900 * time.Millisecond)
		b.set(t, "web", Spec{Fall: 1})
		b.set(t, "db", Spec{Fall: 1})
		b.until(0.5)
		b.Remove("web")
		if err := b.Set("db", Spec{Type: "fake", Target: Target{Path: "db2"}}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		b.mu.Lock()
		if b.running != 1 {
			t.Errorf("%d running, want db2 only", b.running)
		}
		b.mu.Unlock()
		b.until(5)
		b.want(t, "changes", &b.changes, "db Passing@1.4")
	})
}

// A prober that does not listen to its context: its result still does not count.
func TestRunnerStubbornProber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var changes []string
		r, err := NewRunner(Config{
			Probers: map[string]Prober{"fake": func(context.Context, Target) Result {
				<-time.After(time.Minute)
				return passed("")
			}},
			OnChange: func(key string, s health.State, _ string, _ time.Time) { changes = append(changes, key) },
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.Run(ctx) }()
		if err := r.Set("web", Spec{Type: "fake", Timeout: time.Second}); err != nil {
			t.Fatal(err)
		}
		<-time.After(30 * time.Second) // its time is long up, so that removing cancels nothing any more
		r.Remove("web")
		<-time.After(time.Hour)
		synctest.Wait()
		cancel()
		<-done
		if len(changes) > 0 || r.Len() != 0 || len(r.queue) != 0 {
			t.Errorf("told %v, %d targets, %d queued", changes, r.Len(), len(r.queue))
		}
	})
}

// Thousands at once: not in one burst, not more than Concurrency at a time,
// and nobody is forgotten or comes twice.
func TestRunnerManyTargets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, Config{Concurrency: 20, Rate: 500})
		defer b.stop()
		b.take(10 * time.Millisecond)
		for i := range 2000 {
			b.set(t, fmt.Sprint("t", i), Spec{Interval: 10 * time.Second})
		}
		b.until(5)
		b.mu.Lock()
		if len(b.probes) != 2000 || len(b.changes) != 2000 {
			t.Errorf("%d probes and %d changes after 5 s, want each target once", len(b.probes), len(b.changes))
		}
		if b.most > 20 {
			t.Errorf("%d at a time, want at most 20", b.most)
		}
		perSecond := map[string]int{}
		for _, p := range b.probes {
			_, at, _ := strings.Cut(p, "@")
			second, _, _ := strings.Cut(at, ".")
			perSecond[second]++
		}
		if len(perSecond) < 3 {
			t.Errorf("not spread: %v", perSecond)
		}
		b.mu.Unlock()
		b.until(15)
		b.mu.Lock()
		if len(b.probes) != 4000 {
			t.Errorf("%d probes after 15 s, want 4000", len(b.probes))
		}
		b.mu.Unlock()
		for i := range 2000 {
			b.Remove(fmt.Sprint("t", i))
		}
		if b.Len() != 0 || b.first != 0 || len(b.queue) != 0 {
			t.Errorf("left behind: %d targets, %d first, %d queued", b.Len(), b.first, len(b.queue))
		}
	})
}

// Too few slots: late, but in turn.
func TestRunnerOverload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, Config{Concurrency: 1})
		defer b.stop()
		b.take(900 * time.Millisecond)
		for i := range 5 {
			b.set(t, fmt.Sprint("t", i), Spec{Interval: time.Second})
		}
		b.until(90)
		b.mu.Lock()
		defer b.mu.Unlock()
		count := map[string]int{}
		for _, p := range b.probes {
			key, _, _ := strings.Cut(p, "@")
			count[key]++
		}
		for key, n := range count {
			if n < 18 || n > 22 {
				t.Errorf("%s was probed %d times of %d: not in turn", key, n, len(b.probes))
			}
		}
		if len(count) != 5 {
			t.Errorf("probed: %v", count)
		}
	})
}

func TestRunnerCallbackMayCallBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r *Runner
		r, err := NewRunner(Config{
			Probers:  map[string]Prober{"fake": func(context.Context, Target) Result { return passed("") }},
			OnChange: func(key string, _ health.State, _ string, _ time.Time) { r.Remove(key) },
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.Run(ctx) }()
		if err := r.Set("web", Spec{Type: "fake"}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if r.Len() != 0 {
			t.Error("still there")
		}
		cancel()
		<-done
	})
}

func TestRunnerUnknownType(t *testing.T) {
	r, err := NewRunner(Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Set("web", Spec{Type: "icmp"}); err == nil || !strings.Contains(err.Error(), "use http, tcp, grpc or exec") {
		t.Errorf("error %v", err)
	}
}

// The whole way, with a real server and real time.
func TestRunnerReal(t *testing.T) {
	down := make(chan bool, 1)
	down <- false
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		d := <-down
		down <- d
		if d {
			w.WriteHeader(503)
		}
	}))
	defer s.Close()
	changes := make(chan string, 10)
	reg := prometheus.NewRegistry()
	r, err := NewRunner(Config{Registerer: reg, OnChange: func(key string, s health.State, reason string, _ time.Time) {
		changes <- fmt.Sprint(key, " ", s, " ", reason)
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	if err := r.Set("web", Spec{Type: TypeHTTP, Target: targetOf(t, s.Listener.Addr().String()), Interval: 2 * time.Second, Timeout: 2 * time.Second, Fall: 2}); err != nil {
		t.Fatal(err)
	}
	if got := <-changes; got != "web Passing HTTP 200 OK" {
		t.Errorf("got %q", got)
	}
	<-down
	down <- true
	if got := <-changes; got != "web Failing HTTP 503 Service Unavailable" {
		t.Errorf("got %q", got)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range families {
		names = append(names, f.GetName())
	}
	want := []string{"fingerpost_probe_duration_seconds", "fingerpost_probe_results_total", "fingerpost_probe_targets_count"}
	if !slices.Equal(names, want) {
		t.Errorf("metrics %v, want %v", names, want)
	}
	cancel()
	if err := <-done; err != context.Canceled {
		t.Errorf("Run ended with %v", err)
	}
}
