package process

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
	"github.com/fingerpost/fingerpost/door/process/claim"
	"github.com/fingerpost/fingerpost/health"
)

// Door is the name of this door in claims.
const Door = "process"

const (
	placeTries      = 8               // at finding free ports
	announceGrace   = time.Second     // how long stopping waits for Terminating to be written
	deregisterGrace = 3 * time.Second // and for the claim to be removed
)

// replica is one place in which a process is kept running.
type replica struct {
	cfg    *Config
	n      int
	log    *slog.Logger
	reg    *claim.Keeper
	alloc  func([]Port) error
	stdout io.Writer
	stderr io.Writer
	force  <-chan struct{} // ready: stop at once

	ports    []Port // the numbers of this replica
	instance string // Instance name
	restarts int
	pid      int
	last     string // how the process ended last
	up       bool   // the last claim said Up
}

// claimID is stable over restarts of the process and of the supervisor.
func claimID(node, service string, n int) string { return fmt.Sprintf("%s/%s-%d", node, service, n) }

// run keeps the process running until ctx ends or the policy says that it is
// over. The claim is removed before it returns.
func (r *replica) run(ctx context.Context) (exit, error) {
	rctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() { r.reg.Run(rctx) })
	defer wg.Wait()
	defer cancel()
	defer r.deregister()

	pause := restartBackoff()
	for {
		began := time.Now()
		end, err := r.once(ctx)
		if err != nil || ctx.Err() != nil {
			return end, err
		}
		if r.cfg.Restart == RestartNever || r.cfg.Restart == RestartOnFailure && !end.failed() {
			r.log.Info("process ended", "how", end.text)
			return end, nil
		}
		delay := pause.after(time.Since(began))
		r.log.Warn("process ended: starting it again", "how", end.text, "pid", r.pid, "in", delay)
		r.restarts++
		t := time.NewTimer(delay)
		select {
		case <-ctx.Done():
			t.Stop()
			return end, nil
		case <-t.C:
		}
	}
}

// once runs the process until it has ended, by itself or because ctx did.
func (r *replica) once(ctx context.Context) (exit, error) {
	if p, taken, err := r.place(); err != nil {
		return exit{code: 1}, err
	} else if taken {
		return r.ended(exit{1, fmt.Sprintf("cannot start: port %d is taken by another process", p.Number)}), nil
	}
	c, err := startChild(r.command(), r.stdout, r.stderr)
	if err != nil {
		return r.ended(exit{127, startReason(err)}), nil
	}
	r.pid = c.pid
	r.log.Info("process started", "pid", c.pid, "address", netip.AddrPortFrom(r.cfg.Address, uint16(r.ports[0].Number)))

	watch, stopWatching := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer func() { <-c.flushed }()
	defer wg.Wait()
	defer stopWatching()
	ready, live := make(chan verdict), make(chan verdict)
	var begun atomic.Bool // it was ready once
	if r.cfg.Ready.none() {
		r.announce(v1alpha1.ClaimUp, "")
	} else {
		r.announce(v1alpha1.ClaimStarting, "not ready yet")
		wg.Go(func() { r.watch(watch, r.cfg.Ready, ready, nil) })
	}
	if !r.cfg.Live.none() {
		wg.Go(func() { r.watch(watch, r.cfg.Live, live, begun.Load) })
	}
	for {
		select {
		case <-c.done:
			return r.ended(c.end), nil
		case v := <-ready:
			if v.state == health.Passing {
				begun.Store(true)
			}
			r.readiness(v)
		case v := <-live:
			if v.state == health.Failing {
				stopWatching()
				why := fmt.Sprintf("live check %s: %s", &r.cfg.Live, v.reason)
				r.announce(v1alpha1.ClaimDown, why+": restarting it")
				r.log.Warn("process is not alive: stopping it", "pid", c.pid, "why", why)
				c.stop(r.cfg.StopTimeout, r.force)
				return r.ended(exit{max(1, c.end.code), why}), nil
			}
		case <-ctx.Done():
			stopWatching()
			r.drain(c)
			c.stop(r.cfg.StopTimeout, r.force)
			r.log.Info("process stopped", "pid", c.pid, "how", c.end.text)
			return c.end, nil
		}
	}
}

// place decides on the replica's ports: fixed ones for good, free ones anew
// when somebody else took them meanwhile. It says which port is taken, if one
// is nevertheless.
func (r *replica) place() (taken Port, is bool, err error) {
	for try := range placeTries {
		if r.ports == nil {
			ports := slices.Clone(r.cfg.Ports)
			if err := r.alloc(ports); err != nil {
				return Port{}, false, err
			}
			r.ports = ports
			r.instance = v1alpha1.InstanceName(r.cfg.Service, r.cfg.Address.String(), ports[0].Number)
		}
		if taken, is = busy(r.cfg.Address, r.ports); !is || !free(r.cfg.Ports) {
			break
		}
		if r.ports = nil; try == placeTries-1 {
			return Port{}, false, fmt.Errorf("door/process: find free ports on %s: somebody takes each of them away", r.cfg.Address)
		}
	}
	return taken, is, nil
}

// free says whether a number is left to us.
func free(ports []Port) bool {
	return slices.ContainsFunc(ports, func(p Port) bool { return p.Number == 0 })
}

