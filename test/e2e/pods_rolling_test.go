//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// pressure is requests at a steady rate, most of them on connections of their own.
type pressure struct {
	sent, failed atomic.Int64
	mu           sync.Mutex
	first        []string // of the errors
	cancel       context.CancelFunc
	done         chan struct{}
}

// press sends so many requests a second from a machine until stop; fewer if
// the answers come so late that eight are waited for: on a machine that is
// overrun, answers come late whatever a system does.
func (m *machine) press(url string, rate int) *pressure {
	ctx, cancel := context.WithCancel(context.Background())
	l := &pressure{cancel: cancel, done: make(chan struct{})}
	// Late is not failed; lost is.
	each := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true, DialContext: m.dial}}
	kept := &http.Client{Timeout: patience, Transport: &http.Transport{DialContext: m.dial, MaxIdleConnsPerHost: 50}}
	go func() {
		defer close(l.done)
		defer kept.CloseIdleConnections()
		var wg sync.WaitGroup
		defer wg.Wait()
		tick := time.NewTicker(time.Second / time.Duration(rate))
		defer tick.Stop()
		slots := make(chan struct{}, 8)
		for i := 0; ; i++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			slots <- struct{}{}
			client := each
			if i%5 == 0 {
				client = kept
			}
			wg.Go(func() { l.request(client, url); <-slots })
		}
	}()
	return l
}

func (l *pressure) request(client *http.Client, url string) {
	l.sent.Add(1)
	began := time.Now()
	res, err := client.Get(url)
	if err == nil {
		_, err = io.Copy(io.Discard, res.Body)
		res.Body.Close()
		if err == nil && res.StatusCode != http.StatusOK {
			err = fmt.Errorf("status %d", res.StatusCode)
		}
	}
	took := time.Since(began)
	// A server that ends waits 5 s for the request on a new connection (net/http):
	// a machine that is so overrun says nothing.
	if err == nil || errors.Is(err, io.EOF) && took > 4*time.Second {
		return
	}
	l.failed.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.first) < 5 {
		l.first = append(l.first, fmt.Sprintf("%s after %v: %v", began.Format("15:04:05.000"), took.Round(time.Millisecond), err))
	}
}

func (l *pressure) stop() {
	l.cancel()
	<-l.done
}

// TestPodsRollingUpdate: a Deployment with nothing but a readiness probe is
// rolled over while it is called 500 times a second, and nobody notices. No
// other test runs beside it: on a machine that is overrun, answers come late
// whatever a system does.
func TestPodsRollingUpdate(t *testing.T) {
	for nodes, name := range map[int]string{1: "one node", 2: "two nodes"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := podClusters.shared(t, nodes)
			ns := c.namespace(t, "rolling")
			c.apply(t, ns, `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: nginx:1.27
        ports: [{containerPort: 80}]
        readinessProbe: {httpGet: {path: /healthz, port: 80}, periodSeconds: 1, timeoutSeconds: 20}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
`)
			c.ready(t, ns, "app=web", 3)
			url := "http://" + c.clusterIP(t, ns, "web") + "/"
			eventually(t, "the Service answers", func() error {
				code, body := c.server().fetch(url)
				return unless(code == 200, "%d %s", code, body)
			})
			l := c.server().press(url, 500)
			for _, image := range []string{"nginx:1.28", "nginx:1.29"} {
				c.must(t, "set", "image", "deployment/web", "web="+image, "-n", ns)
				c.must(t, "rollout", "status", "deployment/web", "-n", ns, "--timeout=180s")
			}
			c.must(t, "rollout", "undo", "deployment/web", "-n", ns)
			c.must(t, "rollout", "status", "deployment/web", "-n", ns, "--timeout=180s")
			eventually(t, "the old pods are gone", func() error {
				list, err := c.client.CoreV1().Pods(ns).List(t.Context(), metav1.ListOptions{})
				if err != nil {
					return err
				}
				return unless(len(list.Items) == 3, "there are %d pods", len(list.Items))
			})
			l.stop()
			if n := l.failed.Load(); n > 0 {
				t.Errorf("%d of %d requests failed:\n%s", n, l.sent.Load(), strings.Join(l.first, "\n"))
			}
			if l.sent.Load() < 500 {
				t.Errorf("only %d requests were sent", l.sent.Load())
			}
			if got := c.must(t, "get", "deployment", "web", "-n", ns, "-o", "jsonpath={.spec.template.spec.containers[0].image}"); got != "nginx:1.28" {
				t.Errorf("after rollout undo the image is %s", got)
			}
		})
	}
}

