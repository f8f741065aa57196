package scheduler

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func node(name string, change ...func(*corev1.Node)) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"kubernetes.io/hostname": name}}, Status: corev1.NodeStatus{
		Allocatable: corev1.ResourceList{"cpu": resource.MustParse("2"), "memory": resource.MustParse("4Gi"), "pods": resource.MustParse("10")},
		Conditions:  []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
	}}
	for _, c := range change {
		c(n)
	}
	return n
}

func zone(z string) func(*corev1.Node) {
	return func(n *corev1.Node) { n.Labels["zone"] = z }
}

func taint(effect corev1.TaintEffect) func(*corev1.Node) {
	return func(n *corev1.Node) {
		n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: "k", Value: "v", Effect: effect})
	}
}

func pod(name string, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: types.UID(name), Labels: map[string]string{"app": "web"}},
		Spec: corev1.PodSpec{SchedulerName: Name, Containers: []corev1.Container{{Name: "c"}}}}
	for _, c := range change {
		c(p)
	}
	return p
}

func asks(r, q string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceName(r): resource.MustParse(q)}
	}
}

func hostPort(ip string, port int32) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Containers[0].Ports = append(p.Spec.Containers[0].Ports, corev1.ContainerPort{HostPort: port, HostIP: ip})
	}
}

func owned(by string) func(*corev1.Pod) {
	yes := true
	return func(p *corev1.Pod) {
		p.OwnerReferences = []metav1.OwnerReference{{UID: types.UID(by), Controller: &yes}}
	}
}

func term(key string) corev1.PodAffinityTerm {
	return corev1.PodAffinityTerm{TopologyKey: key, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}}
}

func anti(key string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{term(key)}}}
	}
}

func together(key string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{term(key)}}}
	}
}

func spread(key string, when corev1.UnsatisfiableConstraintAction) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.TopologySpreadConstraints = append(p.Spec.TopologySpreadConstraints, corev1.TopologySpreadConstraint{MaxSkew: 1, TopologyKey: key, WhenUnsatisfiable: when,
			LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}})
	}
}

func on(n string) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Spec.NodeName = n } }

func labelled(k, v string) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Labels[k] = v } }

