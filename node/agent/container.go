package agent

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fingerpost/fingerpost/node/agent/podstatus"
	"github.com/fingerpost/fingerpost/node/agent/prober"
	"github.com/fingerpost/fingerpost/node/runtime"
)

// Back-off of restarts and of attempts to fetch an image.
const (
	firstBackOff   = 10 * time.Second
	longestBackOff = 5 * time.Minute
	backOffReset   = 10 * time.Minute
)

// idScheme begins container IDs.
const idScheme = "fingerpost://"

// container is one container of a pod, through all its runs. The pod's lock
// guards it.
type container struct {
	p       *pod
	name    string
	spec    *corev1.Container
	init    bool
	sidecar bool

	attempt int               // of the newest run; -1: none
	run     runtime.Container // the newest run
	imageID string
	image   string // that the newest run was made from
	message string // termination message of the newest run
	last    *corev1.ContainerStateTerminated
	lost    bool // nobody knows how the newest run ended

	waiting waiting
	busy    bool // a task starts or stops it
	cancel  context.CancelFunc
	killing bool
	killBy  time.Time // deadline of the stop that is under way
	// stopHook is 1 + the run whose preStop hook was begun.
	stopHook int

	backOff   time.Duration
	startedAt time.Time // of the last start by back-off
	next      time.Time // no start before
	pullWait  time.Duration
	told      bool // that it is in back-off

	since          time.Time // when the newest run was noted here
	doomed         string    // why the newest run is to be killed
	hooked         bool      // the postStart hook is done
	passed         bool      // the startup probe has passed
	started, ready bool
	group          *prober.Group
}

// waiting is why a container does not run.
type waiting struct{ reason, message string }

func newContainer(p *pod, spec *corev1.Container, init bool) *container {
	return &container{
		p: p, name: spec.Name, spec: spec, init: init, sidecar: init && podstatus.IsSidecar(spec),
		attempt: -1, waiting: waiting{reason: "ContainerCreating"},
	}
}

func (c *container) id() runtime.ContainerID {
	return runtime.ContainerID{PodUID: c.p.uid, Name: c.name, Attempt: c.attempt}
}

func containerID(id runtime.ContainerID) string {
	return fmt.Sprintf("%s%s.%s.%d", idScheme, id.PodUID, id.Name, id.Attempt)
}

func (c *container) running() bool { return c.attempt >= 0 && c.run.Running() }
func (c *container) ended() bool   { return c.attempt >= 0 && !c.run.Ended.IsZero() }

// succeeded says whether an init container has done its work.
func (c *container) succeeded() bool { return c.ended() && c.run.ExitCode == 0 && !c.busy }

func (c *container) restarts() bool {
	return c.sidecar || podstatus.Restarts(c.p.api, c.spec, c.init, int32(c.run.ExitCode))
}

func (c *container) endedForGood() bool { return c.ended() && !c.busy && !c.restarts() }

// failedForGood says whether an init container keeps the pod from ever starting.
func (c *container) failedForGood() bool {
	return c.init && !c.sidecar && c.endedForGood() && c.run.ExitCode != 0
}

// keepRunning starts the container if it is time, and tells when it will be.
func (c *container) keepRunning(ctx context.Context, now time.Time) time.Time {
	switch {
	case c.busy:
		return time.Time{}
	case c.running():
		switch {
		case c.doomed != "":
			c.kill(ctx, c.p.grace(), c.doomed)
		case c.image != "" && c.image != c.spec.Image:
			c.kill(ctx, c.p.grace(), fmt.Sprintf("Container %s definition changed, will be restarted", c.name))
		}
		return time.Time{}
	case now.Before(c.next):
		c.explainWait()
		return c.next
	}
	c.start(ctx)
	return time.Time{}
}

// explainWait says that it is back-off that one waits for.
func (c *container) explainWait() {
	if c.told {
		return
	}
	c.told = true
	if c.ended() && c.waiting.reason == "CrashLoopBackOff" {
		c.p.warning(c, "BackOff", "Back-off restarting failed container %s in pod %s_%s(%s)", c.name, c.p.name, c.p.namespace, c.p.uid)
	}
}

