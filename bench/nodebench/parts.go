//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// pod runs a small web server of busybox.
func pod(name string, labels map[string]string, probe *corev1.Probe) *corev1.Pod {
	grace := int64(1)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: &grace,
			Containers: []corev1.Container{{
				Name: "web", Image: "bench/busybox", ImagePullPolicy: corev1.PullIfNotPresent,
				Args: []string{"httpd", "-f", "-p", "80", "-h", "/etc"}, ReadinessProbe: probe,
			}},
		},
	}
}

func httpProbe(host, path string, port int) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Host: host, Path: path, Port: intstr.FromInt(port)}},
		PeriodSeconds: 1, FailureThreshold: 1,
	}
}

func ready(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// starting times pods from the request that creates them to the watch that
// says they are ready, one after the other.
func (b *bench) starting(ctx context.Context, c *cluster) error {
	for what, probe := range map[string]*corev1.Probe{"pod create → Ready, no probe": nil, "pod create → Ready, readiness probe": httpProbe("", "/hostname", 80)} {
		var all []time.Duration
		for i := range b.starts {
			took, err := c.timed(ctx, pod(fmt.Sprintf("start-%d", i), nil, probe))
			if err != nil {
				return err
			}
			all = append(all, took)
		}
		p50 := 0.0
		if probe == nil {
			p50 = 150
		}
		b.times(what, all, p50, 0)
		if err := c.empty(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (c *cluster) timed(ctx context.Context, p *corev1.Pod) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	pods := c.client.CoreV1().Pods("default")
	w, err := pods.Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + p.Name})
	if err != nil {
		return 0, err
	}
	defer w.Stop()
	began := time.Now()
	if _, err := pods.Create(ctx, p, metav1.CreateOptions{}); err != nil {
		return 0, err
	}
	for e := range w.ResultChan() {
		if p, ok := e.Object.(*corev1.Pod); ok && ready(p) {
			took := time.Since(began)
			return took, pods.Delete(ctx, p.Name, metav1.DeleteOptions{})
		}
	}
	return 0, fmt.Errorf("pod %s does not become ready", p.Name)
}

// empty waits until no pod is there.
func (c *cluster) empty(ctx context.Context) error {
	pods := c.client.CoreV1().Pods("default")
	if err := pods.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
		return err
	}
	return wait(ctx, 2*time.Minute, func() error {
		list, err := pods.List(ctx, metav1.ListOptions{})
		if err == nil && len(list.Items) > 0 {
			err = fmt.Errorf("%d pods are still there", len(list.Items))
		}
		return err
	})
}

// many runs a full node and watches it doing nothing but probes.
func (b *bench) many(ctx context.Context, c *cluster) error {
	idle, err := b.atRest(ctx, 5*time.Second)
	if err != nil {
		return err
	}
	b.say("node without pods: resident", idle.rss, "MB", 0)
	began := time.Now()
	pods := c.client.CoreV1().Pods("default")
	for i := range b.pods {
		if _, err := pods.Create(ctx, pod(fmt.Sprintf("many-%d", i), nil, httpProbe("", "/hostname", 80)), metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	if err := wait(ctx, 3*time.Minute, func() error {
		list, err := pods.List(ctx, metav1.ListOptions{ResourceVersion: "0"})
		if err != nil {
			return err
		}
		n := 0
		for i := range list.Items {
			if ready(&list.Items[i]) {
				n++
			}
		}
		if n < b.pods {
			return fmt.Errorf("%d of %d pods are ready", n, b.pods)
		}
		return nil
	}); err != nil {
		return err
	}
	b.say(fmt.Sprintf("%d pods created at once → all Ready", b.pods), time.Since(began).Seconds(), "s", 0)
	if err := b.full(ctx, "full", fmt.Sprintf("%d pods, a probe each second", b.pods), 0, 5); err != nil {
		return err
	}
	// The same pods, taken over by a node that does nothing else.
	b.node.stop()
	if err := b.startNode(ctx, "--no-dns", "--no-proxy"); err != nil {
		return err
	}
	if err := b.full(ctx, "bare", "the same without DNS and virtual IPs", 60, 5); err != nil {
		return err
	}
	b.node.stop()
	if err := b.startNode(ctx); err != nil {
		return err
	}
	return c.empty(ctx)
}

// full says what the node and its keeper cost, in words and in profiles.
func (b *bench) full(ctx context.Context, name, what string, rss, cpu float64) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(10 * time.Second): // what the start left to do
	}
	pid, err := keeper()
	if err != nil {
		return err
	}
	before, err := usage(pid)
	if err != nil {
		return err
	}
	used, err := b.atRest(ctx, b.rest)
	if err != nil {
		return err
	}
	after, err := usage(pid)
	if err != nil {
		return err
	}
	b.say(what+": agent resident", used.rss, "MB", rss)
	b.say(what+": of that anonymous", used.anonymous, "MB", 0)
	b.say(what+": agent CPU", 100*used.cpu.Seconds()/b.rest.Seconds(), "% of a core", cpu)
	b.say(what+": keeper resident", after.rss, "MB", 0)
	b.say(what+": keeper CPU", 100*(after.cpu-before.cpu).Seconds()/b.rest.Seconds(), "% of a core", 0)
	if b.profiles != "" {
		return b.profile(ctx, name, b.rest)
	}
	return nil
}

