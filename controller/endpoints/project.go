package endpoints

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	netutils "k8s.io/utils/net"
)

// MaxAddresses is how many addresses an Endpoints object may hold.
const MaxAddresses = 1000

// port is an endpoint port without pointers; none stands for a headless
// service without ports.
type port struct {
	name, protocol, app string
	hasApp, none        bool
	number              int32
}

// Project turns slices into the subsets of an Endpoints object, in a canonical
// order. Only the Service's first address family counts. truncated says that
// there were more than MaxAddresses addresses.
func Project(svc *corev1.Service, from []*discoveryv1.EndpointSlice) (subsets []corev1.EndpointSubset, truncated bool) {
	family := familyOf(svc)
	// Every endpoint is in exactly one set of ports, so two ports have the same
	// addresses exactly when they are in the same sets.
	var sets [][]*discoveryv1.EndpointSlice
	bySet := map[string]int{}
	in := map[port][]int{} // port -> the sets it is in, ascending
	for _, s := range from {
		if s.AddressType != family || len(s.Endpoints) == 0 {
			continue
		}
		if len(s.Ports) == 0 && (len(svc.Spec.Ports) > 0 || svc.Spec.ClusterIP != corev1.ClusterIPNone) {
			continue // these serve none of the ports
		}
		ports := portsOf(s.Ports)
		key := keyOf(ports)
		i, known := bySet[key]
		if !known {
			i = len(sets)
			bySet[key] = i
			sets = append(sets, nil)
			for _, p := range ports {
				in[p] = append(in[p], i)
			}
		}
		sets[i] = append(sets[i], s)
	}
	ports := make([]port, 0, len(in))
	for p := range in {
		ports = append(ports, p)
	}
	slices.SortFunc(ports, comparePorts)
	byMembership := map[string]int{}
	for _, p := range ports {
		var b []byte
		for _, i := range in[p] {
			b = binary.AppendUvarint(b, uint64(i))
		}
		if i, ok := byMembership[string(b)]; ok {
			subsets[i].Ports = append(subsets[i].Ports, p.api())
			continue
		}
		var sub corev1.EndpointSubset
		if !p.none {
			sub.Ports = []corev1.EndpointPort{p.api()}
		}
		for _, i := range in[p] {
			for _, s := range sets[i] {
				addAddresses(&sub, svc, s)
			}
		}
		slices.SortFunc(sub.Addresses, compareAddresses)
		slices.SortFunc(sub.NotReadyAddresses, compareAddresses)
		byMembership[string(b)] = len(subsets)
		subsets = append(subsets, sub)
	}
	subsets = slices.DeleteFunc(subsets, func(s corev1.EndpointSubset) bool {
		return len(s.Addresses)+len(s.NotReadyAddresses) == 0
	})
	return subsets, truncate(subsets)
}

func familyOf(svc *corev1.Service) discoveryv1.AddressType {
	if len(svc.Spec.IPFamilies) > 0 && svc.Spec.IPFamilies[0] == corev1.IPv6Protocol ||
		len(svc.Spec.IPFamilies) == 0 && netutils.IsIPv6String(svc.Spec.ClusterIP) {
		return discoveryv1.AddressTypeIPv6
	}
	return discoveryv1.AddressTypeIPv4
}

func portsOf(ps []discoveryv1.EndpointPort) []port {
	if len(ps) == 0 {
		return []port{{none: true}}
	}
	out := make([]port, 0, len(ps))
	for i := range ps {
		p := port{protocol: string(corev1.ProtocolTCP)}
		if ps[i].Name != nil {
			p.name = *ps[i].Name
		}
		if ps[i].Protocol != nil {
			p.protocol = string(*ps[i].Protocol)
		}
		if ps[i].Port != nil {
			p.number = *ps[i].Port
		}
		if ps[i].AppProtocol != nil {
			p.app, p.hasApp = *ps[i].AppProtocol, true
		}
		out = append(out, p)
	}
	slices.SortFunc(out, comparePorts)
	return out
}

func keyOf(ps []port) string {
	var b []byte
	for i := range ps {
		p := &ps[i]
		b = append(append(append(append(b, p.name...), 0), p.protocol...), 0)
		b = append(append(binary.BigEndian.AppendUint32(b, uint32(p.number)), p.app...), 0)
	}
	return string(b)
}

func comparePorts(a, b port) int {
	return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.number, b.number),
		cmp.Compare(a.protocol, b.protocol), cmp.Compare(a.app, b.app))
}

func (p port) api() corev1.EndpointPort {
	e := corev1.EndpointPort{Name: p.name, Port: p.number, Protocol: corev1.Protocol(p.protocol)}
	if p.hasApp {
		e.AppProtocol = &p.app
	}
	return e
}

func addAddresses(sub *corev1.EndpointSubset, svc *corev1.Service, s *discoveryv1.EndpointSlice) {
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		if is(e.Conditions.Terminating) && !svc.Spec.PublishNotReadyAddresses {
			continue // legacy readers never saw those
		}
		if len(e.Addresses) == 0 || !acceptable(e) {
			continue
		}
		a := corev1.EndpointAddress{IP: e.Addresses[0], NodeName: e.NodeName, TargetRef: e.TargetRef}
		if e.Hostname != nil {
			a.Hostname = *e.Hostname
		}
		if e.Conditions.Ready == nil || *e.Conditions.Ready {
			sub.Addresses = append(sub.Addresses, a)
		} else {
			sub.NotReadyAddresses = append(sub.NotReadyAddresses, a)
		}
	}
}

func is(b *bool) bool { return b != nil && *b }

// acceptable says whether the API takes an endpoint in an Endpoints object: a
// loopback address only from us, and only beside the name of its node.
func acceptable(e *discoveryv1.Endpoint) bool {
	a, err := netip.ParseAddr(e.Addresses[0])
	if err == nil && a.IsLoopback() {
		return e.NodeName != nil && *e.NodeName != ""
	}
	return err == nil && !a.IsUnspecified() && !a.IsLinkLocalUnicast() && !a.IsLinkLocalMulticast()
}

func compareAddresses(a, b corev1.EndpointAddress) int {
	uid := func(a *corev1.EndpointAddress) string {
		if a.TargetRef == nil {
			return ""
		}
		return string(a.TargetRef.UID)
	}
	return cmp.Or(cmp.Compare(a.IP, b.IP), cmp.Compare(uid(&a), uid(&b)))
}

// truncate leaves at most MaxAddresses, ready ones first, and each subset its
// share of them.
func truncate(subsets []corev1.EndpointSubset) bool {
	ready, all := 0, 0
	for i := range subsets {
		ready += len(subsets[i].Addresses)
		all += len(subsets[i].Addresses) + len(subsets[i].NotReadyAddresses)
	}
	if all <= MaxAddresses {
		return false
	}
	room, of := MaxAddresses, ready
	pick := func(s *corev1.EndpointSubset) *[]corev1.EndpointAddress { return &s.Addresses }
	if ready <= MaxAddresses {
		room, of = MaxAddresses-ready, all-ready
		pick = func(s *corev1.EndpointSubset) *[]corev1.EndpointAddress { return &s.NotReadyAddresses }
	} else {
		for i := range subsets {
			subsets[i].NotReadyAddresses = nil
		}
	}
	left := room
	for i := range subsets {
		as := pick(&subsets[i])
		n := min(left, (len(*as)*room+of-1)/of, len(*as))
		*as = (*as)[:n:n]
		left -= n
	}
	return true
}