// observe takes what the runtime said, when asked, of the pod's containers.
func (p *pod) observe(runs []runtime.Container, asked time.Time) {
	defer p.guard()
	p.mu.Lock()
	defer p.mu.Unlock()
	changed := false
	for _, c := range p.containers {
		known := slices.ContainsFunc(runs, func(r runtime.Container) bool { return r.ID.Name == c.name && r.ID.Attempt == c.attempt })
		if c.running() && c.since.Before(asked) && !known {
			c.lost = true
			c.ends(runtime.Container{ID: c.id(), Started: c.run.Started, Ended: asked, ExitCode: 137, Failure: "the runtime knows nothing of this container any more"})
			changed = true
		}
	}
	for i := range runs {
		for _, c := range p.containers {
			if r := &runs[i]; c.name == r.ID.Name && c.attempt == r.ID.Attempt && c.run.Ended.IsZero() && !r.Ended.IsZero() {
				c.ends(*r)
				changed = true
			}
		}
	}
	if changed {
		p.publish()
		p.poke()
	}
}

// ends notes the end of the newest run and when the next may begin.
func (c *container) ends(r runtime.Container) {
	c.run = r
	c.started, c.ready, c.hooked, c.passed = false, false, false, false
	c.stopProbes()
	c.message = c.p.a.terminationMessage(c, r)
	if !c.restarts() || c.p.stop.begun {
		return
	}
	c.backoff(r.Ended)
}

// backoff sets when the next start may be.
func (c *container) backoff(ended time.Time) {
	now := time.Now()
	if c.backOff > 0 && ended.Sub(c.startedAt) > backOffReset {
		c.backOff = 0
	}
	c.next, c.told = time.Time{}, false
	if at := ended.Add(c.backOff); c.backOff > 0 && at.After(now) {
		c.next = at
		c.waiting = waiting{"CrashLoopBackOff", fmt.Sprintf("back-off %s restarting failed container=%s pod=%s_%s(%s)",
			shortDuration(c.backOff), c.name, c.p.name, c.p.namespace, c.p.uid)}
	}
}

// shortDuration writes 5m0s and 10s as people know it from kubelets.
func shortDuration(d time.Duration) string { return d.String() }

// began counts a start for the back-off.
func (c *container) began(now time.Time) {
	if c.attempt < 0 {
		return // the first start is no restart
	}
	c.startedAt = now
	c.backOff = min(max(c.backOff*2, firstBackOff), longestBackOff)
}

func (c *container) stopProbes() {
	if c.group != nil {
		c.group.Stop()
		c.group = nil
	}
}

// status gives the container's status.
func (c *container) status(time.Time) corev1.ContainerStatus {
	s := corev1.ContainerStatus{Name: c.name, Image: c.spec.Image, ImageID: c.imageID, RestartCount: int32(max(c.attempt, 0)), Ready: c.ready}
	started := c.started
	s.Started = &started
	if c.attempt >= 0 {
		s.ContainerID = containerID(c.id())
	}
	if c.last != nil {
		s.LastTerminationState.Terminated = c.last
	}
	switch {
	case c.running():
		s.State.Running = &corev1.ContainerStateRunning{StartedAt: stamp(c.run.Started)}
	case c.ended():
		t := c.terminated()
		if c.waits() {
			s.State.Waiting = &corev1.ContainerStateWaiting{Reason: c.waiting.reason, Message: c.waiting.message}
			s.LastTerminationState.Terminated = t
		} else {
			s.State.Terminated = t
			s.Ready = c.init && !c.sidecar && t.ExitCode == 0
		}
	default:
		w := c.waiting
		if w.reason == "ContainerCreating" && c.p.uninitialized(c) {
			w.reason = "PodInitializing"
		}
		s.State.Waiting = &corev1.ContainerStateWaiting{Reason: w.reason, Message: w.message}
	}
	return s
}