func TestDecide(t *testing.T) {
	for name, tc := range map[string]struct {
		nodes []*corev1.Node
		there []*corev1.Pod
		pod   *corev1.Pod
		want  string // nodes that are right, or the reason
	}{
		"no nodes":         {nil, nil, pod("p"), "no nodes available to schedule pods"},
		"one":              {[]*corev1.Node{node("a")}, nil, pod("p"), "a"},
		"too large":        {[]*corev1.Node{node("a"), node("b")}, nil, pod("p", asks("memory", "100Gi")), "0/2 nodes are available: 2 Insufficient memory."},
		"room is taken":    {[]*corev1.Node{node("a")}, []*corev1.Pod{pod("x", on("a"), asks("cpu", "1500m"))}, pod("p", asks("cpu", "600m")), "0/1 nodes are available: 1 Insufficient cpu."},
		"room elsewhere":   {[]*corev1.Node{node("a"), node("b")}, []*corev1.Pod{pod("x", on("a"), asks("cpu", "1500m"))}, pod("p", asks("cpu", "600m")), "b"},
		"pods are full":    {[]*corev1.Node{node("a", func(n *corev1.Node) { n.Status.Allocatable["pods"] = resource.MustParse("1") })}, []*corev1.Pod{pod("x", on("a"))}, pod("p"), "0/1 nodes are available: 1 Too many pods."},
		"unknown resource": {[]*corev1.Node{node("a")}, nil, pod("p", asks("example.org/x", "1")), "0/1 nodes are available: 1 Insufficient example.org/x."},
		"cordoned":         {[]*corev1.Node{node("a", func(n *corev1.Node) { n.Spec.Unschedulable = true })}, nil, pod("p"), "0/1 nodes are available: 1 " + notUnschedulable + "."},
		"tainted":          {[]*corev1.Node{node("a", taint("NoSchedule")), node("b", taint("NoExecute"))}, nil, pod("p"), "0/2 nodes are available: 2 " + notTolerated + "."},
		"tolerated": {[]*corev1.Node{node("a", taint("NoSchedule"))}, nil, pod("p", func(p *corev1.Pod) {
			p.Spec.Tolerations = []corev1.Toleration{{Key: "k", Operator: corev1.TolerationOpExists}}
		}), "a"},
		"rather not tainted": {[]*corev1.Node{node("a", taint("PreferNoSchedule")), node("b")}, nil, pod("p"), "b"},
		"not ready":          {[]*corev1.Node{node("a", func(n *corev1.Node) { n.Status.Conditions[0].Status = corev1.ConditionFalse })}, nil, pod("p"), "0/1 nodes are available: 1 " + notTolerated + "."},
		"never reported":     {[]*corev1.Node{node("a", func(n *corev1.Node) { n.Status.Conditions = nil })}, nil, pod("p"), "0/1 nodes are available: 1 " + notTolerated + "."},
		"node selector":      {[]*corev1.Node{node("a", zone("1")), node("b", zone("2"))}, nil, pod("p", func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"zone": "2"} }), "b"},
		"no such label":      {[]*corev1.Node{node("a")}, nil, pod("p", func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"zone": "2"} }), "0/1 nodes are available: 1 " + notAffine + "."},
		"node by name": {[]*corev1.Node{node("a"), node("b")}, nil, pod("p", func(p *corev1.Pod) {
			p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
				NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchFields: []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: "In", Values: []string{"b"}}}}}}}}
		}), "b"},
		"preferred node": {[]*corev1.Node{node("a", zone("1")), node("b", zone("2"))}, nil, pod("p", func(p *corev1.Pod) {
			p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.PreferredSchedulingTerm{{Weight: 1,
				Preference: corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "zone", Operator: "In", Values: []string{"2"}}}}}}}}
		}), "b"},
		"port is taken":       {[]*corev1.Node{node("a")}, []*corev1.Pod{pod("x", on("a"), hostPort("", 80))}, pod("p", hostPort("127.0.0.1", 80)), "0/1 nodes are available: 1 " + notPorts + "."},
		"port elsewhere":      {[]*corev1.Node{node("a"), node("b")}, []*corev1.Pod{pod("x", on("a"), hostPort("", 80))}, pod("p", hostPort("", 80)), "b"},
		"port, other address": {[]*corev1.Node{node("a")}, []*corev1.Pod{pod("x", on("a"), hostPort("127.0.0.2", 80))}, pod("p", hostPort("127.0.0.1", 80)), "a"},
		"apart":               {[]*corev1.Node{node("a", zone("1")), node("b", zone("1")), node("c", zone("2"))}, []*corev1.Pod{pod("x", on("a"))}, pod("p", anti("zone")), "c"},
		"nowhere apart":       {[]*corev1.Node{node("a")}, []*corev1.Pod{pod("x", on("a"))}, pod("p", anti("kubernetes.io/hostname")), "0/1 nodes are available: 1 " + notPodAnti + "."},
		"kept away":           {[]*corev1.Node{node("a")}, []*corev1.Pod{pod("x", on("a"), anti("kubernetes.io/hostname"))}, pod("p"), "0/1 nodes are available: 1 " + notTheirAnti + "."},
		"together":            {[]*corev1.Node{node("a", zone("1")), node("b", zone("2"))}, []*corev1.Pod{pod("x", on("b"))}, pod("p", together("zone")), "b"},
		"first of a group":    {[]*corev1.Node{node("a", zone("1"))}, nil, pod("p", together("zone")), "a"},
		"nobody to be with":   {[]*corev1.Node{node("a", zone("1"))}, nil, pod("p", together("zone"), labelled("app", "other")), "0/1 nodes are available: 1 " + notPodAffinity + "."},
		"spread":              {[]*corev1.Node{node("a", zone("1")), node("b", zone("2"))}, []*corev1.Pod{pod("x", on("a"))}, pod("p", spread("zone", "DoNotSchedule")), "b"},
		"cannot spread": {[]*corev1.Node{node("a", zone("1")), node("b", zone("2"), taint("NoSchedule"))}, []*corev1.Pod{pod("x", on("a"))}, pod("p", spread("zone", "DoNotSchedule")),
			"0/2 nodes are available: 1 " + notSpread + ", 1 " + notTolerated + "."},
		"no such topology":   {[]*corev1.Node{node("a")}, nil, pod("p", spread("zone", "DoNotSchedule")), "0/1 nodes are available: 1 " + notSpreadLabel + "."},
		"rather spread":      {[]*corev1.Node{node("a", zone("1")), node("b", zone("2"))}, []*corev1.Pod{pod("x", on("a"))}, pod("p", spread("zone", "ScheduleAnyway")), "b"},
		"spread by owner":    {[]*corev1.Node{node("a"), node("b"), node("c")}, []*corev1.Pod{pod("x", on("a"), owned("rs")), pod("y", on("c"), owned("rs"))}, pod("p", owned("rs")), "b"},
		"most room":          {[]*corev1.Node{node("a"), node("b")}, []*corev1.Pod{pod("x", on("a"), asks("cpu", "1"))}, pod("p"), "b"},
		"other namespace":    {[]*corev1.Node{node("a")}, []*corev1.Pod{pod("x", on("a"), func(p *corev1.Pod) { p.Namespace = "other" })}, pod("p", anti("kubernetes.io/hostname")), "a"},
		"several reasons":    {[]*corev1.Node{node("a", taint("NoSchedule")), node("b"), node("c")}, nil, pod("p", asks("cpu", "50")), "0/3 nodes are available: 1 " + notTolerated + ", 2 Insufficient cpu."},
		"two things short":   {[]*corev1.Node{node("a")}, nil, pod("p", asks("cpu", "50"), func(p *corev1.Pod) { p.Spec.Containers[0].Resources.Requests["memory"] = resource.MustParse("50Gi") }), "0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient memory."},
		"pod of a lost node": {[]*corev1.Node{node("a")}, []*corev1.Pod{pod("x", on("gone"), anti("kubernetes.io/hostname"))}, pod("p"), "a"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newState()
			for _, n := range tc.nodes {
				s.setNode(n)
			}
			for _, p := range tc.there {
				s.add(p, p.Spec.NodeName)
			}
			a := newAsk(tc.pod)
			a.spread = (&Scheduler{}).siblings(tc.pod)
			fit, why := s.filter(a)
			got := why
			if len(fit) > 0 {
				got = s.best(a, fit)
			}
			if got != tc.want {
				t.Errorf("got  %q\nwant %q", got, tc.want)
			}
		})
	}
}

