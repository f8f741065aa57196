//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestKillUnderLoad is the first thing to show: two processes behind a
// ClusterIP under load, one killed with kill -9. Nothing fails once its
// removal was seen, nothing goes to it any more, watch says who noticed, and
// it comes back.
func TestKillUnderLoad(t *testing.T) {
	t.Parallel()
	sys, ns := common.namespace(t, "show")
	run := start(t, "run", sys.fingerpost(t, "run", "-n", ns, "--name", "web", "--port", "0", "--replicas", "2",
		"--ready", "http:/healthz", "--ready-interval", "100ms", "--", "web", "-listen", "127.0.0.1:{port}"))
	eventually(t, "two ready endpoints", func() error { return readyEndpoints(sys, t, ns, "web", 2) })
	url := "http://" + sys.clusterIP(t, ns, "web") + ":8080/"
	var pids []int
	eventually(t, "answers of two processes", func() error {
		pids = answers(url, 20)
		return unless(len(pids) == 2, "answers of %v", pids)
	})

	watch := startApart(t, "watch", sys.fingerpost(t, "watch", "-n", ns, "web", "-o", "json"))
	if err := watch.waitFor("Watching"); err != nil {
		t.Fatal(err)
	}
	load := startLoad(url, 4)
	defer load.stop()
	eventually(t, "load", func() error { return unless(load.count() > 200, "%d calls", load.count()) })

	victim := pids[0]
	killed := time.Now()
	if err := syscall.Kill(victim, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	// What the watcher has seen, every view has been given.
	var gone seen
	eventually(t, "the removal seen by watch", func() error {
		for _, c := range changesOf(watch) {
			if strings.HasPrefix(c.From, "READY") && c.To != "READY" && c.Time.After(killed) {
				gone = c
				return nil
			}
		}
		return fmt.Errorf("watch says: %s", watch.output())
	})
	if gone.By == "" || gone.Reason == "" || gone.TookMS == nil {
		t.Errorf("watch does not say who noticed, why, and how long it took: %+v", gone)
	}
	eventually(t, "the process restarted, and called again", func() error {
		now := answers(url, 20)
		return unless(len(now) == 2, "answers of %v", now)
	})
	returned := false
	for _, c := range changesOf(watch) {
		returned = returned || c.To == "READY" && c.Time.After(gone.Time)
	}
	if !returned {
		t.Errorf("watch does not show the return:\n%s", watch.output())
	}
	before := load.count()
	eventually(t, "load goes on", func() error { return unless(load.count() > before+200, "%d calls", load.count()) })
	load.stop()

	var failed, late, other int
	for _, c := range load.calls {
		switch {
		case c.err != nil && c.ended.Before(killed):
			t.Errorf("a call failed before anything happened: %v", c.err)
		case c.err != nil && c.began.After(gone.Time):
			other++
			t.Errorf("a call failed %v after the removal was seen: %v", c.began.Sub(gone.Time), c.err)
		case c.err != nil:
			failed++
		case c.pid == victim && c.began.After(gone.Time):
			late++
		}
	}
	if late > 0 {
		t.Errorf("%d calls answered by the killed process after its removal", late)
	}
	if other > 10 {
		t.FailNow()
	}
	t.Logf("killed -> removed seen in %v (watch: %v ms, by %s: %s); %d calls, %d failed in between",
		gone.Time.Sub(killed).Round(time.Millisecond), *gone.TookMS, gone.By, gone.Reason, len(load.calls), failed)

	// Stopping deregisters.
	run.stop()
	if code := run.code(t); code != 0 {
		t.Errorf("fingerpost run exits with %d", code)
	}
	eventually(t, "no endpoint left", func() error { return readyEndpoints(sys, t, ns, "web", 0) })
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

// answers calls a web so many times and gives the processes that answered.
func answers(url string, calls int) (pids []int) {
	have := map[int]bool{}
	for range calls {
		if pid, _, err := callWeb(url); err == nil && !have[pid] {
			have[pid] = true
			pids = append(pids, pid)
		}
	}
	return pids
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
