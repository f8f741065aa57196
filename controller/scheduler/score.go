package scheduler

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	schedulingv1 "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"
)

// Weights of the scores, each of which is 0 to 1: kube-scheduler's.
const (
	weightRoom       = 1
	weightSpread     = 2
	weightAffinity   = 2
	weightNeighbours = 2
	weightTaints     = 3
)

// siblings gives what says whether a pod is to be spread with p: those of the
// same owner, or else those of the services that select p.
func (s *Scheduler) siblings(p *corev1.Pod) func(*corev1.Pod) bool {
	if owner := metav1.GetControllerOf(p); owner != nil {
		return func(o *corev1.Pod) bool {
			other := metav1.GetControllerOfNoCopy(o)
			return other != nil && other.UID == owner.UID
		}
	}
	if s.c.Services == nil || len(p.Labels) == 0 {
		return nil
	}
	list, err := s.c.Services.Services(p.Namespace).List(labels.Everything())
	if err != nil {
		return nil
	}
	var sels []labels.Selector
	for _, svc := range list {
		if sel := labels.SelectorFromSet(svc.Spec.Selector); len(svc.Spec.Selector) > 0 && sel.Matches(labels.Set(p.Labels)) {
			sels = append(sels, sel)
		}
	}
	if len(sels) == 0 {
		return nil
	}
	return func(o *corev1.Pod) bool {
		for _, sel := range sels {
			if o.Namespace == p.Namespace && sel.Matches(labels.Set(o.Labels)) {
				return true
			}
		}
		return false
	}
}

// best chooses among the nodes that fit.
func (s *state) best(a *ask, fit []*nodeState) string {
	if len(fit) == 1 {
		return fit[0].node.Name
	}
	total := make([]float64, len(fit))
	add := func(weight float64, less bool, score func(*nodeState) float64) {
		raw := make([]float64, len(fit))
		low, high := 0.0, 0.0
		for i, n := range fit {
			raw[i] = score(n)
			if i == 0 || raw[i] < low {
				low = raw[i]
			}
			if i == 0 || raw[i] > high {
				high = raw[i]
			}
		}
		if high == low {
			return
		}
		for i := range raw {
			v := (raw[i] - low) / (high - low)
			if less {
				v = 1 - v
			}
			total[i] += weight * v
		}
	}
	for i, n := range fit {
		total[i] += weightRoom * n.free(a)
	}
	if a.spread != nil {
		add(weightSpread, true, func(n *nodeState) float64 { return float64(n.count(a.spread)) })
	}
	for _, c := range a.pod.Spec.TopologySpreadConstraints {
		if c.WhenUnsatisfiable == corev1.ScheduleAnyway {
			sc := s.countSpread(a, c)
			add(weightSpread, true, func(n *nodeState) float64 { return float64(sc.counts[n.node.Labels[c.TopologyKey]]) })
		}
	}
	if aff := a.pod.Spec.Affinity; aff != nil {
		if aff.NodeAffinity != nil {
			if terms, err := nodeaffinity.NewPreferredSchedulingTerms(aff.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution); err == nil {
				add(weightAffinity, false, func(n *nodeState) float64 { return float64(terms.Score(n.node)) })
			}
		}
		if w := s.preferences(a, aff); len(w) > 0 {
			add(weightNeighbours, false, func(n *nodeState) float64 {
				sum := 0.0
				for t, v := range w {
					if n.node.Labels[t.key] == t.value {
						sum += v
					}
				}
				return sum
			})
		}
	}
	add(weightTaints, true, func(n *nodeState) float64 {
		bad := 0
		for i := range n.node.Spec.Taints {
			t := &n.node.Spec.Taints[i]
			if t.Effect == corev1.TaintEffectPreferNoSchedule && !schedulingv1.TolerationsTolerateTaint(klog.Background(), a.pod.Spec.Tolerations, t, false) {
				bad++
			}
		}
		return float64(bad)
	})
	best := 0
	for i := range fit {
		// Equal scores go to the node with fewer pods, then by name.
		if total[i] > total[best] || total[i] == total[best] && len(fit[i].pods) < len(fit[best].pods) {
			best = i
		}
	}
	return fit[best].node.Name
}

// preferences sums the weights of preferred affinity by topology.
func (s *state) preferences(a *ask, aff *corev1.Affinity) map[topology]float64 {
	w := map[topology]float64{}
	note := func(terms []corev1.WeightedPodAffinityTerm, sign float64) {
		for i := range terms {
			t := &terms[i].PodAffinityTerm
			for v := range s.count(a, t, false).found {
				w[topology{t.TopologyKey, v}] += sign * float64(terms[i].Weight)
			}
		}
	}
	if aff.PodAffinity != nil {
		note(aff.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution, 1)
	}
	if aff.PodAntiAffinity != nil {
		note(aff.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution, -1)
	}
	return w
}

func (n *nodeState) count(is func(*corev1.Pod) bool) int {
	c := 0
	for _, p := range n.pods {
		if p.pod.DeletionTimestamp == nil && is(p.pod) {
			c++
		}
	}
	return c
}

// free is the share of processors and memory that would be left.
func (n *nodeState) free(a *ask) float64 {
	sum := 0.0
	for _, r := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		if have := room(n.node, r); have > 0 {
			sum += float64(max(have-n.used[r]-a.requests[r], 0)) / float64(have)
		}
	}
	return sum / 2
}
