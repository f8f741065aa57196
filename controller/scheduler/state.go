package scheduler

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-helpers/resource"
)

// state is what is known of nodes and of the pods on them. It is not safe for
// concurrent use.
type state struct {
	nodes map[string]*nodeState
	pods  map[types.UID]*placed
	// shy are the pods that keep others away: required anti-affinity.
	shy map[types.UID]*placed
}

// nodeState is one node; node is nil when only its pods are known.
type nodeState struct {
	node *corev1.Node
	pods map[types.UID]*placed
	used map[corev1.ResourceName]int64
}

// placed is a pod that has a node.
type placed struct {
	pod     *corev1.Pod
	node    string
	asks    map[corev1.ResourceName]int64
	assumed bool
}

func newState() *state {
	return &state{nodes: map[string]*nodeState{}, pods: map[types.UID]*placed{}, shy: map[types.UID]*placed{}}
}

func (s *state) at(name string) *nodeState {
	n := s.nodes[name]
	if n == nil {
		n = &nodeState{pods: map[types.UID]*placed{}, used: map[corev1.ResourceName]int64{}}
		s.nodes[name] = n
	}
	return n
}

func (s *state) setNode(n *corev1.Node) { s.at(n.Name).node = n }

func (s *state) removeNode(name string) {
	if n := s.nodes[name]; n != nil {
		n.node = nil
		if len(n.pods) == 0 {
			delete(s.nodes, name)
		}
	}
}

func (s *state) has(id types.UID) bool { return s.pods[id] != nil }

// add notes a pod as the API has it.
func (s *state) add(p *corev1.Pod, node string) {
	s.put(&placed{pod: p, node: node, asks: requests(p)})
}

// assume notes a pod that the API does not have on its node yet.
func (s *state) assume(p *corev1.Pod, node string) {
	s.put(&placed{pod: p, node: node, asks: requests(p), assumed: true})
}

func (s *state) put(p *placed) {
	s.remove(p.pod.UID)
	n := s.at(p.node)
	s.pods[p.pod.UID], n.pods[p.pod.UID] = p, p
	if a := p.pod.Spec.Affinity; a != nil && a.PodAntiAffinity != nil && len(a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution) > 0 {
		s.shy[p.pod.UID] = p
	}
	for r, v := range p.asks {
		n.used[r] += v
	}
}

func (s *state) remove(id types.UID) bool {
	p := s.pods[id]
	if p == nil {
		return false
	}
	n := s.nodes[p.node]
	for r, v := range p.asks {
		if n.used[r] -= v; n.used[r] == 0 {
			delete(n.used, r)
		}
	}
	delete(n.pods, id)
	delete(s.pods, id)
	delete(s.shy, id)
	if n.node == nil && len(n.pods) == 0 {
		delete(s.nodes, p.node)
	}
	return true
}

// forget takes back what was assumed; what the API has meanwhile stays.
func (s *state) forget(id types.UID) {
	if p := s.pods[id]; p != nil && p.assumed {
		s.remove(id)
	}
}

// sorted gives the nodes by name, so that a decision can be repeated.
func (s *state) sorted() []*nodeState {
	var out []*nodeState
	for _, name := range slices.Sorted(maps.Keys(s.nodes)) {
		if n := s.nodes[name]; n.node != nil {
			out = append(out, n)
		}
	}
	return out
}

// requests is what a pod asks for: processors in thousandths, the rest whole.
func requests(p *corev1.Pod) map[corev1.ResourceName]int64 {
	out := map[corev1.ResourceName]int64{corev1.ResourcePods: 1}
	for r, q := range resource.PodRequests(p, resource.PodResourcesOptions{}) {
		if r == corev1.ResourceCPU {
			out[r] = q.MilliValue()
		} else {
			out[r] = q.Value()
		}
	}
	return out
}

func room(n *corev1.Node, r corev1.ResourceName) int64 {
	q := n.Status.Allocatable[r]
	if r == corev1.ResourceCPU {
		return q.MilliValue()
	}
	return q.Value()
}

func labelsDiffer(a, b metav1.Object) bool { return !maps.Equal(a.GetLabels(), b.GetLabels()) }

// nodeDiffers says whether a change of a node may help a pod.
func nodeDiffers(a, b *corev1.Node) bool {
	if labelsDiffer(a, b) || a.Spec.Unschedulable != b.Spec.Unschedulable || ready(a) != ready(b) || len(a.Status.Allocatable) != len(b.Status.Allocatable) {
		return true
	}
	for r, q := range a.Status.Allocatable {
		if o, ok := b.Status.Allocatable[r]; !ok || q.Cmp(o) != 0 {
			return true
		}
	}
	return !slices.EqualFunc(a.Spec.Taints, b.Spec.Taints, func(x, y corev1.Taint) bool { return x.MatchTaint(&y) && x.Value == y.Value })
}

func ready(n *corev1.Node) corev1.ConditionStatus {
	for i := range n.Status.Conditions {
		if n.Status.Conditions[i].Type == corev1.NodeReady {
			return n.Status.Conditions[i].Status
		}
	}
	return corev1.ConditionUnknown
}
