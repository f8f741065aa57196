package endpointslice

import (
	"net/netip"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
	netutils "k8s.io/utils/net"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
)

// kind says what is behind an endpoint.
type kind uint8

const (
	pod kind = iota
	instance
)

// member names a pod or an instance inside a namespace.
type member struct {
	kind kind
	name string
}

// key is a member's endpoint in one address family.
type key struct {
	name   string
	kind   kind
	family family
}

type family uint8

const (
	ipv4 family = iota
	ipv6
	families
)

var addressTypes = [families]discoveryv1.AddressType{discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6}

// flat is an endpoint without pointers: what it should be, cheap to compare
// with what it is.
type flat struct {
	kind                        kind
	ready, serving, terminating bool
	forZone, forNode            bool
	addr                        [families]string
	hostname, node, zone        string
	namespace, name             string
	uid                         types.UID
}

// flattenPod computes what a pod is as an endpoint of the service; ok is
// false if it is none.
func (v *view) flattenPod(f *flat, p *corev1.Pod, zoneOf func(node string) string) (ok bool) {
	if p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded {
		return false
	}
	*f = flat{kind: pod, namespace: p.Namespace, name: p.Name, uid: p.UID, node: p.Spec.NodeName}
	for i := range p.Status.PodIPs {
		f.setAddress(p.Status.PodIPs[i].IP)
	}
	if len(p.Status.PodIPs) == 0 && p.Status.PodIP != "" {
		f.setAddress(p.Status.PodIP)
	}
	f.serving = podReady(p)
	f.terminating = p.DeletionTimestamp != nil
	f.ready = v.publishNotReady || f.serving && !f.terminating
	if p.Spec.Hostname != "" && p.Spec.Subdomain == v.name {
		f.hostname = p.Spec.Hostname
	}
	if f.node != "" {
		f.zone = zoneOf(f.node)
	}
	v.hint(f)
	return f.addr != [families]string{}
}

// flattenInstance computes what an instance is as an endpoint of the service.
func (v *view) flattenInstance(f *flat, in *v1alpha1.Instance) (ok bool) {
	*f = flat{
		kind: instance, namespace: in.Namespace, name: in.Name, uid: in.UID,
		hostname: in.Spec.Hostname, node: in.Spec.NodeName, zone: in.Spec.Zone,
		serving: in.Status.Serving, terminating: in.Status.Terminating,
	}
	f.setAddress(in.Spec.Address)
	// Weights have no place in a slice; a weight of 0 must still keep new
	// traffic away from readers that know nothing else.
	weightless := in.Spec.Weight != nil && *in.Spec.Weight == 0
	f.ready = v.publishNotReady || in.Status.Ready && !in.Status.Terminating && !weightless
	v.hint(f)
	return f.addr != [families]string{}
}

func (v *view) hint(f *flat) {
	f.forZone = f.ready && f.zone != "" && v.distribution != distributeAnywhere
	f.forNode = f.ready && f.node != "" && v.distribution == distributeSameNode
}

// setAddress keeps the first address of each family, in canonical form.
func (f *flat) setAddress(s string) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		ip := netutils.ParseIPSloppy(s) // leading zeros, as old manifests have them
		if a, _ = netip.AddrFromSlice(ip); !a.IsValid() {
			return
		}
	}
	a = a.WithZone("")
	// What the API refuses must not get into a slice: it would keep out the
	// other 99. A loopback address means something on its node only.
	if u := a.Unmap(); u.IsUnspecified() || u.IsLinkLocalUnicast() || u.IsLinkLocalMulticast() || u.IsLoopback() && f.node == "" {
		return
	}
	fam := ipv6
	if a.Is4() || a.Is4In6() {
		fam = ipv4
	}
	if f.addr[fam] != "" {
		return
	}
	if err == nil && a.Is4() {
		f.addr[fam] = s // a dotted quad has one spelling
		return
	}
	f.addr[fam] = a.Unmap().String()
}

