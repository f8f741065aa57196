package agent

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/resource"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
)

// admit says why a pod cannot run on this node; an empty reason lets it in. The
// lock of p is held, and pods are let in one at a time.
func (a *Agent) admit(p *pod) (reason, message string) {
	a.node.admission.Lock()
	defer a.node.admission.Unlock()
	refuse := func(reason, format string, args ...any) (string, string) {
		return reason, "Pod was rejected: " + fmt.Sprintf(format, args...)
	}
	if ok, err := nodeaffinity.GetRequiredNodeAffinity(p.api).Match(a.node.object()); err != nil || !ok {
		return refuse("NodeAffinity", "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector")
	}
	var used corev1.ResourceList = corev1.ResourceList{}
	count := int64(0)
	ports := hostPorts(p.api)
	for uid, guest := range a.node.guests {
		if uid == p.uid {
			continue
		}
		count++
		for name, q := range guest.requests {
			sum := used[name]
			sum.Add(q)
			used[name] = sum
		}
		for _, mine := range ports {
			if slices.ContainsFunc(guest.ports, func(o corev1.ContainerPort) bool { return clash(mine, o) }) {
				return refuse("NodePorts", "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports: %d/%s is used by pod %s", mine.HostPort, mine.Protocol, guest.name)
			}
		}
	}
	requests := resource.PodRequests(p.api, resource.PodResourcesOptions{})
	if limit := a.node.allocatable[corev1.ResourcePods]; count+1 > limit.Value() {
		return refuse("OutOfpods", "Node didn't have enough resource: pods, requested: 1, used: %d, capacity: %d", count, limit.Value())
	}
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage} {
		want, ok := requests[name]
		limit, known := a.node.allocatable[name]
		if !ok || want.IsZero() || !known {
			continue
		}
		have := used[name]
		value := func(q int64, milli int64) int64 {
			if name == corev1.ResourceCPU {
				return milli
			}
			return q
		}
		w, u, l := value(want.Value(), want.MilliValue()), value(have.Value(), have.MilliValue()), value(limit.Value(), limit.MilliValue())
		if w+u > l {
			return refuse("OutOf"+string(name), "Node didn't have enough resource: %s, requested: %d, used: %d, capacity: %d", name, w, u, l)
		}
	}
	a.node.guests[p.uid] = guest{name: p.namespace + "/" + p.name, requests: requests, ports: ports}
	return "", ""
}

// settle counts a pod that was here before the agent.
func (a *Agent) settle(p *pod) {
	a.node.admission.Lock()
	defer a.node.admission.Unlock()
	a.node.guests[p.uid] = guest{
		name: p.namespace + "/" + p.name, requests: resource.PodRequests(p.api, resource.PodResourcesOptions{}), ports: hostPorts(p.api),
	}
}

// leave gives back what a pod used.
func (a *Agent) leave(uid string) {
	a.node.admission.Lock()
	defer a.node.admission.Unlock()
	delete(a.node.guests, uid)
}

// guest is what an admitted pod uses of the node.
type guest struct {
	name     string
	requests corev1.ResourceList
	ports    []corev1.ContainerPort
}

func clash(a, b corev1.ContainerPort) bool {
	everywhere := func(ip string) bool { return ip == "" || ip == "0.0.0.0" || ip == "::" }
	return a.HostPort == b.HostPort && a.Protocol == b.Protocol && (everywhere(a.HostIP) || everywhere(b.HostIP) || a.HostIP == b.HostIP)
}
