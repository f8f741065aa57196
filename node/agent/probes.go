package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/fingerpost/fingerpost/health"
	"github.com/fingerpost/fingerpost/health/probe"
	"github.com/fingerpost/fingerpost/node/agent/prober"
	"github.com/fingerpost/fingerpost/node/runtime"
)

// startProbes begins to ask the newest run. The lock is held.
func (c *container) startProbes(taken bool) {
	c.stopProbes()
	if c.init && !c.sidecar {
		return
	}
	var probes []prober.Probe
	for kind, spec := range map[prober.Kind]*corev1.Probe{
		prober.Startup: c.spec.StartupProbe, prober.Liveness: c.spec.LivenessProbe, prober.Readiness: c.spec.ReadinessProbe,
	} {
		if spec != nil {
			probes = append(probes, c.probe(kind, spec))
		}
	}
	if len(probes) == 0 {
		return
	}
	attempt := c.attempt
	c.group = prober.Start(prober.Config{
		Probes: probes, Since: c.run.Started, Started: taken && c.passed, Rounds: c.p.a.rounds,
		Report: func(r prober.Report) { c.probed(attempt, r) },
	})
}

// probed takes an answer.
func (c *container) probed(attempt int, r prober.Report) {
	p := c.p
	defer p.guard()
	if !r.OK {
		p.warning(c, "Unhealthy", "%s probe failed: %s", r.Kind, r.Output)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.attempt != attempt || !c.running() {
		return
	}
	switch r.Kind {
	case prober.Readiness:
		// A container that was taken over keeps its word until the threshold.
		if r.State != health.Starting && c.ready != (r.State == health.Passing) {
			c.ready = r.State == health.Passing
			p.publish()
		}
		return
	case prober.Startup:
		if r.State == health.Passing && !c.passed {
			c.passed, c.started = true, c.hooked
			c.ready = c.started && c.spec.ReadinessProbe == nil
			p.publish()
			p.poke()
		}
	}
	if r.State != health.Failing || c.busy || p.stop.begun || p.ending() {
		return
	}
	spec := c.spec.LivenessProbe
	if r.Kind == prober.Startup {
		spec = c.spec.StartupProbe
	}
	grace := p.grace()
	if s := spec.TerminationGracePeriodSeconds; s != nil {
		grace = time.Duration(*s) * time.Second
	}
	c.kill(p.a.ctx, grace, fmt.Sprintf("Container %s failed %s probe, will be restarted", c.name, strings.ToLower(string(r.Kind))))
	p.publish()
}

// probe makes the question of one probe.
func (c *container) probe(kind prober.Kind, spec *corev1.Probe) prober.Probe {
	seconds := func(n int32) time.Duration { return time.Duration(n) * time.Second }
	question, quick := c.question(&spec.ProbeHandler)
	ask := func(ctx context.Context) probe.Result {
		defer c.p.guard() // then the result is a failure without words
		return question(ctx)
	}
	return prober.Probe{
		Kind: kind, Delay: seconds(spec.InitialDelaySeconds), Period: seconds(spec.PeriodSeconds), Timeout: seconds(spec.TimeoutSeconds),
		Success: int(spec.SuccessThreshold), Failure: int(spec.FailureThreshold),
		Ask: ask, Quick: quick, Cheap: spec.Exec == nil,
	}
}

func broken(err error) func(context.Context) probe.Result {
	return func(context.Context) probe.Result { return probe.Result{Output: err.Error()} }
}

// question gives the way to ask, and the quick way if there is one.
func (c *container) question(h *corev1.ProbeHandler) (func(context.Context) probe.Result, *prober.Quick) {
	addr := ""
	if len(c.p.setup.ips) > 0 {
		addr = c.p.setup.ips[0]
	}
	switch {
	case h.Exec != nil:
		return func(ctx context.Context) probe.Result { return c.execProbe(ctx, h.Exec.Command) }, nil
	case h.HTTPGet != nil:
		get, err := httpGet(h.HTTPGet, c.spec, addr)
		if err != nil {
			return broken(err), nil
		}
		return get.Get, prober.QuickHTTP(get)
	case h.TCPSocket != nil:
		port, err := portOf(h.TCPSocket.Port, c.spec)
		if err != nil {
			return broken(err), nil
		}
		if h.TCPSocket.Host != "" {
			addr = h.TCPSocket.Host
		}
		return func(ctx context.Context) probe.Result { return probe.TCP(ctx, probe.Target{Addr: addr, Port: port}) }, prober.QuickTCP(addr, port)
	case h.GRPC != nil:
		t := probe.Target{Addr: addr, Port: uint16(h.GRPC.Port)}
		if h.GRPC.Service != nil {
			t.Service = *h.GRPC.Service
		}
		return func(ctx context.Context) probe.Result { return probe.GRPC(ctx, t) }, nil
	}
	return broken(errors.New("the probe says not how to ask: use exec, httpGet, tcpSocket or grpc")), nil
}

func httpGet(h *corev1.HTTPGetAction, spec *corev1.Container, addr string) (prober.HTTP, error) {
	port, err := portOf(h.Port, spec)
	if err != nil {
		return prober.HTTP{}, err
	}
	if h.Host != "" {
		addr = h.Host
	}
	get := prober.HTTP{Addr: addr, Port: port, TLS: strings.EqualFold(string(h.Scheme), "https"), Path: h.Path, Headers: http.Header{}}
	for _, f := range h.HTTPHeaders {
		get.Headers.Add(f.Name, f.Value)
	}
	return get, nil
}

// portOf finds a port by number or by the name that the container gives it.
func portOf(v intstr.IntOrString, spec *corev1.Container) (uint16, error) {
	n := v.IntValue()
	if v.Type == intstr.String {
		n = 0
		for _, p := range spec.Ports {
			if p.Name == v.StrVal {
				n = int(p.ContainerPort)
			}
		}
		if n == 0 {
			if n, _ = strconv.Atoi(v.StrVal); n == 0 {
				return 0, fmt.Errorf("container %s has no port named %q", spec.Name, v.StrVal)
			}
		}
	}
	if n < 1 || n > 65535 {
		return 0, fmt.Errorf("invalid port number: %d", n)
	}
	return uint16(n), nil
}

// execProbe runs a command inside the container.
func (c *container) execProbe(ctx context.Context, args []string) probe.Result {
	c.p.mu.Lock()
	id := c.id()
	c.p.mu.Unlock()
	code, out, err := c.p.a.execIn(ctx, id, args)
	switch {
	case ctx.Err() != nil:
		return probe.Result{Output: fmt.Sprintf("command timed out: %q", strings.Join(args, " "))}
	case err != nil:
		return probe.Result{Output: err.Error()}
	}
	return probe.Result{OK: code == 0, Output: out}
}

// execIn runs a command inside a container and gives the beginning of what it
// wrote.
func (a *Agent) execIn(ctx context.Context, id runtime.ContainerID, args []string) (code int, output string, err error) {
	if a.stream == nil {
		return 0, "", errors.New("this node's runtime cannot run commands inside containers")
	}
	var out limited
	code, err = a.stream.Exec(ctx, id, runtime.ExecConfig{Args: args, Streams: runtime.Streams{Stdout: &out, Stderr: &out}})
	return code, out.text(), err
}

// hook runs a lifecycle hook.
func (p *pod) hook(ctx context.Context, c *container, h *corev1.LifecycleHandler) error {
	switch {
	case h.Exec != nil:
		p.mu.Lock()
		id := c.id()
		p.mu.Unlock()
		code, out, err := p.a.execIn(ctx, id, h.Exec.Command)
		if err == nil && code != 0 {
			err = fmt.Errorf("command %q exited with %d: %s", h.Exec.Command, code, out)
		}
		return err
	case h.HTTPGet != nil:
		p.mu.Lock()
		addr := ""
		if len(p.setup.ips) > 0 {
			addr = p.setup.ips[0]
		}
		spec := c.spec
		p.mu.Unlock()
		get, err := httpGet(h.HTTPGet, spec, addr)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		if r := get.Get(ctx); !r.OK {
			return errors.New(r.Output)
		}
		return nil
	case h.Sleep != nil:
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Duration(h.Sleep.Seconds) * time.Second):
			return nil
		}
	case h.TCPSocket != nil:
		return nil // Kubernetes keeps the field for old objects and does nothing
	}
	return errors.New("the hook says not what to do: use exec, httpGet or sleep")
}

// limited keeps the beginning of what is written and takes the rest without an
// error, which would stop the command.
type limited struct {
	mu  sync.Mutex
	buf []byte
}

func (l *limited) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf = append(l.buf, b[:min(len(b), 10<<10-len(l.buf))]...)
	return len(b), nil
}

func (l *limited) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.TrimSpace(strings.ToValidUTF8(string(l.buf), "?"))
}
