package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/json"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
	"github.com/fingerpost/fingerpost/bench/rig"
	"github.com/fingerpost/fingerpost/controller/instance"
)

func (b *bench) beatPart() string {
	return fmt.Sprintf("%d heartbeats each %.0f s (%.0f/s)", b.instances, beat.Seconds(), float64(b.instances)/beat.Seconds())
}

// inProcess measures what one heartbeat costs behind HTTP.
func (b *bench) inProcess() error {
	l, err := instance.NewLiveness(instance.LivenessConfig{})
	if err != nil {
		return err
	}
	now := time.Now()
	names := make([]string, b.instances)
	for i := range names {
		in := newInstance(i)
		in.ResourceVersion = "1"
		l.Put(in, now)
		names[i] = in.Name
	}
	const rounds = 1_000_000
	before := ownCPU()
	for i := range rounds {
		if _, err := l.Renew(namespace, names[i%len(names)], "http", "1", now); err != nil {
			return err
		}
	}
	b.add(ours, b.beatPart(), "one heartbeat in process: CPU", "µs", us(ownCPU()-before, rounds), target(10))
	return nil
}

// heartbeats registers the instances and lets them send heartbeats over HTTPS,
// with a token, over a few connections as a node has and over many.
func (b *bench) heartbeats(ctx context.Context, s *rig.Server) error {
	if err := createNamespace(ctx, s); err != nil {
		return err
	}
	const part = "register Instances"
	var d done
	err := b.profiled(ctx, s, "fingerpost-instance", func() (err error) {
		d, err = post(ctx, s, b.clients, instancesPath, asJSON, 0, b.instances, instanceBody)
		return err
	})
	if err != nil {
		return err
	}
	what := fmt.Sprintf("Instance, %d for each of %d services", perService, b.instances/perService)
	b.add(ours, part, what, "1/s", d.perSecond(), upwards)
	b.add(ours, part, what+": server CPU each, with Service and slices", "µs", us(d.cpu, d.n))
	if err := b.memory(ctx, ours, part, fmt.Sprintf("resident with %d Instances", b.instances), s); err != nil {
		return err
	}
	token, err := b.registrar(ctx, s)
	if err != nil {
		return err
	}
	for _, x := range beatKinds {
		what := b.beatName(x)
		r, err := b.beatOver(ctx, s, token, b.beatName(x), x.http2, b.conns(x))
		if err != nil {
			return fmt.Errorf("heartbeats over %s: %w", what, err)
		}
		b.add(ours, b.beatPart(), what+": server", "% of a core", r.percent(), target(10))
		b.add(ours, b.beatPart(), what+": server CPU each", "µs", us(r.cpu, r.n))
		b.add(ours, b.beatPart(), what+": p99", "ms", ms(r.took.at(0.99)))
	}
	what = fmt.Sprintf("HTTP/2, token, 1 connection, %d a call", perCall)
	r, err := b.beatMany(ctx, s, token, what)
	if err != nil {
		return fmt.Errorf("heartbeats over %s: %w", what, err)
	}
	b.add(ours, b.beatPart(), what+": server", "% of a core", r.percent(), target(10))
	b.add(ours, b.beatPart(), what+": server CPU each heartbeat", "µs", us(r.cpu, r.n*perCall))
	return b.bare(ctx, token)
}

// beatKind is a way to send heartbeats.
type beatKind struct {
	name  string
	http2 bool
	many  bool // connections
}

var beatKinds = []beatKind{{"HTTP/2", true, false}, {"HTTP/1.1", false, false}, {"HTTP/1.1", false, true}}

func (b *bench) conns(k beatKind) int {
	if k.many {
		return min(1000, b.instances)
	}
	return b.clients
}

func (b *bench) beatName(k beatKind) string {
	return fmt.Sprintf("%s, token, %d connections", k.name, b.conns(k))
}

func instanceBody(i int) []byte { return instanceJSON(newInstance(i)) }

func instanceJSON(in *v1alpha1.Instance) []byte {
	body, err := json.Marshal(in)
	if err != nil {
		panic(err) // a struct of strings
	}
	return body
}

// registrar makes a service account that may send heartbeats, and its token.
func (b *bench) registrar(ctx context.Context, s *rig.Server) (string, error) {
	c, err := kubernetes.NewForConfig(s.Rest)
	if err != nil {
		return "", err
	}
	const name = "registrar"
	if _, err := c.CoreV1().ServiceAccounts(namespace).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
		return "", err
	}
	_, err = c.RbacV1().RoleBindings(namespace).Create(ctx, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: name, Namespace: namespace}},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "fingerpost:registrar"},
	}, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	t, err := c.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	return t.Status.Token, nil
}

// beatOver sends heartbeats for b.span.
func (b *bench) beatOver(ctx context.Context, s *rig.Server, token, name string, http2 bool, conns int) (paced, error) {
	tlsConfig, err := rest.TLSConfigFor(&rest.Config{TLSClientConfig: rest.TLSClientConfig{CAFile: s.Rest.CAFile, CAData: s.Rest.CAData}})
	if err != nil {
		return paced{}, err
	}
	header := http.Header{"Authorization": {"Bearer " + token}}
	clients := make([]*http.Client, conns)
	for k := range clients {
		t := &http.Transport{TLSClientConfig: tlsConfig.Clone(), ForceAttemptHTTP2: http2, MaxConnsPerHost: 1}
		if !http2 {
			t.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
		}
		clients[k] = &http.Client{Transport: t, Timeout: patience}
		defer t.CloseIdleConnections()
	}
	renew := func(ctx context.Context, k, i int) error {
		return send(ctx, clients[k], http.MethodPut, s.Rest.Host+instancesPath+"/"+newInstance(i).Name+"/renew", "", header, nil)
	}
	return b.pace(ctx, s, name, conns, b.instances, renew)
}