// waits says whether the newest run has ended and the next is waited for.
func (c *container) waits() bool {
	return c.ended() && !c.p.stop.begun && c.restarts() &&
		(!c.next.IsZero() || c.waiting.reason != "" && c.waiting.reason != "ContainerCreating" && c.waiting.reason != "PodInitializing")
}

// uninitialized says whether init containers come before a container.
func (p *pod) uninitialized(c *container) bool {
	for _, o := range p.containers {
		if o == c || !o.init {
			return false
		}
		if o.sidecar && !o.started || !o.sidecar && !o.succeeded() {
			return true
		}
	}
	return false
}

func stamp(t time.Time) metav1.Time { return metav1.NewTime(t).Rfc3339Copy() }

// terminated tells how the newest run ended.
func (c *container) terminated() *corev1.ContainerStateTerminated {
	r := &c.run
	t := &corev1.ContainerStateTerminated{
		ExitCode: int32(r.ExitCode), Signal: int32(r.Signal), Message: c.message,
		StartedAt: stamp(r.Started), FinishedAt: stamp(r.Ended), ContainerID: containerID(c.id()),
	}
	switch {
	case c.lost:
		t.Reason = "ContainerStatusUnknown"
	case r.OOM:
		t.Reason = "OOMKilled"
	case r.Failure != "":
		t.Reason = "ContainerCannotRun"
	case r.ExitCode == 0:
		t.Reason = "Completed"
	default:
		t.Reason = "Error"
	}
	if t.Message == "" {
		t.Message = r.Failure
	}
	return t
}

// takeOver continues the newest run that an earlier agent has made.
func (c *container) takeOver(runs []runtime.Container) {
	var before *runtime.Container
	for i := range runs {
		r := &runs[i]
		if r.ID.Name != c.name {
			continue
		}
		if r.ID.Attempt > c.attempt {
			if c.attempt >= 0 {
				was := c.run
				before = &was
			}
			c.attempt, c.run = r.ID.Attempt, *r
		} else if before == nil || r.ID.Attempt > before.ID.Attempt {
			before = r
		}
	}
	old := statusOf(&c.p.api.Status, c.name, c.init)
	if old != nil {
		c.last = old.LastTerminationState.Terminated
	}
	switch {
	case c.attempt >= 0:
		c.imageID, c.image = c.run.Labels[labelImageID], c.run.Image
		if c.ended() {
			c.message = c.p.a.terminationMessage(c, c.run)
			return
		}
		same := old != nil && old.ContainerID == containerID(c.id())
		if same && old.State.Running != nil {
			c.run.Started = old.State.Running.StartedAt.Time // as it was told
		}
		c.hooked = true
		c.passed = c.spec.StartupProbe == nil || same && old.Started != nil && *old.Started
		c.started = c.passed
		c.ready = same && old.Ready || c.spec.ReadinessProbe == nil && c.started
	case old != nil && old.ContainerID != "":
		// It ran, but nothing knows of it: the machine was started anew.
		c.attempt, c.imageID = int(old.RestartCount), old.ImageID
		c.run = runtime.Container{ID: c.id(), Ended: time.Now(), ExitCode: 137}
		if t := old.State.Terminated; t != nil {
			c.run = runtime.Container{ID: c.id(), Started: t.StartedAt.Time, Ended: t.FinishedAt.Time, ExitCode: int(t.ExitCode), Signal: int(t.Signal), OOM: t.Reason == "OOMKilled"}
			c.message = t.Message
			return
		}
		if r := old.State.Running; r != nil {
			c.run.Started = r.StartedAt.Time
		}
		c.lost, c.message = true, "The container could not be located when the pod was taken over"
	}
	if before != nil && c.last == nil {
		was := *c
		was.attempt, was.run = before.ID.Attempt, *before
		c.last = was.terminated()
	}
}

func statusOf(s *corev1.PodStatus, name string, init bool) *corev1.ContainerStatus {
	list := s.ContainerStatuses
	if init {
		list = s.InitContainerStatuses
	}
	for i := range list {
		if list[i].Name == name {
			return &list[i]
		}
	}
	return nil
}
