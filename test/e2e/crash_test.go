//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestCrash kills the server with kill -9 under 200 writes a second. Every
// acknowledged write is there after the restart, and nothing half-written. A
// separate node goes on answering meanwhile, says that it is stale, and
// catches up.
func TestCrash(t *testing.T) {
	t.Parallel()
	at := newSite(t)
	sys := layout(at, 1, t.TempDir()).launch(t, "server")
	sys.makeNamespace(t, "crash")
	view := startNode(t, sys, 2)

	start(t, "run", sys.fingerpost(t, "run", "-n", "crash", "--name", "web", "--port", "0", "--replicas", "2", "--", "web", "-listen", "127.0.0.1:{port}"))
	eventually(t, "two endpoints", func() error { return readyEndpoints(sys, t, "crash", "web", 2) })
	ip := sys.clusterIP(t, "crash", "web")
	url := "http://" + ip + ":8080/"
	wantDNS(t, view.dns, "web.crash.svc.cluster.local", dns.TypeA, "A "+ip)
	eventually(t, "both answer through the node", func() error {
		n := len(answers(url, 20))
		return unless(n == 2, "%d processes answer", n)
	})
	if got := view.metric("fingerpost_door_kube_stale_state"); got != "0" {
		t.Errorf("stale metric of a fresh node: %q", got)
	}

	w := startWriters(t, sys.api(t), "crash", 8, 250) // a busy machine misses some ticks
	eventually(t, "writes", func() error { return unless(w.acknowledged() > 400, "%d acknowledged", w.acknowledged()) })
	sys.kill()
	died := time.Now()
	w.stop()
	rate := float64(w.acknowledged()) / died.Sub(w.began).Seconds()

	load := startLoad(url, 2)
	defer load.stop()
	eventually(t, "the node says that it is stale", func() error {
		got := view.metric("fingerpost_door_kube_stale_state")
		return unless(got == "1", "metric %q", got)
	})
	stale := time.Since(died)
	if text := view.text(); !strings.Contains(text, "marked stale") {
		t.Errorf("the node's log does not say that it is stale:\n%s", tail(text, 20))
	}
	wantDNS(t, view.dns, "web.crash.svc.cluster.local", dns.TypeA, "A "+ip)
	if n := len(answers(url, 20)); n != 2 {
		t.Errorf("%d of 2 processes answer while the server is away", n)
	}
	if code, body := fetch("http://" + view.obs + "/readyz"); code != 200 || !strings.Contains(body, "stale since") {
		t.Errorf("/readyz of a stale node, which answers: %d %s", code, body)
	}

	sys.launch(t, "server")
	w.verify(t, sys.api(t))
	verifyAddresses(t, sys.api(t))
	eventually(t, "the node is fresh again", func() error {
		got := view.metric("fingerpost_door_kube_stale_state")
		return unless(got == "0", "metric %q", got)
	})
	sys.must(t, "create", "service", "externalname", "after", "-n", "crash", "--external-name=after.example.com")
	wantDNS(t, view.dns, "after.crash.svc.cluster.local", dns.TypeCNAME, "CNAME after.example.com.")
	eventually(t, "both endpoints are still there", func() error { return readyEndpoints(sys, t, "crash", "web", 2) })
	load.stop()
	for _, c := range load.calls {
		if c.err != nil {
			t.Errorf("a call failed while the server was away: %v", c.err)
			break
		}
	}
	t.Logf("%d writes acknowledged at %.0f/s; stale after %v; %d calls while the server was away, none failed", w.acknowledged(), rate, stale.Round(time.Millisecond), len(load.calls))

	// A graceful stop loses nothing either, and is quick.
	began := time.Now()
	sys.stop()
	if code := sys.code(t); code != 0 {
		t.Errorf("after SIGTERM: exit %d", code)
	}
	t.Logf("stopped in %v", time.Since(began).Round(time.Millisecond))
	sys.launch(t, "server")
	w.verify(t, sys.api(t))
}

// startNode runs a node of its own beside a server.
func startNode(t testing.TB, sys *system, host int) *system {
	t.Helper()
	n := layout(sys.site, host, t.TempDir())
	n.data = sys.data // for the kubeconfig
	n.child = start(t, "node", n.fingerpost(t, "node", "--kubeconfig", sys.kubeconfig(), "--dns-address", n.dns, "--metrics-address", n.obs,
		"--node-address", strings.TrimSuffix(n.dns, ":8053"), "--service-cidr", sys.site.cidr()))
	if err := n.waitFor("is ready"); err != nil {
		t.Fatal(err)
	}
	return n
}

