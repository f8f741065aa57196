//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestFailureUnderLoad is the first thing to show: two processes behind a
// ClusterIP under load; one is killed, or fails its check. Nothing fails once
// its removal was seen, nothing goes to it any more, watch says who noticed,
// and it comes back.
func TestFailureUnderLoad(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		harm, heal func(t *testing.T, pid int, addr string)
		by         string
		reasons    []string // any of them
		same       bool     // it comes back as the same process
	}{
		"kill -9": {
			harm: func(t *testing.T, pid int, _ string) {
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
			},
			heal: func(*testing.T, int, string) {}, // fingerpost run starts it again
			by:   "process",
			// The kernel closes a killed process's socket before its parent is told,
			// so a check that falls in between is the first to see it.
			reasons: []string{"killed", "connection refused", "connection reset", "EOF"},
		},
		"failed check": {
			harm: func(t *testing.T, _ int, addr string) { post(t, "http://"+addr+"/fail") },
			heal: func(t *testing.T, _ int, addr string) { post(t, "http://"+addr+"/heal") },
			by:   "", reasons: []string{"503"}, same: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sys, ns := common.namespace(t, "show")
			run := start(t, "run", sys.fingerpost(t, "run", "-n", ns, "--name", "web", "--port", "0", "--replicas", "2",
				"--ready", "http:/healthz", "--ready-interval", "100ms", "--ready-timeout", "30s", "--ready-fall", "1", "--", "web", "-listen", "127.0.0.1:{port}"))
			eventually(t, "two ready endpoints", func() error { return readyEndpoints(sys, t, ns, "web", 2) })
			url := "http://" + sys.clusterIP(t, ns, "web") + ":8080/"
			var found map[int]string
			eventually(t, "answers of two processes", func() error {
				found = answers(url, 20)
				return unless(len(found) == 2, "answers of %v", found)
			})
			watch := startApart(t, "watch", sys.fingerpost(t, "watch", "-n", ns, "web", "-o", "json"))
			if err := watch.waitFor("Watching"); err != nil {
				t.Fatal(err)
			}
			load := startLoad(url, 4)
			defer load.stop()
			eventually(t, "load", func() error { return unless(load.count() > 200, "%d calls", load.count()) })

			var victim int
			for victim = range found { // either will do
				break
			}
			began := time.Now()
			c.harm(t, victim, found[victim])
			gone := awaitChange(t, watch, began, true)
			// The EndpointSlice may be seen before the Instance, which knows who
			// noticed: then that is another line.
			var told seen
			eventually(t, "watch says who noticed, why, and how long it took", func() error {
				for _, told = range changesOf(watch) {
					if told.Endpoint == gone.Endpoint && !told.Time.Before(gone.Time) && told.By != "" && strings.Contains(told.By, c.by) && told.TookMS != nil &&
						slices.ContainsFunc(c.reasons, func(r string) bool { return strings.Contains(told.Reason, r) }) {
						return nil
					}
				}
				return fmt.Errorf("%+v", changesOf(watch))
			})
			// Watch is another process than the one that serves the virtual IP, and
			// either may see a change first. By chance, 200 calls in a row do not
			// leave out one of two.
			var out time.Time
			eventually(t, "calls go on without the harmed process", func() error {
				out = load.without(victim, gone.Time, 200)
				return unless(!out.IsZero(), "among %d calls are never 200 in a row", load.count())
			})
			healed := time.Now()
			c.heal(t, victim, found[victim])
			back := awaitChange(t, watch, gone.Time, false)
			eventually(t, "two processes are called again", func() error {
				now := answers(url, 20)
				_, same := now[victim]
				return unless(len(now) == 2 && same == c.same, "answers of %v, the harmed one was %d", now, victim)
			})
			load.stop()

			// A call that was under way when it was harmed may fail or be answered late.
			failed := 0
			for _, call := range load.calls {
				during := call.began.After(out) && call.ended.Before(back.Time) && (!c.same || call.ended.Before(healed))
				switch {
				case call.err != nil && (call.ended.Before(began) || call.began.After(out)):
					t.Errorf("a call failed %v after the harm, which was seen after %v: %v", call.began.Sub(began), gone.Time.Sub(began), call.err)
				case call.err != nil:
					failed++
				case call.pid == victim && during:
					t.Errorf("the harmed process answers a call made %v after it was seen to be out", call.began.Sub(gone.Time))
				}
			}
			t.Logf("seen by watch %v after the harm (%.1f ms after it was noticed by %s: %s); out of the virtual IP %v after it; %d calls, %d failed in between",
				gone.Time.Sub(began).Round(time.Millisecond), *told.TookMS, told.By, told.Reason, out.Sub(began).Round(time.Millisecond), len(load.calls), failed)

			// Stopping deregisters.
			run.stop()
			if code := run.code(t); code != 0 {
				t.Errorf("fingerpost run exits with %d", code)
			}
			eventually(t, "no endpoint left", func() error { return readyEndpoints(sys, t, ns, "web", 0) })
		})
	}
}

