package agent

import (
	"context"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/fingerpost/fingerpost/node/agent/object"
	"github.com/fingerpost/fingerpost/node/agent/podstatus"
	"github.com/fingerpost/fingerpost/node/agent/volume"
	"github.com/fingerpost/fingerpost/node/runtime"
)

// pod is the worker of one pod.
type pod struct {
	a                    *Agent
	uid, namespace, name string
	wake                 chan struct{} // capacity 1: something changed
	tasks                sync.WaitGroup
	calls                sync.Mutex // the runtime's calls for one pod come one after the other, but for stops

	mu         sync.Mutex
	api        *corev1.Pod // as last seen; its status is the one last acknowledged
	gone       bool        // not in the API any more
	seen       time.Time
	containers []*container // init containers in order, then the others
	admitted   bool
	failed     bool // refused or out of time: reason and message say why
	reason     string
	message    string
	start      time.Time
	volumes    *volume.Set
	hold       *object.Hold
	setup      setup
	stop       stopping
	wasReady   bool
	out        output
}

// setup is what containers need before they start.
type setup struct {
	busy, done bool
	cancel     context.CancelFunc
	next       time.Time // of another attempt, or of a renewal
	wait       time.Duration
	stale      bool // an object changed
	mounts     map[string]volume.Volume
	ips        []string
	sandbox    bool // containers can be, or were, started
}

// stopping is the end of a pod.
type stopping struct {
	begun    bool
	deadline time.Time
	drain    drain
	over     bool // no container runs and none will
	busy     bool // a task cleans up
	clean    bool // nothing is left on the machine but logs
	next     time.Time
	wait     time.Duration
	deleted  bool // the API was told to forget the pod
}

func newPod(a *Agent, obj *corev1.Pod) *pod {
	p := &pod{
		a: a, uid: string(obj.UID), namespace: obj.Namespace, name: obj.Name, api: obj, seen: time.Now(),
		wake: make(chan struct{}, 1), start: time.Now(),
	}
	if t := obj.Status.StartTime; t != nil {
		p.start = t.Time
	}
	for i := range obj.Spec.InitContainers {
		p.containers = append(p.containers, newContainer(p, &obj.Spec.InitContainers[i], true))
	}
	for i := range obj.Spec.Containers {
		p.containers = append(p.containers, newContainer(p, &obj.Spec.Containers[i], false))
	}
	return p
}

func (p *pod) poke() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// update takes a newer object.
func (p *pod) update(obj *corev1.Pod) {
	defer p.guard()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !maps.Equal(p.api.Labels, obj.Labels) || !maps.Equal(p.api.Annotations, obj.Annotations) {
		p.setup.stale = true // files of the downward API follow
	}
	p.merge(obj)
	p.a.kept.changed(p)
	for _, c := range p.containers {
		if s := specOf(obj, c.name, c.init); s != nil {
			c.spec = s
		}
	}
	p.publish()
	p.poke()
}

// vanish notes that the pod is not in the API any more.
func (p *pod) vanish(obj *corev1.Pod) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gone = true
	if obj.DeletionGracePeriodSeconds != nil && p.api.DeletionGracePeriodSeconds == nil {
		next := p.api.DeepCopy()
		next.DeletionGracePeriodSeconds = obj.DeletionGracePeriodSeconds
		p.api = next
	}
	p.poke()
}

func (p *pod) isGone() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.gone
}

// run is the worker: it looks again whenever something changed.
func (p *pod) run(ctx context.Context) {
	defer p.tasks.Wait()
	defer p.quiet()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
		case <-timer.C:
		}
		next, done := p.guarded(ctx)
		if done {
			p.a.forget(p)
			return
		}
		if next.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(max(time.Until(next), 0))
		}
	}
}

// quiet stops what goes on by itself; containers go on.
func (p *pod) quiet() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.containers {
		c.stopProbes()
	}
	if p.hold != nil {
		p.hold.Release()
	}
	if p.out.timer != nil {
		p.out.timer.Stop()
	}
}

