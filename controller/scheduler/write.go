package scheduler

import (
	"context"
	"encoding/json"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// write tells the API what was decided.
func (s *Scheduler) write(ctx context.Context, p *corev1.Pod, d decision) {
	if d.node == "" {
		s.noteFailure(ctx, p, d.reason)
		return
	}
	err := s.c.Client.CoreV1().Pods(p.Namespace).Bind(ctx, &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Name: p.Name, Namespace: p.Namespace, UID: p.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: d.node},
	}, metav1.CreateOptions{})
	if err == nil {
		if s.c.Events != nil {
			s.c.Events.Eventf(p, corev1.EventTypeNormal, "Scheduled", "Successfully assigned %s/%s to %s", p.Namespace, p.Name, d.node)
		}
		return
	}
	s.mu.Lock()
	s.state.forget(p.UID)
	if !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		s.queue.back(keyOf(p), time.Now())
	}
	if s.queue.retryAll() {
		s.poke()
	}
	s.mu.Unlock()
	s.poke()
	if ctx.Err() == nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		s.c.Log.Warn("a pod could not be given its node; it is tried again", "pod", p.Namespace+"/"+p.Name, "node", d.node, "error", err)
	}
}

// noteFailure writes the condition and the Event, once for each reason.
func (s *Scheduler) noteFailure(ctx context.Context, p *corev1.Pod, reason string) {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse && c.Message == reason {
			return
		}
	}
	if s.c.Events != nil {
		s.c.Events.Event(p, corev1.EventTypeWarning, "FailedScheduling", reason)
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": p.UID},
		"status": map[string]any{"conditions": []corev1.PodCondition{{
			Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable, Message: reason, LastTransitionTime: metav1.Now(),
		}}},
	})
	if err != nil {
		return
	}
	_, err = s.c.Client.CoreV1().Pods(p.Namespace).Patch(ctx, p.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	if err != nil && ctx.Err() == nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		s.c.Log.Warn("why a pod has no node could not be written", "pod", p.Namespace+"/"+p.Name, "error", err)
	}
}