// atRest is what the node uses in some time.
func (b *bench) atRest(ctx context.Context, span time.Duration) (cost, error) {
	before, err := usage(b.node.cmd.Process.Pid)
	if err != nil {
		return cost{}, err
	}
	select {
	case <-ctx.Done():
		return cost{}, ctx.Err()
	case <-time.After(span):
	}
	after, err := usage(b.node.cmd.Process.Pid)
	after.cpu -= before.cpu
	return after, err
}

// answers are what the probes of pods are told, and when they were told first.
type answers struct {
	mu   sync.Mutex
	sick map[string]bool
	tell map[string]chan time.Time
}

// ServeHTTP answers a probe.
func (a *answers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.sick[r.URL.Path] {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	if t := a.tell[r.URL.Path]; t != nil {
		t <- time.Now() // the answer is on its way when this handler is done
		delete(a.tell, r.URL.Path)
	}
}

// change makes the next answer another one; the channel gives its time.
func (a *answers) change(path string, sick bool) <-chan time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sick[path] = sick
	a.tell[path] = make(chan time.Time, 1)
	return a.tell[path]
}

// changes times readiness from the answer to a probe to what DNS and the
// virtual IP do.
func (b *bench) changes(ctx context.Context, c *cluster) error {
	const pods = 10
	l, err := net.Listen("tcp", address+":0")
	if err != nil {
		return err
	}
	port := l.Addr().(*net.TCPAddr).Port
	a := &answers{sick: map[string]bool{}, tell: map[string]chan time.Time{}}
	s := &http.Server{Handler: a, ReadHeaderTimeout: time.Minute}
	go func() { _ = s.Serve(l) }()
	defer s.Close()
	vips := make([]string, pods)
	for i := range pods {
		name := "change-" + strconv.Itoa(i)
		labels := map[string]string{"app": name}
		for _, ip := range []string{"", corev1.ClusterIPNone} {
			svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ServiceSpec{ClusterIP: ip, Selector: labels, Ports: []corev1.ServicePort{{Port: 80}}}}
			if ip != "" {
				svc.Name += "-names"
			}
			made, err := c.client.CoreV1().Services("default").Create(ctx, svc, metav1.CreateOptions{})
			if err != nil {
				return err
			}
			if ip == "" {
				vips[i] = netip.AddrPortFrom(netip.MustParseAddr(made.Spec.ClusterIP), 80).String()
			}
		}
		if _, err := c.client.CoreV1().Pods("default").Create(ctx, pod(name, labels, httpProbe(address, "/"+name, port)), metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	names, err := dns.Dial("udp", "10.96.0.10:53")
	if err != nil {
		return err
	}
	defer names.Close()
	resolves := func(i int) (bool, error) {
		m, _, err := new(dns.Client).ExchangeWithConn(new(dns.Msg).SetQuestion(fmt.Sprintf("change-%d-names.default.svc.cluster.local.", i), dns.TypeA), names)
		return err == nil && len(m.Answer) > 0, err
	}
	connects := func(i int) (bool, error) {
		conn, err := net.DialTimeout("tcp", vips[i], time.Second)
		if err != nil {
			if strings.Contains(err.Error(), "timeout") {
				return false, err
			}
			return false, nil
		}
		return true, conn.Close()
	}
	until := func(i int, up bool, look func(int) (bool, error)) (time.Time, error) {
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(500 * time.Microsecond) {
			is, err := look(i)
			if err == nil && is == up {
				return time.Now(), nil
			}
			if time.Now().After(end) {
				return time.Time{}, errors.Join(fmt.Errorf("pod %d is not up=%v everywhere", i, up), err)
			}
		}
	}
	for i := range pods {
		if _, err := until(i, true, resolves); err != nil {
			return err
		}
		if _, err := until(i, true, connects); err != nil {
			return err
		}
	}
	took := map[string][]time.Duration{}
	for n := range b.flips {
		i, up := n%pods, n/pods%2 == 1
		var at time.Time
		select {
		case <-ctx.Done():
			return ctx.Err()
		case at = <-a.change("/change-"+strconv.Itoa(i), !up):
		}
		var inDNS, inVIP time.Time
		var errs [2]error
		var wg sync.WaitGroup
		wg.Go(func() { inDNS, errs[0] = until(i, up, resolves) })
		wg.Go(func() { inVIP, errs[1] = until(i, up, connects) })
		wg.Wait()
		if err := errors.Join(errs[:]...); err != nil {
			return err
		}
		took["DNS"] = append(took["DNS"], inDNS.Sub(at))
		took["virtual IP"] = append(took["virtual IP"], inVIP.Sub(at))
	}
	for _, view := range []string{"DNS", "virtual IP"} {
		b.times("readiness probe's answer → "+view, took[view], 0, 50)
	}
	return c.empty(ctx)
}