// guarded is a step that a panic does not lead out of.
func (p *pod) guarded(ctx context.Context) (next time.Time, done bool) {
	defer func() {
		if r := recover(); r != nil {
			p.panicked(r)
			next = time.Now().Add(time.Minute)
		}
	}()
	p.mu.Lock()
	defer p.mu.Unlock()
	next, done = p.step(ctx)
	p.publish()
	return next, done
}

// guard keeps a panic about this pod from spreading; it is deferred.
func (p *pod) guard() {
	if r := recover(); r != nil {
		p.panicked(r)
	}
}

// safely makes an error of a panic, so that what failed is tried again later
// and not at once.
func (p *pod) safely(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			p.panicked(r)
			err = fmt.Errorf("internal error: %v", r)
		}
	}()
	return f()
}

func (p *pod) panicked(r any) {
	p.a.metrics.panics.Inc()
	p.a.cfg.Log.Error("a pod's worker panicked", "pod", p.namespace+"/"+p.name, "panic", r, "stack", string(debug.Stack()))
}

// task runs something that takes time beside the worker, which looks again
// after it. The pod's lock is not held in f.
func (p *pod) task(f func()) {
	p.tasks.Go(func() {
		defer p.poke()
		defer p.guard()
		f()
	})
}

// earliest keeps the earlier of two times, of which zero is never.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// step looks at the pod and starts what is to be done. The lock is held.
func (p *pod) step(ctx context.Context) (next time.Time, done bool) {
	now := time.Now()
	if !p.admitted && !p.failed && !p.ending() {
		if reason, message := p.a.admit(p); reason != "" {
			p.fail(reason, message)
			p.warning(nil, reason, "%s", message)
		} else {
			p.admitted = true
		}
	}
	if limit := p.api.Spec.ActiveDeadlineSeconds; limit != nil && !p.failed && !p.stop.begun {
		if end := p.start.Add(time.Duration(*limit) * time.Second); !now.Before(end) {
			p.fail("DeadlineExceeded", "Pod was active on the node longer than the specified deadline")
			p.normal(nil, "DeadlineExceeded", "Pod was active on the node longer than the specified deadline")
		} else {
			next = end
		}
	}
	if p.stop.begun || p.ending() || p.failed {
		return p.stepStop(ctx, now)
	}
	next = earliest(next, p.stepSetup(ctx, now))
	if !p.setup.done {
		return next, false
	}
	at, finished := p.stepContainers(ctx, now)
	if finished || p.failed {
		return p.stepStop(ctx, now)
	}
	return earliest(next, at), false
}

// ending says whether the pod is to go.
func (p *pod) ending() bool { return p.gone || p.api.DeletionTimestamp != nil }

func (p *pod) fail(reason, message string) {
	p.failed, p.reason, p.message = true, reason, message
}

// stepContainers starts what is to run. finished says that all have ended for
// good.
func (p *pod) stepContainers(ctx context.Context, now time.Time) (next time.Time, finished bool) {
	begun := false
	for _, c := range p.containers {
		begun = begun || !c.init && c.attempt >= 0
	}
	for _, c := range p.containers {
		if !c.init || !c.sidecar && (begun || c.succeeded()) {
			continue
		}
		if c.failedForGood() {
			p.stop.begun = true
			p.stop.deadline = now.Add(p.grace())
			return next, true
		}
		next = earliest(next, c.keepRunning(ctx, now))
		if begun {
			continue
		}
		if !c.sidecar || !c.started {
			return next, false // the others wait for it
		}
	}
	finished = true
	for _, c := range p.containers {
		if c.init {
			continue
		}
		if c.endedForGood() {
			continue
		}
		finished = false
		next = earliest(next, c.keepRunning(ctx, now))
	}
	if finished {
		p.stop.begun = true
		p.stop.deadline = now.Add(p.grace())
	}
	return next, finished
}