// writers write as fast as they are told and remember what was acknowledged.
type writers struct {
	ns    string
	began time.Time
	count atomic.Int64
	quit  chan struct{}
	wg    sync.WaitGroup

	mu sync.Mutex
	// Per object: what may be there. One state after an acknowledgement; two
	// while a write is under way, as nobody knows whether it was done. "" is
	// no object.
	may map[string][]string
}

func startWriters(t testing.TB, api *client, ns string, workers, perSecond int) *writers {
	w := &writers{ns: ns, began: time.Now(), quit: make(chan struct{}), may: map[string][]string{}}
	tokens := make(chan struct{})
	w.wg.Go(func() {
		tick := time.NewTicker(time.Second / time.Duration(perSecond))
		defer tick.Stop()
		defer close(tokens)
		for {
			select {
			case <-w.quit:
				return
			case <-tick.C:
			}
			select {
			case tokens <- struct{}{}:
			case <-w.quit:
				return
			}
		}
	})
	for i := range workers {
		w.wg.Go(func() {
			n := 0
			for range tokens {
				if !w.step(t, api, i, n) {
					return
				}
				n++
			}
		})
	}
	return w
}

// step does the worker's n-th write: create, create, change the first, delete
// the second, and so on; every tenth object is a Service.
func (w *writers) step(t testing.TB, api *client, worker, n int) bool {
	round, phase := n/4, n%4
	service := round%10 == 0
	kind := "configmaps"
	if service {
		kind = "services"
	}
	base := "/api/v1/namespaces/" + w.ns + "/" + kind
	name := fmt.Sprintf("w%d-%d-%d", worker, round, phase%2)
	key := kind + "/" + name
	first, second := fmt.Sprintf("%s-first", name), fmt.Sprintf("%s-second", name)
	method, path, body, before, after, want := "POST", base, "", "", first, http.StatusCreated
	switch {
	case phase == 3:
		method, path, before, after, want = "DELETE", base+"/"+name, first, "", http.StatusOK
	case phase == 2:
		method, path, before, after, want = "PATCH", base+"/"+name, first, second, http.StatusOK
		body = object(service, name, second)
	default:
		body = object(service, name, first)
	}
	w.set(key, before, after)
	code, text, err := api.try(method, path, body)
	if err != nil {
		return false // the server is gone; either may be true
	}
	if code != want {
		select {
		case <-w.quit:
		default:
			t.Errorf("%s %s: %d %s", method, path, code, text)
		}
		return false
	}
	w.set(key, after)
	w.count.Add(1)
	return true
}

// object holds its value twice: a half-written one would show.
func object(service bool, name, value string) string {
	pad := strings.Repeat("x", 500)
	meta := fmt.Sprintf(`"metadata":{"name":%q,"annotations":{"a":%q,"pad":%q,"b":%q}}`, name, value, pad, value)
	if service {
		return `{` + meta + `,"spec":{"ports":[{"port":80}]}}`
	}
	return `{` + meta + `,"data":{"value":"` + value + `"}}`
}

func (w *writers) set(key string, states ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.may[key] = states
}

func (w *writers) acknowledged() int { return int(w.count.Load()) }

func (w *writers) stop() {
	close(w.quit)
	w.wg.Wait()
}

// verify compares what is there with what was acknowledged.
func (w *writers) verify(t testing.TB, api *client) {
	t.Helper()
	have := map[string]string{}
	for _, kind := range []string{"configmaps", "services"} {
		var list struct {
			Items []struct {
				Metadata struct {
					Name        string
					Annotations map[string]string
				}
				Data map[string]string
			}
		}
		api.get(t, "/api/v1/namespaces/"+w.ns+"/"+kind, &list)
		for _, o := range list.Items {
			a := o.Metadata.Annotations["a"]
			if a == "" {
				continue // not of a writer
			}
			if b := o.Metadata.Annotations["b"]; b != a || kind == "configmaps" && o.Data["value"] != a {
				t.Errorf("%s/%s is half-written: %q, %q, %q", kind, o.Metadata.Name, a, b, o.Data["value"])
			}
			have[kind+"/"+o.Metadata.Name] = a
		}
	}
	wrong := 0
	for key, may := range w.may {
		if !slices.Contains(may, have[key]) {
			if wrong++; wrong < 10 {
				t.Errorf("%s is %q, acknowledged was %q", key, have[key], may)
			}
		}
		// What was under way is known now.
		w.may[key] = []string{have[key]}
	}
	if wrong > 0 {
		t.Errorf("%d of %d objects are not as acknowledged", wrong, len(w.may))
	}
}

