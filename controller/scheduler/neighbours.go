package scheduler

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// podRules is what the pods that are there mean for one that comes, by topology:
// worked out once, asked for each node.
type podRules struct {
	a *ask
	// refused topologies: a pod there keeps this one away.
	refused map[topology]bool
	terms   []termCount // required affinity and anti-affinity of this pod
	spread  []spreadCount
}

// topology is a label of nodes with a value, such as a zone.
type topology struct{ key, value string }

type termCount struct {
	key   string
	anti  bool
	found map[string]bool
	first bool // nobody matches yet, and the pod matches itself
}

type spreadCount struct {
	c      corev1.TopologySpreadConstraint
	counts map[string]int
	least  int
	self   int
}

// selects says whether a term takes a pod. Terms without namespaces mean the
// namespace of the pod that has them.
func selects(t *corev1.PodAffinityTerm, owner, p *corev1.Pod) bool {
	namespace := len(t.Namespaces) == 0 && t.NamespaceSelector == nil && p.Namespace == owner.Namespace ||
		slices.Contains(t.Namespaces, p.Namespace) || t.NamespaceSelector != nil && everything(t.NamespaceSelector)
	if !namespace || t.LabelSelector == nil {
		return false
	}
	return matches(withKeys(t.LabelSelector, t.MatchLabelKeys, owner), p)
}

// everything says whether a selector is the empty one. The API server does not
// let the scheduler see labels of namespaces cheaply, so that others take none.
func everything(s *metav1.LabelSelector) bool {
	return len(s.MatchLabels) == 0 && len(s.MatchExpressions) == 0
}

// withKeys adds matchLabelKeys: only pods with the same values as the owner.
func withKeys(s *metav1.LabelSelector, keys []string, owner *corev1.Pod) *metav1.LabelSelector {
	if len(keys) == 0 {
		return s
	}
	out := s.DeepCopy()
	for _, k := range keys {
		if v, ok := owner.Labels[k]; ok {
			out.MatchExpressions = append(out.MatchExpressions, metav1.LabelSelectorRequirement{Key: k, Operator: metav1.LabelSelectorOpIn, Values: []string{v}})
		}
	}
	return out
}

func (s *state) podRules(a *ask) *podRules {
	r := &podRules{a: a, refused: map[topology]bool{}}
	for _, p := range s.shy {
		n := s.nodes[p.node]
		if n.node == nil || p.pod.UID == a.pod.UID {
			continue
		}
		for i := range p.pod.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution {
			t := &p.pod.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution[i]
			if v, ok := n.node.Labels[t.TopologyKey]; ok && selects(t, p.pod, a.pod) {
				r.refused[topology{t.TopologyKey, v}] = true
			}
		}
	}
	if aff := a.pod.Spec.Affinity; aff != nil {
		if aff.PodAffinity != nil {
			for i := range aff.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution {
				r.terms = append(r.terms, s.count(a, &aff.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution[i], false))
			}
		}
		if aff.PodAntiAffinity != nil {
			for i := range aff.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution {
				r.terms = append(r.terms, s.count(a, &aff.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution[i], true))
			}
		}
	}
	for _, c := range a.pod.Spec.TopologySpreadConstraints {
		if c.WhenUnsatisfiable == corev1.DoNotSchedule {
			r.spread = append(r.spread, s.countSpread(a, c))
		}
	}
	return r
}

// count finds the topologies in which a pod of the term is.
func (s *state) count(a *ask, t *corev1.PodAffinityTerm, anti bool) termCount {
	tc := termCount{key: t.TopologyKey, anti: anti, found: map[string]bool{}}
	for _, n := range s.nodes {
		if n.node == nil {
			continue
		}
		v, ok := n.node.Labels[t.TopologyKey]
		if !ok || tc.found[v] {
			continue
		}
		for _, p := range n.pods {
			if p.pod.UID != a.pod.UID && selects(t, a.pod, p.pod) {
				tc.found[v] = true
				break
			}
		}
	}
	// The first pod of a group that wants to be together goes anywhere.
	tc.first = !anti && len(tc.found) == 0 && selects(t, a.pod, a.pod)
	return tc
}

// countSpread counts the pods of a spread constraint in each topology.
func (s *state) countSpread(a *ask, c corev1.TopologySpreadConstraint) spreadCount {
	sc := spreadCount{c: c, counts: map[string]int{}}
	sel := labels.Nothing()
	if c.LabelSelector != nil {
		if ls, err := metav1.LabelSelectorAsSelector(withKeys(c.LabelSelector, c.MatchLabelKeys, a.pod)); err == nil {
			sel = ls
		}
	}
	if sel.Matches(labels.Set(a.pod.Labels)) {
		sc.self = 1
	}
	for _, n := range s.nodes {
		if n.node == nil {
			continue
		}
		v, ok := n.node.Labels[c.TopologyKey]
		if !ok {
			continue
		}
		// Nodes that the pod may not use do not count, as is the default.
		if c.NodeAffinityPolicy == nil || *c.NodeAffinityPolicy == corev1.NodeInclusionPolicyHonor {
			if ok, err := a.affinity.Match(n.node); err != nil || !ok {
				continue
			}
		}
		count := 0
		for _, p := range n.pods {
			if p.pod.Namespace == a.pod.Namespace && p.pod.DeletionTimestamp == nil && sel.Matches(labels.Set(p.pod.Labels)) {
				count++
			}
		}
		sc.counts[v] += count
	}
	first := true
	for _, n := range sc.counts {
		if first || n < sc.least {
			sc.least, first = n, false
		}
	}
	if c.MinDomains != nil && len(sc.counts) < int(*c.MinDomains) {
		sc.least = 0
	}
	return sc
}

// takes says why the neighbours of a node keep the pod away.
func (r *podRules) takes(n *nodeState) []string {
	for _, sc := range r.spread {
		v, ok := n.node.Labels[sc.c.TopologyKey]
		if !ok {
			return []string{notSpreadLabel}
		}
		if sc.counts[v]+sc.self-sc.least > int(sc.c.MaxSkew) {
			return []string{notSpread}
		}
	}
	for _, t := range r.terms {
		v, ok := n.node.Labels[t.key]
		switch {
		case t.anti && ok && t.found[v]:
			return []string{notPodAnti}
		case !t.anti && (!ok || !t.found[v] && !t.first):
			return []string{notPodAffinity}
		}
	}
	for t := range r.refused {
		if v, ok := n.node.Labels[t.key]; ok && v == t.value {
			return []string{notTheirAnti}
		}
	}
	return nil
}