// grace is how long containers have to end.
func (p *pod) grace() time.Duration {
	seconds := int64(corev1.DefaultTerminationGracePeriodSeconds)
	if s := p.api.Spec.TerminationGracePeriodSeconds; s != nil {
		seconds = *s
	}
	if s := p.api.DeletionGracePeriodSeconds; s != nil {
		seconds = *s
	}
	return time.Duration(max(seconds, 1)) * time.Second
}

// current gives the pod with its newest status.
func (p *pod) current() *corev1.Pod {
	p.mu.Lock()
	defer p.mu.Unlock()
	obj := p.api.DeepCopy()
	obj.Kind, obj.APIVersion = "Pod", "v1"
	if p.out.want != nil {
		obj.Status = *p.out.want.DeepCopy()
	}
	return obj
}

func (p *pod) addresses() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.setup.ips)
}

// container finds a container's newest run, or the last that ended before it.
func (p *pod) container(name string, previous bool) (runtime.ContainerID, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var names []string
	for _, c := range p.containers {
		if c.name == name || name == "" && !c.init {
			if c.attempt < 0 {
				return runtime.ContainerID{}, fmt.Errorf("container %q in pod %q is waiting to start: %s: %w", c.name, p.name, c.waiting.reason, runtime.ErrNotFound)
			}
			id := c.id()
			// While the next run is waited for, the newest one is the last that ended,
			// as the status says; the files of the one before may be gone already.
			if previous && !c.waits() {
				if id.Attempt--; id.Attempt < 0 {
					return runtime.ContainerID{}, fmt.Errorf("previous terminated container %q in pod %q not found", c.name, p.name)
				}
			}
			return id, nil
		}
		names = append(names, c.name)
	}
	return runtime.ContainerID{}, fmt.Errorf("container %s is not valid for pod %s (it has %s): %w", name, p.name, strings.Join(names, ", "), runtime.ErrNotFound)
}

// takeOver starts from what the API and the runtime know of an earlier agent.
func (p *pod) takeOver(runs []runtime.Container) {
	defer p.guard()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, ip := range p.api.Status.PodIPs {
		p.setup.ips = append(p.setup.ips, ip.IP)
	}
	if ph := p.api.Status.Phase; ph == corev1.PodSucceeded || ph == corev1.PodFailed {
		p.stop = stopping{begun: true, over: true}
		p.failed = ph == corev1.PodFailed
		p.reason, p.message = p.api.Status.Reason, p.api.Status.Message
		p.admitted, p.out.frozen = true, true
		return
	}
	known := len(runs) > 0
	for _, c := range p.containers {
		c.takeOver(runs)
		known = known || c.attempt >= 0
	}
	p.setup.sandbox = len(runs) > 0
	p.admitted = known || p.api.Status.Phase == corev1.PodRunning
	if p.admitted {
		p.a.settle(p)
	}
	for _, c := range p.containers {
		if c.running() && c.hooked {
			c.startProbes(true)
		}
	}
}

func specOf(obj *corev1.Pod, name string, init bool) *corev1.Container {
	list := obj.Spec.Containers
	if init {
		list = obj.Spec.InitContainers
	}
	for i := range list {
		if list[i].Name == name {
			return &list[i]
		}
	}
	return nil
}

// status derives the status that the API should have. The lock is held.
func (p *pod) status(now time.Time) corev1.PodStatus {
	in := podstatus.Input{
		Pod: p.api, Sandbox: p.setup.sandbox && !p.stop.clean, Over: p.stop.over, Failed: p.failed,
		Reason: p.reason, Message: p.message, PodIPs: p.setup.ips, HostIPs: p.a.node.hostIPs(), Start: p.start,
	}
	if p.failed && !p.admitted { // it was never here
		return podstatus.Make(in, now)
	}
	in.Failed = p.failed && p.stop.over
	for _, c := range p.containers {
		if c.init {
			in.Init = append(in.Init, c.status(now))
		} else {
			in.Regular = append(in.Regular, c.status(now))
		}
	}
	return podstatus.Make(in, now)
}
