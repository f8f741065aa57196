package endpointslice

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	netutils "k8s.io/utils/net"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
)

type distribution uint8

const (
	distributeAnywhere distribution = iota
	distributeSameZone
	distributeSameNode
)

// view is what slices need to know of a Service, computed once per change of
// the Service.
type view struct {
	namespace, name string
	uid             types.UID
	selects         bool // it has a selector
	leaving         bool // it is being deleted: create nothing more
	publishNotReady bool
	headless        bool
	distribution    distribution
	families        [families]bool
	ports           []corev1.ServicePort
	labels          map[string]string
	owner           metav1.OwnerReference
	prefix          string
}

func newView(s *corev1.Service) *view {
	v := &view{
		namespace: s.Namespace, name: s.Name, uid: s.UID,
		selects:         len(s.Spec.Selector) > 0,
		leaving:         s.DeletionTimestamp != nil,
		publishNotReady: s.Spec.PublishNotReadyAddresses,
		headless:        s.Spec.ClusterIP == corev1.ClusterIPNone,
		families:        familiesOf(s),
		ports:           s.Spec.Ports,
		owner:           *metav1.NewControllerRef(s, corev1.SchemeGroupVersion.WithKind("Service")),
		prefix:          s.Name + "-",
	}
	v.labels = make(map[string]string, len(s.Labels)+3)
	maps.Copy(v.labels, s.Labels)
	delete(v.labels, corev1.IsHeadlessService)
	if s.Spec.ClusterIP == corev1.ClusterIPNone || s.Spec.ClusterIP == "" {
		v.labels[corev1.IsHeadlessService] = ""
	}
	v.labels[discoveryv1.LabelServiceName] = s.Name
	v.labels[discoveryv1.LabelManagedBy] = v1alpha1.ManagedBy
	if d := s.Spec.TrafficDistribution; d != nil && !topologyHints(s.Annotations) {
		switch *d {
		case corev1.ServiceTrafficDistributionPreferClose, corev1.ServiceTrafficDistributionPreferSameZone:
			v.distribution = distributeSameZone
		case corev1.ServiceTrafficDistributionPreferSameNode:
			v.distribution = distributeSameNode
		}
	}
	return v
}

// topologyHints says whether the older annotation asks for hints; it then
// switches spec.trafficDistribution off.
func topologyHints(annotations map[string]string) bool {
	mode, ok := annotations[corev1.DeprecatedAnnotationTopologyAwareHints]
	if !ok {
		mode = annotations[corev1.AnnotationTopologyMode]
	}
	return mode == "Auto" || mode == "auto"
}

func familiesOf(s *corev1.Service) (fs [families]bool) {
	for _, f := range s.Spec.IPFamilies {
		fs[ipv4] = fs[ipv4] || f == corev1.IPv4Protocol
		fs[ipv6] = fs[ipv6] || f == corev1.IPv6Protocol
	}
	if fs != [families]bool{} {
		return fs
	}
	// Written by a server that does not default ipFamilies.
	switch ip := s.Spec.ClusterIP; {
	case ip == "" || ip == corev1.ClusterIPNone:
		fs = [families]bool{true, true}
	case netutils.IsIPv6String(ip):
		fs[ipv6] = true
	default:
		fs[ipv4] = true
	}
	return fs
}

// relevant says whether a change of a Service may change its slices.
func relevant(old, cur *corev1.Service) bool {
	return old.UID != cur.UID || old.Spec.Type != cur.Spec.Type ||
		(old.DeletionTimestamp == nil) != (cur.DeletionTimestamp == nil) ||
		old.Spec.ClusterIP != cur.Spec.ClusterIP ||
		old.Spec.PublishNotReadyAddresses != cur.Spec.PublishNotReadyAddresses ||
		!maps.Equal(old.Labels, cur.Labels) || !maps.Equal(old.Spec.Selector, cur.Spec.Selector) ||
		familiesOf(old) != familiesOf(cur) ||
		!servicePortsEqual(old.Spec.Ports, cur.Spec.Ports) ||
		topologyHints(old.Annotations) != topologyHints(cur.Annotations) ||
		deref(old.Spec.TrafficDistribution) != deref(cur.Spec.TrafficDistribution)
}

func servicePortsEqual(a, b []corev1.ServicePort) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		x, y := &a[i], &b[i]
		if x.Name != y.Name || x.Protocol != y.Protocol || x.Port != y.Port || x.TargetPort != y.TargetPort ||
			deref(x.AppProtocol) != deref(y.AppProtocol) || (x.AppProtocol == nil) != (y.AppProtocol == nil) {
			return false
		}
	}
	return true
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