// watch runs a check until ctx ends.
func (r *replica) watch(ctx context.Context, check Check, out chan<- verdict, begun func() bool) {
	m := monitor{check: check, probe: check.probe(r.cfg.Address, r.ports, r.cfg.Dir, r.env()), begun: begun, tell: func(v verdict) {
		select {
		case out <- v:
		case <-ctx.Done():
		}
	}}
	m.Run(ctx)
}

func (r *replica) readiness(v verdict) {
	switch v.state {
	case health.Passing:
		r.announce(v1alpha1.ClaimUp, "")
		r.log.Info("process is ready", "pid", r.pid)
	case health.Failing:
		r.announce(v1alpha1.ClaimDown, fmt.Sprintf("ready check %s: %s", &r.cfg.Ready, v.reason))
		r.log.Warn("process is not ready any more", "pid", r.pid, "check", r.cfg.Ready.String(), "why", v.reason)
	default:
		r.announce(v1alpha1.ClaimStarting, fmt.Sprintf("ready check %s: %s", &r.cfg.Ready, v.reason))
	}
}

// ended takes the endpoint out at once.
func (r *replica) ended(e exit) exit {
	r.last = e.text
	r.announce(v1alpha1.ClaimDown, e.text)
	return e
}

// drain tells the views to stop sending and gives them time to do so.
func (r *replica) drain(c *child) {
	wasUp := r.up
	written := r.announce(v1alpha1.ClaimTerminating, "the supervisor was told to stop")
	if !wasUp {
		return
	}
	// Without the API the views cannot be told, but those that learned of the
	// stop elsewhere still get their time.
	r.wait(c, announceGrace, written)
	r.wait(c, r.cfg.DrainDelay, nil)
}

// wait waits for until, at most d, and no longer than the process lives.
func (r *replica) wait(c *child, d time.Duration, until <-chan struct{}) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-until:
	case <-t.C:
	case <-c.done:
	case <-r.force:
	}
}

func (r *replica) deregister() {
	t := time.NewTimer(deregisterGrace)
	defer t.Stop()
	select {
	case <-r.reg.Set(nil):
	case <-t.C:
		r.log.Warn("could not deregister: the server is away; the endpoint goes when its heartbeats are missed", "instance", r.instance, "ttl", r.cfg.TTL)
	}
}

func (r *replica) announce(s v1alpha1.ClaimState, reason string) <-chan struct{} {
	r.up = s == v1alpha1.ClaimUp
	return r.reg.Set(r.want(s, reason))
}

// want is the Instance as it should be.
func (r *replica) want(s v1alpha1.ClaimState, reason string) *v1alpha1.Instance {
	c := r.cfg
	in := &v1alpha1.Instance{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: c.Namespace, Name: r.instance,
			Labels:      map[string]string{v1alpha1.LabelService: c.Service},
			Annotations: map[string]string{v1alpha1.AnnotationServicePort: strconv.Itoa(int(r.servicePort()))},
		},
		Spec: v1alpha1.InstanceSpec{
			Service: c.Service, Address: c.Address.String(), NodeName: c.NodeName, Zone: c.Zone,
			Weight: c.Weight, Metadata: c.Metadata, Check: c.Ready.record(),
			Hostname: strings.ReplaceAll(c.Hostname, "{n}", strconv.Itoa(r.n)),
		},
	}
	for _, p := range r.ports {
		proto := p.Protocol
		if proto == "" {
			proto = corev1.ProtocolTCP
		}
		in.Spec.Ports = append(in.Spec.Ports, v1alpha1.InstancePort{Name: p.Name, Port: p.Number, Protocol: proto})
	}
	origin := c.NodeName
	if r.pid != 0 {
		origin += " pid " + strconv.Itoa(r.pid)
	}
	mine := v1alpha1.Claim{
		Door: Door, ID: claimID(c.NodeName, c.Service, r.n), Origin: origin,
		State: s, Reason: reason, TTL: &metav1.Duration{Duration: c.TTL},
	}
	if r.restarts > 0 {
		mine.Metadata = map[string]string{"restarts": strconv.Itoa(r.restarts), "lastExit": r.last}
	}
	in.Spec.Claims = []v1alpha1.Claim{mine}
	return in
}

func (r *replica) servicePort() int32 {
	switch {
	case r.cfg.ServicePort != 0:
		return r.cfg.ServicePort
	case r.cfg.Ports[0].Number != 0:
		return r.cfg.Ports[0].Number
	}
	return 8080
}

func (r *replica) command() *exec.Cmd {
	argv := expand(r.cfg.Command, r.ports)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir, cmd.Env = r.cfg.Dir, r.env()
	return cmd
}

// env is what the process sees. Later entries win: the user's own over those
// of the services, ours, which must agree with the registration, over all.
func (r *replica) env() []string {
	var env []string
	if r.cfg.ServiceEnv != nil {
		env = append(env, r.cfg.ServiceEnv()...)
	}
	if r.cfg.Env != nil {
		env = append(env, r.cfg.Env...)
	} else {
		env = append(env, os.Environ()...)
	}
	env = append(env, portEnv(r.ports)...)
	return append(env,
		"FINGERPOST_SERVICE="+r.cfg.Service, "FINGERPOST_NAMESPACE="+r.cfg.Namespace,
		"FINGERPOST_INSTANCE="+r.instance, "FINGERPOST_REPLICA="+strconv.Itoa(r.n))
}
