package nodelife

import (
	"context"
	"encoding/json"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func (k *Controller) podsOf(node string) []*corev1.Pod {
	objs, err := k.pods.ByIndex(byNode, node)
	if err != nil {
		return nil // the index is ours
	}
	var out []*corev1.Pod
	for _, o := range objs {
		if p, ok := o.(*corev1.Pod); ok {
			out = append(out, p)
		}
	}
	return out
}

// unready takes the pods of a node out of their endpoints.
func (k *Controller) unready(ctx context.Context, node string) {
	for _, p := range k.podsOf(node) {
		if !isReady(p) {
			continue
		}
		patch, err := json.Marshal(map[string]any{
			"metadata": map[string]any{"uid": p.UID},
			"status": map[string]any{"conditions": []corev1.PodCondition{{
				Type: corev1.PodReady, Status: corev1.ConditionFalse, Reason: "NodeNotReady", Message: "The node is silent", LastTransitionTime: metav1.Now(),
			}}},
		})
		if err != nil {
			return
		}
		_, err = k.c.Client.CoreV1().Pods(p.Namespace).Patch(ctx, p.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
		if err = ignoreGone(err); err != nil && ctx.Err() == nil {
			k.c.Log.Warn("a pod of a silent node could not be marked; it is tried again", "pod", p.Namespace+"/"+p.Name, "error", err)
		}
	}
}

func isReady(p *corev1.Pod) bool {
	for i := range p.Status.Conditions {
		if p.Status.Conditions[i].Type == corev1.PodReady {
			return p.Status.Conditions[i].Status == corev1.ConditionTrue
		}
	}
	return false
}

// deletePods deletes the pods of a node: all of them without waiting when the
// node is gone, or else those that do not tolerate its silence.
func (k *Controller) deletePods(ctx context.Context, node string, gone bool) {
	for _, p := range k.podsOf(node) {
		opts := metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(p.UID))}
		if gone {
			var now int64
			opts.GracePeriodSeconds = &now
		} else if stays, err := k.stays(ctx, p); err != nil || stays || p.DeletionTimestamp != nil {
			continue
		}
		err := k.c.Client.CoreV1().Pods(p.Namespace).Delete(ctx, p.Name, opts)
		if err = ignoreGone(err); err != nil && !apierrors.IsConflict(err) && ctx.Err() == nil {
			k.c.Log.Warn("a pod of a lost node could not be deleted", "pod", p.Namespace+"/"+p.Name, "error", err)
		}
	}
}

// stays says whether a pod outlives the silence of its node. The informer's pods
// may be trimmed, so the whole one is looked up.
func (k *Controller) stays(ctx context.Context, p *corev1.Pod) (bool, error) {
	whole, err := k.c.Client.CoreV1().Pods(p.Namespace).Get(ctx, p.Name, metav1.GetOptions{})
	if err != nil {
		return false, err
	}
	for _, t := range whole.Spec.Tolerations {
		// With a time it is one for a while, which is over.
		if t.TolerationSeconds == nil && (t.Key == corev1.TaintNodeUnreachable || t.Key == "" && t.Operator == corev1.TolerationOpExists) &&
			(t.Effect == corev1.TaintEffectNoExecute || t.Effect == "") {
			return true, nil
		}
	}
	return false, nil
}

// endOrphan ends a pod that waits for a node that does not exist.
func (k *Controller) endOrphan(ctx context.Context, p *corev1.Pod) {
	if _, err := k.nodes.Get(p.Spec.NodeName); !apierrors.IsNotFound(err) {
		return
	}
	var now int64
	err := k.c.Client.CoreV1().Pods(p.Namespace).Delete(ctx, p.Name, metav1.DeleteOptions{GracePeriodSeconds: &now, Preconditions: metav1.NewUIDPreconditions(string(p.UID))})
	if err = ignoreGone(err); err != nil && !apierrors.IsConflict(err) && ctx.Err() == nil {
		k.c.Log.Warn("a pod without node could not be deleted", "pod", p.Namespace+"/"+p.Name, "error", err)
	}
}
