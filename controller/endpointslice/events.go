package endpointslice

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
)

// mark notes a change of a service and wakes a worker. It is called from
// within the index, so that the service is not forgotten in between.
func (c *Controller) mark(s *service, trigger time.Time, note func(*pending)) {
	now := c.cfg.Now()
	if trigger.IsZero() {
		trigger = now
	}
	s.mu.Lock()
	note(&s.pend)
	s.pend.stamp(trigger, now)
	s.mu.Unlock()
	c.queue.Add(s)
}

func reload(p *pending) { p.load, p.members = true, nil }

func (c *Controller) serviceChanged(old, cur *corev1.Service) {
	if old != nil && cur != nil && !relevant(old, cur) {
		return
	}
	some := cur
	if some == nil {
		some = old
	}
	trigger, selector := time.Time{}, map[string]string(nil)
	if cur != nil && cur.Spec.Type != corev1.ServiceTypeExternalName {
		selector = cur.Spec.Selector
	}
	if cur != nil && old == nil {
		trigger = cur.CreationTimestamp.Time
	}
	c.index.file(some.Namespace, some.Name, selector, func(s *service) { c.mark(s, trigger, reload) })
}

func (c *Controller) podChanged(old, cur *corev1.Pod) {
	if old != nil && cur != nil && !podRelevant(old, cur) {
		return
	}
	some := cur
	if some == nil {
		some = old
	}
	trigger := podTrigger(old, cur)
	note := func(s *service) {
		c.mark(s, trigger, func(p *pending) { p.touch(member{pod, some.Name}) })
	}
	c.index.matching(some.Namespace, some.Labels, note)
	if old != nil && cur != nil && !mapsEqual(old.Labels, cur.Labels) {
		c.index.matching(old.Namespace, old.Labels, note)
	}
}

// podTrigger is the time that the last-change-trigger-time annotation wants:
// when the pod became ready or unready, as the pod itself says.
func podTrigger(old, cur *corev1.Pod) time.Time {
	if cur == nil {
		return time.Time{}
	}
	for i := range cur.Status.Conditions {
		if k := &cur.Status.Conditions[i]; k.Type == corev1.PodReady {
			if old == nil || podReady(old) != podReady(cur) {
				return k.LastTransitionTime.Time
			}
		}
	}
	return time.Time{}
}

func podRelevant(old, cur *corev1.Pod) bool {
	terminal := func(p *corev1.Pod) bool {
		return p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded
	}
	if old.UID != cur.UID || podReady(old) != podReady(cur) || terminal(old) != terminal(cur) ||
		(old.DeletionTimestamp == nil) != (cur.DeletionTimestamp == nil) ||
		old.Status.PodIP != cur.Status.PodIP || !slices.Equal(old.Status.PodIPs, cur.Status.PodIPs) ||
		old.Spec.NodeName != cur.Spec.NodeName ||
		old.Spec.Hostname != cur.Spec.Hostname || old.Spec.Subdomain != cur.Spec.Subdomain {
		return true
	}
	return !mapsEqual(old.Labels, cur.Labels)
}

func mapsEqual(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if w, ok := b[k]; !ok || w != v {
			return false
		}
	}
	return true
}

func (c *Controller) instanceChanged(old, cur *v1alpha1.Instance) {
	if old != nil && cur != nil && !instanceRelevant(old, cur) {
		return
	}
	trigger := time.Time{}
	if cur != nil && (old == nil || old.Status.Health.State != cur.Status.Health.State) {
		trigger = cur.Status.Health.Since.Time
	}
	for _, in := range [...]*v1alpha1.Instance{old, cur} {
		if in == nil || in == cur && old != nil && old.Spec.Service == cur.Spec.Service {
			continue
		}
		c.index.with(in.Namespace, in.Spec.Service, func(s *service) {
			c.mark(s, trigger, func(p *pending) { p.touch(member{instance, in.Name}) })
		})
	}
}

func instanceRelevant(old, cur *v1alpha1.Instance) bool {
	weightless := func(in *v1alpha1.Instance) bool { return in.Spec.Weight != nil && *in.Spec.Weight == 0 }
	a, b := &old.Spec, &cur.Spec
	return old.UID != cur.UID || a.Service != b.Service || a.Address != b.Address || a.Zone != b.Zone ||
		a.NodeName != b.NodeName || a.Hostname != b.Hostname || weightless(old) != weightless(cur) ||
		old.Status.Ready != cur.Status.Ready || old.Status.Serving != cur.Status.Serving ||
		old.Status.Terminating != cur.Status.Terminating ||
		!slices.EqualFunc(a.Ports, b.Ports, func(x, y v1alpha1.InstancePort) bool {
			return x.Name == y.Name && x.Port == y.Port && protocol(x.Protocol) == protocol(y.Protocol) &&
				deref(x.AppProtocol) == deref(y.AppProtocol)
		})
}

func (c *Controller) nodeChanged(old, cur *corev1.Node) {
	zone := func(n *corev1.Node) string {
		if n == nil {
			return ""
		}
		return n.Labels[corev1.LabelTopologyZone]
	}
	if zone(old) == zone(cur) {
		return
	}
	// Rare: a node seldom changes its zone. Services without pods cost little.
	c.index.each(func(s *service) { c.mark(s, time.Time{}, reload) })
}

func ours(s *discoveryv1.EndpointSlice) (service string) {
	if s == nil || s.Labels[discoveryv1.LabelManagedBy] != v1alpha1.ManagedBy {
		return ""
	}
	return s.Labels[discoveryv1.LabelServiceName]
}

func (c *Controller) sliceChanged(old, cur *discoveryv1.EndpointSlice) {
	was, is := ours(old), ours(cur)
	if was != "" && was != is { // deleted, or its labels were taken away
		c.index.with(old.Namespace, was, func(s *service) { c.note(s, old.Name, nil) })
	}
	if is != "" {
		c.index.with(cur.Namespace, is, func(s *service) { c.note(s, cur.Name, cur) })
	}
}

// note hands a slice's news to the worker. They are no change of the service,
// so they carry no trigger time.
func (c *Controller) note(s *service, name string, obj *discoveryv1.EndpointSlice) {
	s.mu.Lock()
	s.pend.slice(name, obj)
	s.mu.Unlock()
	c.queue.Add(s)
}