// TestPodsKilled: a process that was killed is out of every view long before a
// probe would have noticed: its probe runs once in five minutes.
func TestPodsKilled(t *testing.T) {
	t.Parallel()
	c := podClusters.shared(t, 2)
	ns := c.namespace(t, "killed")
	c.apply(t, ns, `
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: names}
spec: {clusterIP: None, selector: {app: web}, ports: [{port: 80}]}
---
`)
	// What is killed is found by the Service in its environment.
	c.machines[1].resolves(t, "web."+ns+".svc.cluster.local", dns.TypeA, c.clusterIP(t, ns, "web"))
	// Killed three times in a row: what the third waits for is a back-off of 20 s.
	const probe = "    readinessProbe: {httpGet: {path: /healthz, port: 80}, periodSeconds: 300, timeoutSeconds: 20, failureThreshold: 1}"
	for i, name := range []string{"one", "two"} {
		c.apply(t, ns, strings.Replace(webPod(name, "app: web", probe), "spec:", "spec:\n  nodeName: "+c.machines[i].name, 1))
	}
	pods := c.ready(t, ns, "app=web", 2)
	zone, url := "names."+ns+".svc.cluster.local", "http://"+c.clusterIP(t, ns, "web")+"/"
	for _, m := range c.machines {
		m.answers(t, url, "one", "two")
		m.resolves(t, zone, dns.TypeA, ips(pods)...)
	}
	two := pods[1]
	kill := func() time.Time {
		// From outside: the first process of a container cannot kill itself.
		c.machines[1].sh(t, `for p in /proc/[0-9]*; do if tr '\0' '\n' <$p/environ 2>/dev/null | grep -qx "WEB_SERVICE_HOST=`+c.clusterIP(t, ns, "web")+`"; then kill -9 ${p#/proc/}; fi; done; :`)
		return time.Now()
	}
	for restarts := range int32(2) {
		kill()
		c.pod(t, ns, "two", "restarted", func(p *corev1.Pod) bool {
			return p.Status.ContainerStatuses[0].RestartCount == restarts+1 && podReady(p)
		})
	}
	views := map[string]func() bool{
		"EndpointSlice": func() bool {
			slices, err := c.client.DiscoveryV1().EndpointSlices(ns).List(t.Context(), metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=web"})
			if err != nil {
				return false
			}
			for _, s := range slices.Items {
				for _, e := range s.Endpoints {
					if e.Addresses[0] == two.Status.PodIP && e.Conditions.Ready != nil && !*e.Conditions.Ready {
						return true
					}
				}
			}
			return false
		},
		"VIP": func() bool { // by chance, the other one does not answer 24 times
			for range 24 {
				if _, body := c.server().fetch(url); !strings.HasPrefix(body, "one ") {
					return false
				}
			}
			return true
		},
	}
	for i, m := range c.machines {
		views[fmt.Sprintf("DNS of node-%d", i+1)] = func() bool {
			_, data, err := m.ask(zone, dns.TypeA)
			return err == nil && len(data) == 1 && data[0] == pods[0].Status.PodIP
		}
	}
	// All at once: it comes back.
	at := kill()
	var mu sync.Mutex
	var wg sync.WaitGroup
	gone := map[string]time.Duration{}
	for view, out := range views {
		wg.Go(func() {
			if poll(func() error { return unless(out(), "") }) == nil {
				mu.Lock()
				defer mu.Unlock()
				gone[view] = time.Since(at).Round(time.Millisecond)
			}
		})
	}
	wg.Wait()
	t.Logf("out of every view after %v", gone)
	if len(gone) < len(views) {
		t.Errorf("the endpoint of a killed process is still in a view: gone only from %v", gone)
	}
	c.pod(t, ns, "two", "in back-off", func(p *corev1.Pod) bool {
		s := p.Status.ContainerStatuses[0]
		return s.State.Waiting != nil && s.State.Waiting.Reason == "CrashLoopBackOff" && s.LastTerminationState.Terminated != nil && s.LastTerminationState.Terminated.ExitCode == 137
	})
}
