package kube

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/fingerpost/fingerpost/catalog"
)

// condition is what a slice says of an endpoint.
type condition uint8

const (
	ready condition = 1 << iota
	serving
	terminating
)

func (c condition) has(x condition) bool { return c&x != 0 }

// slice is the lean form of an EndpointSlice. eps is shared with the catalog:
// it is replaced, never written to, once it was handed over.
type slice struct {
	key     catalog.Key // the slice's own
	service string      // empty: belongs to none
	trigger time.Time   // when the change behind its last version was made; may be zero
	eps     []catalog.Endpoint
	raw     []condition // parallel to eps
	double  bool        // an address occurs more than once
	skipped int         // endpoints left out because they make no sense
}

func (s *slice) owner() catalog.Key { return catalog.Key{Namespace: s.key.Namespace, Name: s.service} }

// convertSlice gives the lean form of an EndpointSlice. Health, weight and
// whatever else other objects say is added by the state.
func convertSlice(in *discoveryv1.EndpointSlice, names *interner) *slice {
	s := &slice{
		key:     catalog.Key{Namespace: names.get(in.Namespace), Name: in.Name},
		service: in.Labels[discoveryv1.LabelServiceName],
	}
	if t, err := time.Parse(time.RFC3339Nano, in.Annotations[corev1.EndpointsLastChangeTriggerTime]); err == nil {
		s.trigger = t
	}
	if in.AddressType == discoveryv1.AddressTypeFQDN || len(in.Endpoints) == 0 || s.service == "" {
		return s
	}
	ports := endpointPorts(in.Ports, names)
	s.eps = make([]catalog.Endpoint, 0, len(in.Endpoints))
	s.raw = make([]condition, 0, len(in.Endpoints))
	for i := range in.Endpoints {
		ep, ok := convertEndpoint(&in.Endpoints[i], names)
		if !ok {
			s.skipped++
			continue
		}
		ep.Ports = ports
		s.eps = append(s.eps, ep)
		s.raw = append(s.raw, conditions(&in.Endpoints[i].Conditions))
	}
	s.double = hasDouble(s.eps)
	return s
}

// convertEndpoint reads what an endpoint is, not how it is. Only the first
// address counts: the API gives the others no meaning.
func convertEndpoint(in *discoveryv1.Endpoint, names *interner) (ep catalog.Endpoint, ok bool) {
	if len(in.Addresses) == 0 {
		return ep, false
	}
	a, ok := address(in.Addresses[0])
	if !ok || a.IsUnspecified() || a.IsMulticast() {
		return ep, false
	}
	ep.Addr = a
	ep.Local = a.IsLoopback()
	ep.Node = names.ptr(in.NodeName)
	ep.Zone = names.ptr(in.Zone)
	if in.Hostname != nil {
		ep.Hostname = *in.Hostname
	}
	if r := in.TargetRef; r != nil && r.Name != "" {
		ep.Target = catalog.Ref{Kind: names.get(r.Kind), Name: r.Name}
	}
	if h := in.Hints; h != nil {
		for i := range h.ForZones {
			ep.ForZones = append(ep.ForZones, names.get(h.ForZones[i].Name))
		}
		for i := range h.ForNodes {
			ep.ForNodes = append(ep.ForNodes, names.get(h.ForNodes[i].Name))
		}
	}
	return ep, true
}

// conditions reads the tri-state conditions as the API defines them: unknown
// counts as ready, serving follows ready, terminating counts as no.
func conditions(in *discoveryv1.EndpointConditions) (c condition) {
	if in.Ready == nil || *in.Ready {
		c |= ready
	}
	if in.Serving == nil && c.has(ready) || in.Serving != nil && *in.Serving {
		c |= serving
	}
	if in.Terminating != nil && *in.Terminating {
		c |= terminating
	}
	return c
}

func endpointPorts(in []discoveryv1.EndpointPort, names *interner) []catalog.EndpointPort {
	var out []catalog.EndpointPort
	for i := range in {
		p := &in[i]
		if p.Port == nil {
			continue // "all ports": nothing that a client could be told
		}
		n, ok := portNumber(*p.Port)
		if !ok {
			continue
		}
		q := catalog.EndpointPort{Name: names.ptr(p.Name), Protocol: catalog.TCP, Port: n, AppProtocol: names.ptr(p.AppProtocol)}
		if p.Protocol != nil {
			q.Protocol = protocol(corev1.Protocol(names.get(string(*p.Protocol))))
		}
		out = append(out, q)
	}
	return slices.Clip(out)
}

func hasDouble(eps []catalog.Endpoint) bool {
	if len(eps) <= 16 {
		for i := range eps {
			for j := range i {
				if eps[i].Addr == eps[j].Addr {
					return true
				}
			}
		}
		return false
	}
	seen := make(map[[16]byte]struct{}, len(eps))
	for i := range eps {
		seen[eps[i].Addr.As16()] = struct{}{}
	}
	return len(seen) < len(eps)
}

// merge gives the union of slices, which are in the order of their names. An
// address with the same ports appears once, in its first place; of two the
// one that can take more traffic stays.
func merge(in []*slice) []catalog.Endpoint {
	n, only := 0, (*slice)(nil)
	for _, s := range in {
		if len(s.eps) > 0 {
			n, only = n+len(s.eps), s
		}
	}
	switch {
	case n == 0:
		return nil
	case n == len(only.eps) && !only.double:
		return only.eps
	}
	out := make([]catalog.Endpoint, 0, n)
	first := make(map[[16]byte]int, n) // address -> 1 + place of the last endpoint with it
	before := make([]int, 0, n)        // place -> 1 + place of the one before with the same address
	for _, s := range in {
	endpoints:
		for i := range s.eps {
			ep := &s.eps[i]
			a := ep.Addr.As16()
			for at := first[a]; at > 0; at = before[at-1] {
				if old := &out[at-1]; slices.Equal(old.Ports, ep.Ports) {
					if rank(ep) > rank(old) {
						*old = *ep
					}
					continue endpoints
				}
			}
			before = append(before, first[a])
			out = append(out, *ep)
			first[a] = len(out)
		}
	}
	return slices.Clip(out)
}

func rank(ep *catalog.Endpoint) int {
	switch {
	case ep.Ready:
		return 2
	case ep.Serving:
		return 1
	}
	return 0
}