// perCall is how many heartbeats a supervisor of many processes sends at once.
const perCall = 100

// beatMany sends the same heartbeats in calls of perCall.
func (b *bench) beatMany(ctx context.Context, s *rig.Server, token, name string) (paced, error) {
	tlsConfig, err := rest.TLSConfigFor(&rest.Config{TLSClientConfig: rest.TLSClientConfig{CAFile: s.Rest.CAFile, CAData: s.Rest.CAData}})
	if err != nil {
		return paced{}, err
	}
	t := &http.Transport{TLSClientConfig: tlsConfig, ForceAttemptHTTP2: true}
	defer t.CloseIdleConnections()
	client := &http.Client{Transport: t, Timeout: patience}
	header := http.Header{"Authorization": {"Bearer " + token}, "Content-Type": {asJSON}}
	return b.pace(ctx, s, name, 1, b.instances/perCall, func(ctx context.Context, _, i int) error {
		var list v1alpha1.RenewalList
		for k := range perCall {
			list.Items = append(list.Items, v1alpha1.RenewalItem{Name: newInstance(i*perCall + k).Name, Door: "http", ID: "1"})
		}
		body, err := json.Marshal(list)
		if err != nil {
			return err
		}
		return send(ctx, client, http.MethodPut, s.Rest.Host+renewalsPath, "", header, body)
	})
}

// paced is what a steady load cost.
type paced struct {
	done
	late int // sent more than 100 ms after they were due
}

func (p paced) percent() float64 { return 100 * p.cpu.Seconds() / p.wall.Seconds() }

// pace makes so many calls every beat, for b.span, spread evenly; each of
// conns workers does its share, one after the other. Before, each worker calls
// f once, to open its connection.
func (b *bench) pace(ctx context.Context, s *rig.Server, name string, conns, calls int, f func(ctx context.Context, conn, call int) error) (p paced, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// Not all at once: a listener's backlog is short.
	slots := make(chan struct{}, 16)
	var wg sync.WaitGroup
	for k := range conns {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if err := f(ctx, k, k); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return p, context.Cause(ctx)
	}
	if err := s.Settle(ctx, 5*time.Second); err != nil {
		return p, err
	}
	err = b.profiled(ctx, s, name, func() (err error) {
		p, err = b.steady(ctx, s, conns, calls, f)
		return err
	})
	return p, err
}

func (b *bench) steady(ctx context.Context, s *rig.Server, conns, calls int, f func(ctx context.Context, conn, call int) error) (p paced, err error) {
	before, err := s.CPU()
	if err != nil {
		return p, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	mine := ownCPU()
	step := beat / time.Duration(calls)
	total := int(b.span / step)
	var mu sync.Mutex
	var wg sync.WaitGroup
	began := time.Now()
	for k := range conns {
		wg.Go(func() {
			var took durations
			late := 0
			for n := k; n < total; n += conns {
				due := began.Add(time.Duration(n) * step)
				if err := rig.Sleep(ctx, time.Until(due)); err != nil {
					break
				}
				start := time.Now()
				if start.Sub(due) > 100*time.Millisecond {
					late++
				}
				if err := f(ctx, k, n%calls); err != nil {
					cancel(err)
					break
				}
				took = append(took, time.Since(start))
			}
			mu.Lock()
			defer mu.Unlock()
			p.took = append(p.took, took...)
			p.late += late
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return p, context.Cause(ctx)
	}
	p.wall, p.n, p.client = time.Since(began), total, ownCPU()-mine
	after, err := s.CPU()
	p.cpu = after - before
	if err == nil && p.late > total/20 {
		err = fmt.Errorf("%d of %d heartbeats were sent late: this machine is too busy for the measurement", p.late, total)
	}
	return p, err
}

// beating runs the part heartbeat: Fingerpost, then what comes near it.
func (b *bench) beating(ctx context.Context, start rig.StartFunc, kubernetes rig.StartFunc) error {
	if err := b.inProcess(); err != nil {
		return err
	}
	if err := b.on(ctx, start, b.heartbeats); err != nil {
		return err
	}
	if kubernetes == nil {
		return nil
	}
	if err := b.etcdLeases(ctx); err != nil {
		return fmt.Errorf("etcd leases: %w", err)
	}
	return b.on(ctx, kubernetes, b.leases)
}

// on runs f with a server on an empty directory.
func (b *bench) on(ctx context.Context, start rig.StartFunc, f func(context.Context, *rig.Server) error) error {
	dir, err := os.MkdirTemp(b.dir, "server")
	if err != nil {
		return err
	}
	s, err := start(ctx, dir)
	if err != nil {
		return err
	}
	return errors.Join(f(ctx, s), s.Stop())
}
