package agent

import (
	"context"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// leastGrace is what a container always gets after its preStop hook.
const leastGrace = 2 * time.Second

// kill stops the newest run, in a task. The lock is held.
func (c *container) kill(ctx context.Context, grace time.Duration, why string) {
	p := c.p
	c.busy, c.killing, c.killBy = true, true, time.Now().Add(grace)
	ctx, c.cancel = context.WithCancel(ctx)
	if !p.stop.begun { // of a pod that goes, readiness is still of interest
		c.stopProbes()
		c.ready = false
	}
	p.normal(c, "Killing", "%s", why)
	id, spec, deadline := c.id(), c.spec, c.killBy
	hook := spec.Lifecycle != nil && spec.Lifecycle.PreStop != nil && grace > time.Second && c.stopHook != id.Attempt+1
	c.stopHook = id.Attempt + 1 // once for each run, also if there is less time suddenly
	p.task(func() {
		defer func() {
			p.a.refresh(p.a.ctx, map[string]bool{p.uid: true})
			p.mu.Lock()
			defer p.mu.Unlock()
			c.busy, c.killing = false, false
			c.cancel()
			p.publish()
		}()
		if hook {
			hctx, cancel := context.WithDeadline(ctx, deadline)
			if err := p.safely(func() error { return p.hook(hctx, c, spec.Lifecycle.PreStop) }); err != nil && ctx.Err() == nil {
				p.warning(c, "FailedPreStopHook", "PreStopHook failed: %v", err)
			}
			cancel()
		}
		left := time.Until(deadline)
		if grace > time.Second {
			left = max(left, leastGrace)
		}
		for ctx.Err() == nil {
			err := p.safely(func() error { return p.a.rt.StopContainer(ctx, id, max(left, 0)) })
			if err == nil {
				return
			}
			if ctx.Err() != nil {
				return
			}
			p.warning(c, "FailedKillPod", "error killing pod: %v", err)
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	})
}

// stepStop brings the pod to its end: containers, sidecars in reverse, then
// what is on the machine, then the object in the API. The lock is held.
func (p *pod) stepStop(ctx context.Context, now time.Time) (next time.Time, done bool) {
	s := &p.stop
	if deadline := now.Add(p.grace()); !s.begun || deadline.Before(s.deadline) {
		s.begun, s.deadline = true, deadline
	}
	if p.setup.cancel != nil {
		p.setup.cancel()
	}
	if !s.over {
		if at := p.stepDrain(now); !at.IsZero() {
			return at, false
		}
		if !p.stopContainers(ctx, now) || p.setup.busy {
			return time.Time{}, false
		}
		s.over = true
		if s.drain.served && !p.gone {
			s.next = now.Add(drainLinger)
		}
		p.a.leave(p.uid)
		p.publish()
	}
	if s.busy {
		return time.Time{}, false
	}
	if now.Before(s.next) {
		return s.next, false
	}
	switch {
	case !s.clean:
		p.stopTask(ctx, func() error { return p.a.clean(ctx, p.uid, false) }, func() { s.clean = true })
	case !p.ending():
	case p.gone:
		if err := p.a.removeFiles(p.uid, true); err != nil {
			p.a.cfg.Log.Warn("remove files of a pod", "pod", p.namespace+"/"+p.name, "error", err)
		}
		return time.Time{}, true
	case s.deleted: // finalizers may keep it for a while
	case p.written():
		p.stopTask(ctx, func() error { return p.deleteObject(ctx) }, func() { s.deleted = true })
	}
	return time.Time{}, false
}

// stopTask runs one part of the end until it succeeds.
func (p *pod) stopTask(ctx context.Context, f func() error, ok func()) {
	s := &p.stop
	s.busy = true
	p.task(func() {
		err := p.safely(f)
		p.mu.Lock()
		defer p.mu.Unlock()
		s.busy = false
		if err == nil {
			s.wait, s.next = 0, time.Time{}
			ok()
			return
		}
		if ctx.Err() != nil {
			return
		}
		s.wait = min(max(s.wait*2, 100*time.Millisecond), 30*time.Second)
		s.next = time.Now().Add(s.wait)
		p.a.cfg.Log.Warn("a pod cannot be removed yet", "pod", p.namespace+"/"+p.name, "error", err)
	})
}

// stopContainers says whether all have ended.
func (p *pod) stopContainers(ctx context.Context, now time.Time) bool {
	left, ended := p.stop.deadline.Sub(now), true
	for _, c := range p.containers {
		if c.killing && c.killBy.After(p.stop.deadline.Add(time.Second)) {
			c.cancel() // there is less time now: again, with what is left
		} else if c.busy && !c.killing {
			c.cancel()
		}
		if c.sidecar {
			continue
		}
		if c.busy {
			ended = false
		} else if c.running() {
			ended = false
			c.kill(ctx, left, "Stopping container "+c.name)
		}
	}
	if !ended {
		return false
	}
	for _, c := range slices.Backward(p.containers) {
		switch {
		case c.busy:
			return false
		case c.running():
			if p.grace() > time.Second {
				left = max(left, leastGrace)
			}
			c.kill(ctx, left, "Stopping container "+c.name)
			return false
		}
	}
	return true
}

// deleteObject lets the API forget the pod.
func (p *pod) deleteObject(ctx context.Context) error {
	zero, uid := int64(0), types.UID(p.uid)
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	err := p.a.cfg.Client.CoreV1().Pods(p.namespace).Delete(ctx, p.name, metav1.DeleteOptions{
		GracePeriodSeconds: &zero, Preconditions: &metav1.Preconditions{UID: &uid},
	})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.gone = true
		return nil
	}
	return err
}