// What is decided counts at once, and what is taken back is free again.
func TestStateAddsUp(t *testing.T) {
	s := newState()
	s.setNode(node("a"))
	for i := range 3 {
		p := pod(fmt.Sprint("p", i), asks("cpu", "1"))
		fit, why := s.filter(newAsk(p))
		if i == 2 {
			if !strings.Contains(why, "Insufficient cpu") {
				t.Errorf("the third of two fits: %v", why)
			}
			break
		}
		if len(fit) != 1 {
			t.Fatal(why)
		}
		s.assume(p, "a")
	}
	s.forget("p0")
	if fit, why := s.filter(newAsk(pod("p2", asks("cpu", "1")))); len(fit) != 1 {
		t.Error(why)
	}
	s.add(pod("p1", asks("cpu", "1")), "a")
	s.forget("p1") // the API has it
	if !s.has("p1") || s.at("a").used["cpu"] != 1000 || s.at("a").used["pods"] != 1 {
		t.Errorf("%+v", s.at("a").used)
	}
	s.removeNode("a")
	s.remove("p1")
	if len(s.nodes)+len(s.pods)+len(s.shy) != 0 {
		t.Error("something is left", s.nodes, s.pods)
	}
}

func TestQueue(t *testing.T) {
	q, now := newQueue(), time.Unix(1000, 0)
	k := func(n string) key { return key{"ns", n} }
	q.push(k("late"), 0, now.Add(time.Second))
	q.push(k("early"), 0, now)
	q.push(k("important"), 5, now.Add(time.Minute))
	q.push(k("gone"), 9, now)
	q.remove(k("gone"))
	var got []string
	for range 3 {
		e, _ := q.pop(now)
		got = append(got, e.name)
	}
	if fmt.Sprint(got) != "[important early late]" {
		t.Error(got)
	}
	q.park(k("early"))
	q.back(k("late"), now)
	if e, wait := q.pop(now); e.name != "" || wait != backoffFirst {
		t.Errorf("%v in %s", e, wait)
	}
	if e, _ := q.pop(now.Add(wait(q))); e.name != "late" {
		t.Error(e)
	}
	q.back(k("late"), now)
	if _, w := q.pop(now); w != 2*backoffFirst {
		t.Error("the back-off does not grow", w)
	}
	if !q.retryAll() {
		t.Error("nobody was parked")
	}
	if e, _ := q.pop(now); e.name != "early" {
		t.Error(e)
	}
	if q.retryAll() {
		t.Error("parked twice")
	}
}

func wait(q *queue) time.Duration {
	_, w := q.pop(time.Unix(1000, 0))
	return w
}

func BenchmarkDecide(b *testing.B) {
	s := newState()
	for i := range 50 {
		s.setNode(node(fmt.Sprint("n", i), zone(fmt.Sprint(i%3)), func(n *corev1.Node) { n.Status.Allocatable["pods"] = resource.MustParse("200") }))
	}
	for i := range 1000 {
		s.add(pod(fmt.Sprint("x", i), owned(fmt.Sprint("rs", i%20))), fmt.Sprint("n", i%50))
	}
	for name, p := range map[string]*corev1.Pod{"plain": pod("p", owned("rs1")), "spread": pod("p", spread("zone", "DoNotSchedule")), "apart": pod("p", labelled("app", "y"), anti("zone"))} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				a := newAsk(p)
				a.spread = (&Scheduler{}).siblings(p)
				if fit, _ := s.filter(a); len(fit) > 0 {
					s.best(a, fit)
				}
			}
		})
	}
}