func podReady(p *corev1.Pod) bool {
	for i := range p.Status.Conditions {
		if c := &p.Status.Conditions[i]; c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// pool shares the small values that thousands of endpoints point to.
type pool struct {
	yes, no bool
	strings sync.Map // string -> *string
}

func newPool() *pool { return &pool{yes: true} }

func (p *pool) bool(b bool) *bool {
	if b {
		return &p.yes
	}
	return &p.no
}

func (p *pool) string(s string) *string {
	if s == "" {
		return nil
	}
	if v, ok := p.strings.Load(s); ok {
		return v.(*string)
	}
	v, _ := p.strings.LoadOrStore(s, &s)
	return v.(*string)
}

// endpoint makes the API's form.
func (f *flat) endpoint(fam family, p *pool) discoveryv1.Endpoint {
	e := discoveryv1.Endpoint{
		Addresses: []string{f.addr[fam]},
		Conditions: discoveryv1.EndpointConditions{
			Ready: p.bool(f.ready), Serving: p.bool(f.serving), Terminating: p.bool(f.terminating),
		},
		TargetRef: &corev1.ObjectReference{Namespace: f.namespace, Name: f.name, UID: f.uid},
		NodeName:  p.string(f.node),
		Zone:      p.string(f.zone),
	}
	if f.kind == pod {
		e.TargetRef.Kind = "Pod"
	} else {
		e.TargetRef.Kind, e.TargetRef.APIVersion = "Instance", instanceVersion
	}
	if f.hostname != "" {
		h := f.hostname
		e.Hostname = &h
	}
	if f.forZone || f.forNode {
		e.Hints = &discoveryv1.EndpointHints{}
		if f.forZone {
			e.Hints.ForZones = []discoveryv1.ForZone{{Name: f.zone}}
		}
		if f.forNode {
			e.Hints.ForNodes = []discoveryv1.ForNode{{Name: f.node}}
		}
	}
	return e
}

const instanceVersion = v1alpha1.GroupName + "/v1alpha1"

// keyOf says whose endpoint it is; ok is false for one that we did not write.
func keyOf(e *discoveryv1.Endpoint, fam family) (k key, ok bool) {
	if e.TargetRef == nil {
		return k, false
	}
	switch e.TargetRef.Kind {
	case "Pod":
		return key{e.TargetRef.Name, pod, fam}, true
	case "Instance":
		return key{e.TargetRef.Name, instance, fam}, true
	}
	return k, false
}

// is says whether an endpoint already is as it should be.
func (f *flat) is(e *discoveryv1.Endpoint, fam family) bool {
	r := e.TargetRef
	return r != nil && r.UID == f.uid && r.Name == f.name && r.Namespace == f.namespace &&
		len(e.Addresses) == 1 && e.Addresses[0] == f.addr[fam] &&
		isBool(e.Conditions.Ready, f.ready) && isBool(e.Conditions.Serving, f.serving) &&
		isBool(e.Conditions.Terminating, f.terminating) &&
		isString(e.NodeName, f.node) && isString(e.Zone, f.zone) && isString(e.Hostname, f.hostname) &&
		f.hinted(e.Hints)
}

func (f *flat) hinted(h *discoveryv1.EndpointHints) bool {
	if h == nil {
		return !f.forZone && !f.forNode
	}
	zone, node := len(h.ForZones) == 0, len(h.ForNodes) == 0
	if f.forZone {
		zone = len(h.ForZones) == 1 && h.ForZones[0].Name == f.zone
	}
	if f.forNode {
		node = len(h.ForNodes) == 1 && h.ForNodes[0].Name == f.node
	}
	return zone && node
}

func isBool(p *bool, v bool) bool { return p != nil && *p == v }

func isString(p *string, v string) bool {
	if p == nil {
		return v == ""
	}
	return *p == v
}
