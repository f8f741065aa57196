package endpointslice

import (
	"cmp"
	"encoding/binary"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
)

// portSet is a set of ports that endpoints of a service share.
type portSet struct {
	ports []discoveryv1.EndpointPort
	canon string // the same for equal sets, in whatever order
}

// podPort gives the port on which a pod serves a service port: a targetPort
// that is a number is taken as it is, a name is looked up among the ports of
// the containers and of the sidecars (init containers that stay). 0: none.
func podPort(p *corev1.Pod, sp *corev1.ServicePort) int32 {
	if sp.TargetPort.Type == intstr.Int {
		if sp.TargetPort.IntVal == 0 {
			return sp.Port
		}
		return sp.TargetPort.IntVal
	}
	for i := range p.Spec.Containers {
		if n := containerPort(&p.Spec.Containers[i], sp); n != 0 {
			return n
		}
	}
	for i := range p.Spec.InitContainers {
		c := &p.Spec.InitContainers[i]
		if c.RestartPolicy == nil || *c.RestartPolicy != corev1.ContainerRestartPolicyAlways {
			continue
		}
		if n := containerPort(c, sp); n != 0 {
			return n
		}
	}
	return 0
}

func containerPort(c *corev1.Container, sp *corev1.ServicePort) int32 {
	for i := range c.Ports {
		if c.Ports[i].Name == sp.TargetPort.StrVal && protocol(c.Ports[i].Protocol) == protocol(sp.Protocol) {
			return c.Ports[i].ContainerPort
		}
	}
	return 0
}

// InstancePort finds the port on which an instance serves the service port of
// the given index, nil if it does not. First match wins: the targetPort is the
// name of a port; the service port's name is; the targetPort is its number; or
// both have exactly one port of that protocol.
func InstancePort(ports []v1alpha1.InstancePort, service []corev1.ServicePort, i int) *v1alpha1.InstancePort {
	sp := &service[i]
	proto := protocol(sp.Protocol)
	var named, numbered, only *v1alpha1.InstancePort
	n := 0
	number := sp.TargetPort.IntVal
	if sp.TargetPort.Type == intstr.Int && number == 0 {
		number = sp.Port
	}
	for j := range ports {
		p := &ports[j]
		if protocol(p.Protocol) != proto {
			continue
		}
		n++
		only = p
		if p.Name != "" && sp.TargetPort.Type == intstr.String && p.Name == sp.TargetPort.StrVal {
			return p
		}
		if named == nil && p.Name != "" && p.Name == sp.Name {
			named = p
		}
		if numbered == nil && sp.TargetPort.Type == intstr.Int && p.Port == number {
			numbered = p
		}
	}
	switch {
	case named != nil:
		return named
	case numbered != nil:
		return numbered
	case n == 1:
		for j := range service {
			if j != i && protocol(service[j].Protocol) == proto {
				return nil
			}
		}
		return only
	}
	return nil
}

func protocol(p corev1.Protocol) corev1.Protocol {
	if p == "" {
		return corev1.ProtocolTCP
	}
	return p
}

// ports resolves and interns port sets for one service.
type ports struct {
	sets    map[string]*portSet // by resolved numbers
	buf     []byte
	fixed   *portSet // when every targetPort is a number: the set of every pod
	isFixed bool
}

func newPorts(v *view) ports {
	p := ports{sets: map[string]*portSet{}, isFixed: true}
	for i := range v.ports {
		if v.ports[i].TargetPort.Type == intstr.String {
			p.isFixed = false
		}
	}
	return p
}

func (ps *ports) ofPod(v *view, p *corev1.Pod) *portSet {
	if ps.fixed != nil {
		return ps.fixed
	}
	ps.buf = ps.buf[:0]
	for i := range v.ports {
		ps.add(podPort(p, &v.ports[i]), nil)
	}
	set := ps.intern(v)
	if ps.isFixed {
		ps.fixed = set
	}
	return set
}

func (ps *ports) ofInstance(v *view, in *v1alpha1.Instance) *portSet {
	ps.buf = ps.buf[:0]
	for i := range v.ports {
		p := InstancePort(in.Spec.Ports, v.ports, i)
		switch {
		case p == nil:
			ps.add(0, nil)
		case v.ports[i].AppProtocol != nil:
			ps.add(p.Port, nil) // the Service's word counts
		default:
			ps.add(p.Port, p.AppProtocol)
		}
	}
	return ps.intern(v)
}

// add appends one resolved port to the key in buf.
func (ps *ports) add(number int32, app *string) {
	ps.buf = binary.BigEndian.AppendUint32(ps.buf, uint32(number))
	if app != nil {
		ps.buf = append(append(append(ps.buf, 1), *app...), 0)
	} else {
		ps.buf = append(ps.buf, 0)
	}
}

func (ps *ports) intern(v *view) *portSet {
	if set, ok := ps.sets[string(ps.buf)]; ok {
		return set
	}
	set := &portSet{ports: []discoveryv1.EndpointPort{}}
	b := ps.buf
	for i := range v.ports {
		number := int32(binary.BigEndian.Uint32(b))
		app := v.ports[i].AppProtocol
		has := b[4] == 1
		b = b[5:]
		if has {
			end := slices.Index(b, 0)
			s := string(b[:end])
			app, b = &s, b[end+1:]
		}
		if number == 0 {
			continue
		}
		name, proto := v.ports[i].Name, protocol(v.ports[i].Protocol)
		set.ports = append(set.ports, discoveryv1.EndpointPort{Name: &name, Protocol: &proto, Port: &number, AppProtocol: app})
	}
	set.canon = canonical(set.ports)
	ps.sets[string(ps.buf)] = set
	return set
}

// canonical spells a set of ports so that equal sets give equal strings.
func canonical(ports []discoveryv1.EndpointPort) string {
	if len(ports) == 0 {
		return ""
	}
	order := make([]int, len(ports))
	for i := range order {
		order[i] = i
	}
	num := func(p *int32) int32 {
		if p == nil {
			return -1
		}
		return *p
	}
	proto := func(p *corev1.Protocol) string {
		if p == nil {
			return string(corev1.ProtocolTCP)
		}
		return string(*p)
	}
	slices.SortFunc(order, func(a, b int) int {
		x, y := &ports[a], &ports[b]
		return cmp.Or(cmp.Compare(deref(x.Name), deref(y.Name)), cmp.Compare(num(x.Port), num(y.Port)),
			cmp.Compare(proto(x.Protocol), proto(y.Protocol)), cmp.Compare(deref(x.AppProtocol), deref(y.AppProtocol)))
	})
	var b []byte
	for _, i := range order {
		p := &ports[i]
		b = append(append(b, deref(p.Name)...), 0)
		b = binary.BigEndian.AppendUint32(b, uint32(num(p.Port)))
		b = append(append(b, proto(p.Protocol)...), 0)
		if p.AppProtocol != nil {
			b = append(append(b, 1), *p.AppProtocol...)
		}
		b = append(b, 0)
	}
	return string(b)
}
