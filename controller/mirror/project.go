package mirror

import (
	"cmp"
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	netutils "k8s.io/utils/net"
)

const (
	// ManagedBy is the value of endpointslice.kubernetes.io/managed-by on
	// mirrored slices, the same as in Kubernetes.
	ManagedBy = "endpointslicemirroring-controller.k8s.io"
	// MaxAddresses is how many addresses of a subset are mirrored.
	MaxAddresses = 1000
)

// Project computes the slices of an Endpoints object. skipped counts addresses
// beyond MaxAddresses, invalid those that are none.
func Project(e *corev1.Endpoints) (out []*discoveryv1.EndpointSlice, skipped, invalid int) {
	type set struct {
		ports []discoveryv1.EndpointPort
		ready map[string]bool // address -> ready
		first map[string]*corev1.EndpointAddress
	}
	sets := map[string]*set{}
	for i := range e.Subsets {
		sub := &e.Subsets[i]
		ports := portsOf(sub.Ports)
		key := canonical(ports)
		s := sets[key]
		if s == nil {
			s = &set{ports: ports, ready: map[string]bool{}, first: map[string]*corev1.EndpointAddress{}}
			sets[key] = s
		}
		add := func(as []corev1.EndpointAddress, ready bool) {
			for i := range as {
				ip := canonicalIP(as[i].IP)
				if ip == "" {
					invalid++
					continue
				}
				if was, ok := s.ready[ip]; ok {
					s.ready[ip] = was && ready
					continue
				}
				s.ready[ip], s.first[ip] = ready, &as[i]
			}
		}
		add(sub.Addresses, true)
		add(sub.NotReadyAddresses, false)
	}
	for _, key := range slices.Sorted(maps.Keys(sets)) {
		s := sets[key]
		ips := slices.SortedFunc(maps.Keys(s.ready), func(a, b string) int {
			if s.ready[a] != s.ready[b] { // ready ones are not those that are left out
				if s.ready[a] {
					return -1
				}
				return 1
			}
			return netip.MustParseAddr(a).Compare(netip.MustParseAddr(b))
		})
		if len(ips) > MaxAddresses {
			skipped += len(ips) - MaxAddresses
			ips = ips[:MaxAddresses]
		}
		byFamily := map[discoveryv1.AddressType]*discoveryv1.EndpointSlice{}
		for _, ip := range ips {
			family := discoveryv1.AddressTypeIPv4
			if netip.MustParseAddr(ip).Is6() {
				family = discoveryv1.AddressTypeIPv6
			}
			o := byFamily[family]
			if o == nil {
				o = newSlice(e, family, s.ports)
				byFamily[family] = o
				out = append(out, o)
			}
			o.Endpoints = append(o.Endpoints, endpoint(s.first[ip], ip, s.ready[ip]))
		}
	}
	return out, skipped, invalid
}

func newSlice(e *corev1.Endpoints, family discoveryv1.AddressType, ports []discoveryv1.EndpointPort) *discoveryv1.EndpointSlice {
	o := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: e.Namespace, GenerateName: e.Name + "-", Labels: map[string]string{}, Annotations: map[string]string{},
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(e, corev1.SchemeGroupVersion.WithKind("Endpoints"))},
		},
		AddressType: family, Ports: ports,
	}
	maps.Copy(o.Labels, e.Labels)
	o.Labels[discoveryv1.LabelServiceName] = e.Name
	o.Labels[discoveryv1.LabelManagedBy] = ManagedBy
	maps.Copy(o.Annotations, e.Annotations)
	delete(o.Annotations, corev1.EndpointsLastChangeTriggerTime)
	delete(o.Annotations, corev1.LastAppliedConfigAnnotation)
	return o
}

func endpoint(a *corev1.EndpointAddress, ip string, ready bool) discoveryv1.Endpoint {
	e := discoveryv1.Endpoint{
		Addresses: []string{ip}, Conditions: discoveryv1.EndpointConditions{Ready: &ready},
		TargetRef: a.TargetRef.DeepCopy(),
	}
	if a.NodeName != nil {
		n := *a.NodeName
		e.NodeName = &n
	}
	if a.Hostname != "" {
		h := a.Hostname
		e.Hostname = &h
	}
	return e
}

func canonicalIP(s string) string {
	a, err := netip.ParseAddr(s)
	if err != nil {
		ip := netutils.ParseIPSloppy(s)
		if a, _ = netip.AddrFromSlice(ip); !a.IsValid() {
			return ""
		}
	}
	return a.Unmap().WithZone("").String()
}

func portsOf(ps []corev1.EndpointPort) []discoveryv1.EndpointPort {
	out := make([]discoveryv1.EndpointPort, 0, len(ps))
	for i := range ps {
		p := ps[i]
		if p.Protocol == "" {
			p.Protocol = corev1.ProtocolTCP
		}
		out = append(out, discoveryv1.EndpointPort{Name: &p.Name, Port: &p.Port, Protocol: &p.Protocol, AppProtocol: p.AppProtocol})
	}
	return out
}

// canonical spells a set of ports so that equal sets give equal strings.
func canonical(ports []discoveryv1.EndpointPort) string {
	parts := make([]string, 0, len(ports))
	for i := range ports {
		p := &ports[i]
		var b []byte
		if p.Name != nil {
			b = append(b, *p.Name...)
		}
		b = append(b, 0)
		if p.Port != nil {
			b = binary.BigEndian.AppendUint32(b, uint32(*p.Port))
		}
		if p.Protocol != nil {
			b = append(b, *p.Protocol...)
		}
		b = append(b, 0)
		if p.AppProtocol != nil {
			b = append(append(b, 1), *p.AppProtocol...)
		}
		parts = append(parts, string(append(b, 0)))
	}
	slices.SortFunc(parts, cmp.Compare[string])
	var all []byte
	for _, p := range parts {
		all = append(all, p...)
	}
	return string(all)
}
