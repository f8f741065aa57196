package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// The protobuf encoding of Instances, with which they are stored and which
// clients of Kubernetes prefer. It is instance.proto, in which a field's number
// is for ever.

// Size is the length of the encoding.
func (in *Instance) Size() int { return sizeOf(in.encode) }

// MarshalTo writes the encoding to the start of data, which has Size bytes.
func (in *Instance) MarshalTo(data []byte) (int, error) { return encodeTo(data, in.encode) }

// Marshal gives the encoding.
func (in *Instance) Marshal() ([]byte, error) {
	b := make([]byte, in.Size())
	n, err := in.MarshalTo(b)
	return b[:n], err
}

// Reset makes it empty.
func (in *Instance) Reset() { *in = Instance{} }

// Unmarshal reads an encoding into an empty Instance. Strings that many
// Instances have are shared in memory.
func (in *Instance) Unmarshal(data []byte) error {
	if err := decode(data, in.set); err != nil {
		return err
	}
	shareMeta(&in.ObjectMeta)
	if l, ok := in.Labels[LabelService]; ok && l == in.Spec.Service {
		delete(in.Labels, LabelService) // its key, too
		in.Labels[LabelService] = in.Spec.Service
	}
	return nil
}

// shareMeta shares what is the same in the metadata of many objects.
func shareMeta(m *metav1.ObjectMeta) {
	m.Namespace = share(m.Namespace)
	for i := range m.ManagedFields {
		f := &m.ManagedFields[i]
		f.Manager, f.APIVersion, f.FieldsType, f.Subresource = share(f.Manager), share(f.APIVersion), share(f.FieldsType), share(f.Subresource)
		f.Operation = metav1.ManagedFieldsOperationType(share(string(f.Operation)))
	}
}

// Size is the length of the encoding.
func (l *InstanceList) Size() int { return sizeOf(l.encode) }

// MarshalTo writes the encoding to the start of data, which has Size bytes.
func (l *InstanceList) MarshalTo(data []byte) (int, error) { return encodeTo(data, l.encode) }

// Marshal gives the encoding.
func (l *InstanceList) Marshal() ([]byte, error) {
	b := make([]byte, l.Size())
	n, err := l.MarshalTo(b)
	return b[:n], err
}

// Reset makes it empty.
func (l *InstanceList) Reset() { *l = InstanceList{} }

// Unmarshal reads an encoding into an empty list.
func (l *InstanceList) Unmarshal(data []byte) error {
	return decode(data, func(f wireField) error {
		switch f.number {
		case 1:
			return readKnown(f, &l.ListMeta)
		case 2:
			if err := f.wants(lengthKind); err != nil {
				return err
			}
			l.Items = append(l.Items, Instance{})
			return l.Items[len(l.Items)-1].Unmarshal(f.bytes)
		}
		return nil
	})
}

func (l *InstanceList) encode(e *encoder) {
	e.known(1, &l.ListMeta)
	for i := range l.Items {
		e.known(2, &l.Items[i])
	}
}

func (in *Instance) encode(e *encoder) {
	e.known(1, &in.ObjectMeta)
	e.nested(2, in.Spec.encode)
	e.nested(3, in.Status.encode)
}

func (in *Instance) set(f wireField) error {
	switch f.number {
	case 1:
		return readKnown(f, &in.ObjectMeta)
	case 2:
		return readNested(f, in.Spec.set)
	case 3:
		return readNested(f, in.Status.set)
	}
	return nil
}

func (s *InstanceSpec) encode(e *encoder) {
	e.text(1, s.Service)
	e.text(2, s.Address)
	for i := range s.Ports {
		e.nested(3, s.Ports[i].encode)
	}
	if s.Weight != nil {
		e.tag(4, varintKind)
		e.varint(uint64(int64(*s.Weight)))
	}
	e.text(5, s.Zone)
	e.text(6, s.NodeName)
	e.text(7, s.Hostname)
	e.pairs(8, s.Metadata)
	if s.Check != nil {
		e.nested(9, s.Check.encode)
	}
	for i := range s.Claims {
		e.nested(10, s.Claims[i].encode)
	}
}

func (s *InstanceSpec) set(f wireField) error {
	switch f.number {
	case 1:
		return readShared(f, &s.Service)
	case 2:
		return readText(f, &s.Address)
	case 3:
		s.Ports = append(s.Ports, InstancePort{})
		return readNested(f, s.Ports[len(s.Ports)-1].set)
	case 4:
		s.Weight = new(int32)
		return readNumber(f, s.Weight)
	case 5:
		return readShared(f, &s.Zone)
	case 6:
		return readShared(f, &s.NodeName)
	case 7:
		return readText(f, &s.Hostname)
	case 8:
		return decodePair(&s.Metadata, f)
	case 9:
		s.Check = &Check{}
		return readNested(f, s.Check.set)
	case 10:
		s.Claims = append(s.Claims, Claim{})
		return readNested(f, s.Claims[len(s.Claims)-1].set)
	}
	return nil
}

func (p *InstancePort) encode(e *encoder) {
	e.text(1, p.Name)
	e.number(2, int64(p.Port))
	e.text(3, string(p.Protocol))
	if p.AppProtocol != nil {
		e.always(4, *p.AppProtocol)
	}
}

