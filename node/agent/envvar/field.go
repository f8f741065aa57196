package envvar

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Fields gives values of a pod's fields (the downward API).
type Fields struct {
	Pod *corev1.Pod
	// Addresses are not yet in the pod's status when its first container starts.
	PodIPs, HostIPs []string
	// Allocatable of the node stands in for limits that a container has not.
	Allocatable corev1.ResourceList
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// Field gives the value of a field path.
func (f Fields) Field(path string) (string, error) {
	p := f.Pod
	switch path {
	case "metadata.name":
		return p.Name, nil
	case "metadata.namespace":
		return p.Namespace, nil
	case "metadata.uid":
		return string(p.UID), nil
	case "metadata.labels":
		return formatMap(p.Labels), nil
	case "metadata.annotations":
		return formatMap(p.Annotations), nil
	case "spec.nodeName":
		return p.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return p.Spec.ServiceAccountName, nil
	case "status.hostIP":
		return first(f.HostIPs), nil
	case "status.hostIPs":
		return strings.Join(f.HostIPs, ","), nil
	case "status.podIP":
		return first(f.PodIPs), nil
	case "status.podIPs":
		return strings.Join(f.PodIPs, ","), nil
	}
	if key, ok := subscript(path, "metadata.labels"); ok {
		return p.Labels[key], nil
	}
	if key, ok := subscript(path, "metadata.annotations"); ok {
		return p.Annotations[key], nil
	}
	return "", fmt.Errorf("unsupported fieldPath: %s", path)
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

// subscript reads field['key'].
func subscript(path, field string) (string, bool) {
	rest, ok := strings.CutPrefix(path, field+"['")
	if !ok {
		return "", false
	}
	return strings.CutSuffix(rest, "']")
}

func formatMap(m map[string]string) string {
	var b strings.Builder
	for _, k := range sorted(m) {
		fmt.Fprintf(&b, "%s=%s\n", k, strconv.Quote(m[k]))
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// Resource gives the value of a resource of a container, rounded up to the
// divisor.
func (f Fields) Resource(r *corev1.ResourceFieldSelector, c *corev1.Container) (string, error) {
	if r.ContainerName != "" && r.ContainerName != c.Name {
		if c = f.container(r.ContainerName); c == nil {
			return "", fmt.Errorf("container %s not found", r.ContainerName)
		}
	}
	kind, name, ok := strings.Cut(r.Resource, ".")
	if !ok || kind != "limits" && kind != "requests" {
		return "", fmt.Errorf("unsupported container resource: %s", r.Resource)
	}
	q, there := c.Resources.Limits[corev1.ResourceName(name)]
	if kind == "requests" {
		q = c.Resources.Requests[corev1.ResourceName(name)]
	} else if !there {
		q = f.Allocatable[corev1.ResourceName(name)]
	}
	return divide(q, r.Divisor, name == string(corev1.ResourceCPU)), nil
}

func (f Fields) container(name string) *corev1.Container {
	for _, list := range [][]corev1.Container{f.Pod.Spec.Containers, f.Pod.Spec.InitContainers} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	return nil
}

func divide(q, by resource.Quantity, milli bool) string {
	value, divisor := q.Value(), by.Value()
	if milli {
		value, divisor = q.MilliValue(), by.MilliValue()
		if by.IsZero() {
			divisor = 1000
		}
	}
	if divisor <= 0 {
		divisor = 1
	}
	return strconv.FormatInt((value+divisor-1)/divisor, 10)
}
