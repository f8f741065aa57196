package controller

import (
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
	"github.com/fingerpost/fingerpost/controller/mirror"
)

// Trim makes a transform for informers that keeps memory lean:
//
//   - every object loses its managedFields;
//   - a Pod keeps its metadata without annotations, node, host name, subdomain,
//     ports of containers, phase, addresses and the Ready condition;
//   - a Node keeps its metadata without annotations, its spec, and its
//     addresses and Ready condition;
//   - an EndpointSlice that none of our controllers writes keeps its metadata;
//   - in an EndpointSlice, what is the same in thousands of endpoints (flags,
//     node and zone names, kinds) is shared in memory.
//
// Objects of an informer are never to be modified; here that would change
// others as well.
func Trim() cache.TransformFunc {
	t := &trimmer{yes: true}
	return func(obj any) (any, error) {
		switch o := obj.(type) {
		case *corev1.Pod:
			return trimPod(o), nil
		case *corev1.Node:
			return trimNode(o), nil
		case *discoveryv1.EndpointSlice:
			o.ManagedFields = nil
			if !ours(o) {
				o.Endpoints, o.Ports, o.Annotations = nil, nil, nil
			}
			t.share(o)
			return o, nil
		}
		if m, err := meta.Accessor(obj); err == nil {
			m.SetManagedFields(nil)
		}
		return obj, nil
	}
}

// ours says whether one of our controllers writes a slice; the content of all
// others is nothing that any of them reads.
func ours(s *discoveryv1.EndpointSlice) bool {
	by := s.Labels[discoveryv1.LabelManagedBy]
	return by == v1alpha1.ManagedBy || by == mirror.ManagedBy
}

func trimMeta(m *metav1.ObjectMeta) metav1.ObjectMeta {
	t := *m
	t.ManagedFields, t.Annotations = nil, nil
	return t
}

func trimPod(p *corev1.Pod) *corev1.Pod {
	t := &corev1.Pod{
		ObjectMeta: trimMeta(&p.ObjectMeta),
		Spec: corev1.PodSpec{
			NodeName: p.Spec.NodeName, Hostname: p.Spec.Hostname, Subdomain: p.Spec.Subdomain, HostNetwork: p.Spec.HostNetwork,
			Containers: trimContainers(p.Spec.Containers, false), InitContainers: trimContainers(p.Spec.InitContainers, true),
		},
		Status: corev1.PodStatus{Phase: p.Status.Phase, PodIP: p.Status.PodIP, PodIPs: p.Status.PodIPs, HostIP: p.Status.HostIP},
	}
	for i := range p.Status.Conditions {
		if p.Status.Conditions[i].Type == corev1.PodReady {
			t.Status.Conditions = []corev1.PodCondition{p.Status.Conditions[i]}
		}
	}
	return t
}

// trimContainers keeps the ports; of init containers only those of sidecars.
func trimContainers(cs []corev1.Container, init bool) []corev1.Container {
	var out []corev1.Container
	for i := range cs {
		c := &cs[i]
		if len(c.Ports) == 0 || init && (c.RestartPolicy == nil || *c.RestartPolicy != corev1.ContainerRestartPolicyAlways) {
			continue
		}
		out = append(out, corev1.Container{Name: c.Name, Ports: c.Ports, RestartPolicy: c.RestartPolicy})
	}
	return out
}

func trimNode(n *corev1.Node) *corev1.Node {
	t := &corev1.Node{ObjectMeta: trimMeta(&n.ObjectMeta), Spec: n.Spec, Status: corev1.NodeStatus{Addresses: n.Status.Addresses}}
	for i := range n.Status.Conditions {
		if n.Status.Conditions[i].Type == corev1.NodeReady {
			t.Status.Conditions = []corev1.NodeCondition{n.Status.Conditions[i]}
		}
	}
	return t
}

// trimmer holds the values that objects share.
type trimmer struct {
	yes, no bool
	strings sync.Map // string -> *string
}

func (t *trimmer) bool(p *bool) *bool {
	switch {
	case p == nil:
		return nil
	case *p:
		return &t.yes
	}
	return &t.no
}

func (t *trimmer) string(s string) *string {
	if v, ok := t.strings.Load(s); ok {
		return v.(*string)
	}
	v, _ := t.strings.LoadOrStore(s, &s)
	return v.(*string)
}

func (t *trimmer) share(s *discoveryv1.EndpointSlice) {
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		c := &e.Conditions
		c.Ready, c.Serving, c.Terminating = t.bool(c.Ready), t.bool(c.Serving), t.bool(c.Terminating)
		if e.NodeName != nil {
			e.NodeName = t.string(*e.NodeName)
		}
		if e.Zone != nil {
			e.Zone = t.string(*e.Zone)
		}
		if r := e.TargetRef; r != nil {
			r.Kind, r.APIVersion, r.Namespace = *t.string(r.Kind), *t.string(r.APIVersion), *t.string(r.Namespace)
		}
	}
}