func (p *InstancePort) set(f wireField) error {
	switch f.number {
	case 1:
		return readShared(f, &p.Name)
	case 2:
		return readNumber(f, &p.Port)
	case 3:
		return readShared(f, (*string)(&p.Protocol))
	case 4:
		p.AppProtocol = new(string)
		return readShared(f, p.AppProtocol)
	}
	return nil
}

func (c *Check) encode(e *encoder) {
	e.text(1, string(c.Type))
	if c.Port != nil {
		e.known(2, c.Port)
	}
	e.text(3, c.Path)
	e.text(4, c.Scheme)
	e.text(5, c.Host)
	e.text(6, c.Service)
	for _, s := range c.Command {
		e.always(7, s)
	}
	e.duration(8, c.Interval)
	e.duration(9, c.Timeout)
	e.number(10, int64(c.Rise))
	e.number(11, int64(c.Fall))
	e.duration(12, c.TTL)
	e.duration(13, c.DeregisterAfter)
}

func (c *Check) set(f wireField) error {
	switch f.number {
	case 1:
		return readShared(f, (*string)(&c.Type))
	case 2:
		c.Port = &intstr.IntOrString{}
		return readKnown(f, c.Port)
	case 3:
		return readShared(f, &c.Path)
	case 4:
		return readShared(f, &c.Scheme)
	case 5:
		return readText(f, &c.Host)
	case 6:
		return readShared(f, &c.Service)
	case 7:
		c.Command = append(c.Command, "")
		return readShared(f, &c.Command[len(c.Command)-1])
	case 8:
		return readDuration(f, &c.Interval)
	case 9:
		return readDuration(f, &c.Timeout)
	case 10:
		return readNumber(f, &c.Rise)
	case 11:
		return readNumber(f, &c.Fall)
	case 12:
		return readDuration(f, &c.TTL)
	case 13:
		return readDuration(f, &c.DeregisterAfter)
	}
	return nil
}

func (c *Claim) encode(e *encoder) {
	e.text(1, c.Door)
	e.text(2, c.ID)
	e.text(3, c.Origin)
	e.text(4, string(c.State))
	e.text(5, c.Reason)
	e.duration(6, c.TTL)
	e.pairs(7, c.Metadata)
}

func (c *Claim) set(f wireField) error {
	switch f.number {
	case 1:
		return readShared(f, &c.Door)
	case 2:
		return readText(f, &c.ID)
	case 3:
		return readShared(f, &c.Origin)
	case 4:
		return readShared(f, (*string)(&c.State))
	case 5:
		return readText(f, &c.Reason)
	case 6:
		return readDuration(f, &c.TTL)
	case 7:
		return decodePair(&c.Metadata, f)
	}
	return nil
}

func (s *InstanceStatus) encode(e *encoder) {
	e.flag(1, s.Ready)
	e.flag(2, s.Serving)
	e.flag(3, s.Terminating)
	e.nested(4, s.Health.encode)
	if s.Check != nil {
		e.nested(5, s.Check.encode)
	}
	for i := range s.Expired {
		e.nested(6, s.Expired[i].encode)
	}
}

func (s *InstanceStatus) set(f wireField) error {
	switch f.number {
	case 1:
		return readFlag(f, &s.Ready)
	case 2:
		return readFlag(f, &s.Serving)
	case 3:
		return readFlag(f, &s.Terminating)
	case 4:
		return readNested(f, s.Health.set)
	case 5:
		s.Check = &CheckResult{}
		return readNested(f, s.Check.set)
	case 6:
		s.Expired = append(s.Expired, ExpiredClaim{})
		return readNested(f, s.Expired[len(s.Expired)-1].set)
	}
	return nil
}

func (h *Health) encode(e *encoder) {
	e.text(1, string(h.State))
	e.text(2, h.Reason)
	e.text(3, h.By)
	e.moment(4, &h.Since)
}

func (h *Health) set(f wireField) error {
	switch f.number {
	case 1:
		return readShared(f, (*string)(&h.State))
	case 2:
		return readShared(f, &h.Reason)
	case 3:
		return readShared(f, &h.By)
	case 4:
		return readKnown(f, &h.Since)
	}
	return nil
}

func (c *CheckResult) encode(e *encoder) {
	e.text(1, string(c.State))
	e.text(2, c.Reason)
	e.moment(3, &c.Since)
}

func (c *CheckResult) set(f wireField) error {
	switch f.number {
	case 1:
		return readShared(f, (*string)(&c.State))
	case 2:
		return readShared(f, &c.Reason)
	case 3:
		return readKnown(f, &c.Since)
	}
	return nil
}

func (c *ExpiredClaim) encode(e *encoder) {
	e.text(1, c.Door)
	e.text(2, c.ID)
	e.moment(3, &c.Since)
	e.flag(4, c.Held)
}

func (c *ExpiredClaim) set(f wireField) error {
	switch f.number {
	case 1:
		return readShared(f, &c.Door)
	case 2:
		return readText(f, &c.ID)
	case 3:
		return readKnown(f, &c.Since)
	case 4:
		return readFlag(f, &c.Held)
	}
	return nil
}