// verifyAddresses: no ClusterIP twice, and one record of allocation for each.
func verifyAddresses(t testing.TB, api *client) {
	t.Helper()
	var services struct {
		Items []struct {
			Metadata struct{ Namespace, Name string }
			Spec     struct{ ClusterIPs []string }
		}
	}
	api.get(t, "/api/v1/services", &services)
	var records struct {
		Items []struct {
			Metadata struct{ Name string }
			Spec     struct {
				ParentRef struct{ Namespace, Name string }
			}
		}
	}
	api.get(t, "/apis/networking.k8s.io/v1/ipaddresses", &records)
	of := map[string]string{}
	for _, r := range records.Items {
		of[r.Metadata.Name] = r.Spec.ParentRef.Namespace + "/" + r.Spec.ParentRef.Name
	}
	owner := map[string]string{}
	for _, s := range services.Items {
		name := s.Metadata.Namespace + "/" + s.Metadata.Name
		for _, ip := range s.Spec.ClusterIPs {
			if ip == "None" {
				continue
			}
			if other := owner[ip]; other != "" {
				t.Errorf("%s and %s both have %s", name, other, ip)
			}
			owner[ip] = name
			if of[ip] != name {
				t.Errorf("%s has %s, which is recorded for %q", name, ip, of[ip])
			}
		}
	}
}

// TestSnapshot saves the state of a running server and restores it.
func TestSnapshot(t *testing.T) {
	t.Parallel()
	sys := dev(t)
	sys.must(t, "create", "service", "clusterip", "before", "--tcp=8080")
	ip := sys.clusterIP(t, "default", "before")
	file := filepath.Join(t.TempDir(), "backup.db")
	if r := finish(t, sys.fingerpost(t, "snapshot", "save", file)); r.code != 0 {
		t.Fatalf("snapshot save: exit %d\n%s%s", r.code, r.out, r.err)
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the snapshot holds Secrets: %v %v, want mode 0600", st.Mode(), err)
	}
	sys.must(t, "create", "service", "clusterip", "after", "--tcp=8080")
	sys.must(t, "delete", "service", "before")

	r := finish(t, sys.fingerpost(t, "snapshot", "restore", file))
	if r.code == 0 || !strings.Contains(r.err, "in use") {
		t.Errorf("restore under a running server: exit %d\n%s%s", r.code, r.out, r.err)
	}
	sys.stop()
	bad := filepath.Join(t.TempDir(), "bad.db")
	if err := os.WriteFile(bad, []byte("no database"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := finish(t, sys.fingerpost(t, "snapshot", "restore", bad)); r.code == 0 || strings.Contains(r.err, "goroutine") {
		t.Errorf("restore of a damaged file: exit %d\n%s%s", r.code, r.out, r.err)
	}
	if r := finish(t, sys.fingerpost(t, "snapshot", "restore", file)); r.code != 0 {
		t.Fatalf("snapshot restore: exit %d\n%s%s", r.code, r.out, r.err)
	}
	sys.launch(t, "dev")
	var list struct {
		Items []struct{ Metadata struct{ Name string } }
	}
	sys.api(t).get(t, "/api/v1/namespaces/default/services", &list)
	if b, _ := json.Marshal(list.Items); string(b) != `[{"Metadata":{"Name":"before"}},{"Metadata":{"Name":"kubernetes"}}]` {
		t.Errorf("after the restore: %s", b)
	}
	if now := sys.clusterIP(t, "default", "before"); now != ip {
		t.Errorf("the ClusterIP was %s, is %s", ip, now)
	}
	// The credentials of before are good, and what is new works.
	sys.must(t, "create", "service", "clusterip", "new", "--tcp=8080")
	wantDNS(t, sys.dns, "new.default.svc.cluster.local", dns.TypeA, "A "+sys.clusterIP(t, "default", "new"))
	verifyAddresses(t, sys.api(t))
}
