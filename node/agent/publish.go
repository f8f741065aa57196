package agent

import (
	"context"
	"encoding/json"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

// company is how long a change that is not urgent waits for others.
const company = 30 * time.Millisecond

// output is the way of a pod's status to the API.
type output struct {
	want   *corev1.PodStatus // newest
	base   *corev1.PodStatus // what the API has, as far as we know
	acked  uint64            // resource version of base
	busy   bool              // a write is under way
	timer  *time.Timer       // a write is planned
	frozen bool              // the pod is over: the API's word stays
	lost   bool              // the API does not know the pod any more
}

func parseVersion(s string) uint64 {
	n, _ := strconv.ParseUint(s, 10, 64)
	return n
}

// merge takes a newer object from the watch. A status that is older than our
// own last write is not believed.
func (p *pod) merge(obj *corev1.Pod) {
	v := parseVersion(obj.ResourceVersion)
	if p.out.acked > 0 && v < p.out.acked {
		kept := obj.DeepCopy()
		kept.Status = p.api.Status
		p.api = kept
		return
	}
	p.api = obj
	if p.out.base != nil && v > p.out.acked {
		p.out.base, p.out.acked = &obj.Status, v
	}
}

// publish derives the status and sees that it is written. The lock is held.
func (p *pod) publish() {
	if p.out.frozen || p.out.lost || p.gone {
		return
	}
	if p.out.base == nil {
		p.out.base, p.out.acked = &p.api.Status, parseVersion(p.api.ResourceVersion)
	}
	s := p.status(time.Now())
	urgent := p.out.want == nil || urgent(p.out.want, &s)
	if p.out.want == nil || !equality.Semantic.DeepEqual(p.out.want, &s) {
		p.a.kept.changed(p)
	}
	p.out.want = &s
	if isReady(&s) && !p.wasReady {
		p.wasReady = true
		p.a.metrics.podStart.Observe(time.Since(p.seen).Seconds())
	}
	if equality.Semantic.DeepEqual(p.out.base, &s) || p.out.busy {
		return
	}
	// The first word on a new pod is soon followed by more.
	first := s.Phase == corev1.PodPending && p.out.base.StartTime == nil
	if urgent && !first {
		p.flush()
	} else if p.out.timer == nil {
		p.out.timer = time.AfterFunc(company, func() {
			defer p.guard()
			p.mu.Lock()
			defer p.mu.Unlock()
			p.flush()
		})
	}
}

// urgent says whether somebody waits for a change: readiness, phase, address.
func urgent(was, is *corev1.PodStatus) bool {
	return was.Phase != is.Phase || was.PodIP != is.PodIP || isReady(was) != isReady(is)
}

func isReady(s *corev1.PodStatus) bool {
	for i := range s.Conditions {
		if s.Conditions[i].Type == corev1.PodReady {
			return s.Conditions[i].Status == corev1.ConditionTrue
		}
	}
	return false
}

// flush begins to write, unless somebody does. The lock is held.
func (p *pod) flush() {
	if p.out.timer != nil {
		p.out.timer.Stop()
		p.out.timer = nil
	}
	if p.out.busy || p.a.ctx == nil || p.a.ctx.Err() != nil {
		return
	}
	p.out.busy = true
	p.task(func() { p.write(p.a.ctx) })
}

// write writes until the API has the newest status.
func (p *pod) write(ctx context.Context) {
	wait := 50 * time.Millisecond
	for {
		p.mu.Lock()
		want, base := p.out.want, p.out.base
		if want == nil || p.gone || p.out.lost || ctx.Err() != nil || equality.Semantic.DeepEqual(base, want) {
			p.out.busy = false
			p.mu.Unlock()
			return
		}
		p.mu.Unlock()
		got, err := p.patch(ctx, base, want)
		p.mu.Lock()
		switch {
		case err == nil:
			p.a.metrics.writes.WithLabelValues("ok").Inc()
			wait = 50 * time.Millisecond
			p.out.base = want
			if v := parseVersion(got.ResourceVersion); v > 0 {
				p.out.base, p.out.acked = &got.Status, max(p.out.acked, v)
				if equality.Semantic.DeepEqual(&got.Status, base) {
					p.out.base = want // the API sees it otherwise: not again
				}
			}
			next := *p.api // readers of the old one are not disturbed
			next.Status = got.Status
			p.api = &next
		case apierrors.IsNotFound(err):
			p.out.lost = true // another of that name does not concern us either
		default:
			p.a.metrics.writes.WithLabelValues("failed").Inc()
			p.a.cfg.Log.Debug("write a pod's status", "pod", p.namespace+"/"+p.name, "error", err)
		}
		p.mu.Unlock()
		if err == nil {
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait = min(wait*2, 5*time.Second)
	}
}

func (p *pod) patch(ctx context.Context, base, want *corev1.PodStatus) (*corev1.Pod, error) {
	was, err := json.Marshal(corev1.Pod{Status: *base})
	if err != nil {
		return nil, err
	}
	is, err := json.Marshal(corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: types.UID(p.uid)}, Status: *want})
	if err != nil {
		return nil, err
	}
	data, err := strategicpatch.CreateTwoWayMergePatch(was, is, corev1.Pod{})
	if err != nil {
		return nil, err
	}
	select {
	case p.a.slots <- struct{}{}:
		defer func() { <-p.a.slots }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	pods := p.a.cfg.Client.CoreV1().Pods(p.namespace)
	got, err := pods.Patch(ctx, p.name, types.StrategicMergePatchType, data, metav1.PatchOptions{}, "status")
	if !apierrors.IsConflict(err) {
		return got, err
	}
	// Too many writers at once, or another pod of that name.
	if now, lookErr := pods.Get(ctx, p.name, metav1.GetOptions{}); lookErr == nil && string(now.UID) != p.uid {
		err = apierrors.NewNotFound(corev1.Resource("pods"), p.name)
	}
	return nil, err
}

// written says whether the API has the newest status. The lock is held.
func (p *pod) written() bool {
	return p.out.frozen || p.out.lost || p.gone || p.out.want != nil && p.out.base != nil && !p.out.busy && equality.Semantic.DeepEqual(p.out.base, p.out.want)
}
