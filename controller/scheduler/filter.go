package scheduler

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	schedulingv1 "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"
)

// Reasons, in the words of kube-scheduler: people and tools search for them.
const (
	notUnschedulable = "node(s) were unschedulable"
	notTolerated     = "node(s) had untolerated taint(s)"
	notAffine        = "node(s) didn't match Pod's node affinity/selector"
	notPorts         = "node(s) didn't have free ports for the requested pod ports"
	notSpread        = "node(s) didn't match pod topology spread constraints"
	notSpreadLabel   = "node(s) didn't match pod topology spread constraints (missing required label)"
	notPodAffinity   = "node(s) didn't match pod affinity rules"
	notPodAnti       = "node(s) didn't match pod anti-affinity rules"
	notTheirAnti     = "node(s) didn't satisfy existing pods anti-affinity rules"
	tooManyPods      = "Too many pods"
)

// ask is a pod with what is worked out once for all nodes.
type ask struct {
	pod      *corev1.Pod
	requests map[corev1.ResourceName]int64
	affinity nodeaffinity.RequiredNodeAffinity
	ports    []corev1.ContainerPort
	spread   func(*corev1.Pod) bool // is it one of mine, to be spread; nil: nobody
}

func newAsk(p *corev1.Pod) *ask {
	a := &ask{pod: p, requests: requests(p), affinity: nodeaffinity.GetRequiredNodeAffinity(p)}
	a.ports = hostPorts(p)
	return a
}

// hostPorts gives the ports that a pod takes on its node.
func hostPorts(p *corev1.Pod) []corev1.ContainerPort {
	var out []corev1.ContainerPort
	add := func(cs []corev1.Container, init bool) {
		for i := range cs {
			if init && (cs[i].RestartPolicy == nil || *cs[i].RestartPolicy != corev1.ContainerRestartPolicyAlways) {
				continue
			}
			for _, port := range cs[i].Ports {
				if port.HostPort > 0 {
					out = append(out, port)
				}
			}
		}
	}
	add(p.Spec.Containers, false)
	add(p.Spec.InitContainers, true)
	return out
}

// filter gives the nodes that take the pod, or why none does.
func (s *state) filter(a *ask) ([]*nodeState, string) {
	nodes := s.sorted()
	if len(nodes) == 0 {
		return nil, "no nodes available to schedule pods"
	}
	pods := s.podRules(a)
	var fit []*nodeState
	reasons := map[string]int{}
	for _, n := range nodes {
		why := n.takes(a)
		if len(why) == 0 {
			why = pods.takes(n)
		}
		if len(why) == 0 {
			fit = append(fit, n)
		}
		for _, w := range why {
			reasons[w]++
		}
	}
	if len(fit) > 0 {
		return fit, ""
	}
	var parts []string
	for _, r := range slices.Sorted(maps.Keys(reasons)) {
		parts = append(parts, fmt.Sprintf("%d %s", reasons[r], r))
	}
	slices.Sort(parts)
	return nil, fmt.Sprintf("0/%d nodes are available: %s.", len(nodes), strings.Join(parts, ", "))
}

// takes says why a node does not take a pod, its neighbours aside.
func (n *nodeState) takes(a *ask) []string {
	tolerations := a.pod.Spec.Tolerations
	if n.node.Spec.Unschedulable && !tolerates(tolerations, corev1.TaintNodeUnschedulable, corev1.TaintEffectNoSchedule) {
		return []string{notUnschedulable}
	}
	// kube-scheduler relies on a taint for this; the condition is there earlier.
	if st := ready(n.node); st != corev1.ConditionTrue {
		taint := corev1.TaintNodeNotReady
		if st == corev1.ConditionUnknown {
			taint = corev1.TaintNodeUnreachable
		}
		if !tolerates(tolerations, taint, corev1.TaintEffectNoSchedule) && !tolerates(tolerations, corev1.TaintNodeNotReady, corev1.TaintEffectNoSchedule) {
			return []string{notTolerated}
		}
	}
	if _, found := schedulingv1.FindMatchingUntoleratedTaint(klog.Background(), n.node.Spec.Taints, tolerations, func(t *corev1.Taint) bool {
		return t.Effect == corev1.TaintEffectNoSchedule || t.Effect == corev1.TaintEffectNoExecute
	}, false); found {
		return []string{notTolerated}
	}
	if ok, err := a.affinity.Match(n.node); err != nil || !ok {
		return []string{notAffine}
	}
	if len(a.ports) > 0 {
		for _, p := range n.pods {
			if clash(a.ports, hostPorts(p.pod)) {
				return []string{notPorts}
			}
		}
	}
	var short []string
	for _, r := range slices.Sorted(maps.Keys(a.requests)) {
		v := a.requests[r]
		if v == 0 || n.used[r]+v <= room(n.node, r) {
			continue
		}
		if r == corev1.ResourcePods {
			short = append(short, tooManyPods)
		} else {
			short = append(short, "Insufficient "+string(r))
		}
	}
	return short
}

func tolerates(ts []corev1.Toleration, taint string, effect corev1.TaintEffect) bool {
	return schedulingv1.TolerationsTolerateTaint(klog.Background(), ts, &corev1.Taint{Key: taint, Effect: effect}, false)
}

// clash says whether two sets of host ports exclude each other.
func clash(a, b []corev1.ContainerPort) bool {
	any := func(ip string) bool { return ip == "" || ip == "0.0.0.0" || ip == "::" }
	protocol := func(p corev1.Protocol) corev1.Protocol {
		if p == "" {
			return corev1.ProtocolTCP
		}
		return p
	}
	for _, x := range a {
		for _, y := range b {
			if x.HostPort == y.HostPort && protocol(x.Protocol) == protocol(y.Protocol) && (any(x.HostIP) || any(y.HostIP) || x.HostIP == y.HostIP) {
				return true
			}
		}
	}
	return false
}

// matches says whether a label selector of a namespace takes a pod.
func matches(sel *metav1.LabelSelector, p *corev1.Pod) bool {
	ls, err := metav1.LabelSelectorAsSelector(sel)
	return err == nil && ls.Matches(labels.Set(p.Labels))
}