func post(t testing.TB, url string) {
	t.Helper()
	res, err := caller.Post(url, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
}

// awaitChange waits for watch to show that an endpoint goes, or comes back,
// after a time.
func awaitChange(t testing.TB, watch *child, after time.Time, goes bool) (found seen) {
	t.Helper()
	eventually(t, "the change seen by watch", func() error {
		for _, c := range changesOf(watch) {
			if c.Time.After(after) && c.Endpoint != "" && (goes && strings.HasPrefix(c.From, "READY") && c.To != "READY" || !goes && c.To == "READY") {
				found = c
				return nil
			}
		}
		return fmt.Errorf("watch says: %s", watch.output())
	})
	return found
}

// seen is a line of fingerpost watch -o json.
type seen struct {
	Time                     time.Time
	Service, Endpoint        string
	From, To, By, Reason     string
	TookMS                   *float64
	Change, Origin, NodeName string
}

func changesOf(watch *child) (all []seen) {
	dec := json.NewDecoder(strings.NewReader(watch.output()))
	for {
		var c seen
		if dec.Decode(&c) != nil {
			return all
		}
		all = append(all, c)
	}
}

// readyEndpoints wants so many ready endpoints in a service's slices.
func readyEndpoints(sys *system, t testing.TB, ns, service string, want int) error {
	var list struct {
		Items []struct {
			Endpoints []struct {
				Addresses  []string
				Conditions struct{ Ready *bool }
			}
		}
	}
	code, body := sys.api(t).do("GET", "/apis/discovery.k8s.io/v1/namespaces/"+ns+"/endpointslices?labelSelector=kubernetes.io/service-name="+service, "")
	if err := json.Unmarshal([]byte(body), &list); err != nil || code != 200 {
		return fmt.Errorf("%d %s", code, body)
	}
	n := 0
	for _, s := range list.Items {
		for _, e := range s.Endpoints {
			if e.Conditions.Ready == nil || *e.Conditions.Ready {
				n += len(e.Addresses)
			}
		}
	}
	return unless(n == want, "%d ready endpoints of %s, want %d: %s", n, service, want, body)
}

// answers calls a web so many times and gives the processes that answered,
// with their names.
func answers(url string, calls int) map[int]string {
	have := map[int]string{}
	for range calls {
		if pid, name, err := callWeb(url); err == nil {
			have[pid] = name
		}
	}
	return have
}

// names is answers, by the names that they give themselves.
func names(url string, calls int) map[string]int {
	have := map[string]int{}
	for range calls {
		_, name, err := callWeb(url)
		if err != nil {
			name = "error: " + err.Error()
		}
		have[name]++
	}
	return have
}

func callWeb(url string) (pid int, name string, err error) {
	code, body := fetch(url)
	if code != 200 {
		return 0, "", fmt.Errorf("%d %s", code, body)
	}
	name, id, _ := strings.Cut(strings.TrimSpace(body), " ")
	pid, err = strconv.Atoi(id)
	return pid, name, err
}

// load calls a URL without pause.
type load struct {
	mu    sync.Mutex
	calls []call
	quit  chan struct{}
	once  sync.Once
	wg    sync.WaitGroup
}

type call struct {
	began, ended time.Time
	pid          int
	err          error
}

func startLoad(url string, workers int) *load {
	l := &load{quit: make(chan struct{})}
	for range workers {
		l.wg.Go(func() {
			for {
				select {
				case <-l.quit:
					return
				case <-time.After(2 * time.Millisecond): // leave something of the machine to the others
				}
				c := call{began: time.Now()}
				c.pid, _, c.err = callWeb(url)
				c.ended = time.Now()
				l.mu.Lock()
				l.calls = append(l.calls, c)
				l.mu.Unlock()
			}
		})
	}
	return l
}

func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.calls)
}

// without gives when the first of n calls in a row began that were answered,
// and not by this process; only what began after a time counts.
func (l *load) without(pid int, after time.Time, n int) (first time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	row := 0
	for _, c := range l.calls {
		switch {
		case !c.began.After(after):
		case c.err != nil || c.pid == pid:
			row = 0
		default:
			if row++; row == 1 {
				first = c.began
			}
			if row == n {
				return first
			}
		}
	}
	return time.Time{}
}

func (l *load) stop() {
	l.once.Do(func() { close(l.quit) })
	l.wg.Wait()
}

// TestRunGivesEnvironment: a process started after a Service finds it in its
// environment, one started before does not.
func TestRunGivesEnvironment(t *testing.T) {
	t.Parallel()
	sys, ns := common.namespace(t, "env")
	serve := func(name string) string {
		start(t, "run-"+name, sys.fingerpost(t, "run", "-n", ns, "--name", name, "--port", "0", "--", "web", "-listen", "127.0.0.1:{port}"))
		eventually(t, name, func() error { return readyEndpoints(sys, t, ns, name, 1) })
		var env string
		eventually(t, name+" answers", func() error {
			var code int
			code, env = fetch("http://" + sys.clusterIP(t, ns, name) + ":8080/env")
			return unless(code == 200, "%d %s", code, env)
		})
		return env
	}
	first := serve("my-app")
	second := serve("mysql")
	if strings.Contains(first, "MYSQL_SERVICE_HOST=") {
		t.Error("a process knows a Service that was made after it")
	}
	ip := sys.clusterIP(t, ns, "my-app")
	for _, want := range []string{"MY_APP_SERVICE_HOST=" + ip, "MY_APP_SERVICE_PORT=8080", "MY_APP_PORT_8080_TCP_ADDR=" + ip, "KUBERNETES_SERVICE_HOST=", fmt.Sprintf("MY_APP_PORT=tcp://%s:8080", ip)} {
		if !strings.Contains(second, want) {
			t.Errorf("the environment of mysql lacks %s:\n%s", want, second)
		}
	}
	r := finish(t, sys.fingerpost(t, "env", "-n", ns))
	if r.code != 0 || !strings.Contains(r.out, "MYSQL_SERVICE_HOST=") {
		t.Errorf("fingerpost env: exit %d\n%s%s", r.code, r.out, r.err)
	}
}
