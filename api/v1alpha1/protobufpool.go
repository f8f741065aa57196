package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// The protobuf encoding of AddressPools; see protobuf.go.

// Size is the length of the encoding.
func (p *AddressPool) Size() int { return sizeOf(p.encode) }

// MarshalTo writes the encoding to the start of data, which has Size bytes.
func (p *AddressPool) MarshalTo(data []byte) (int, error) { return encodeTo(data, p.encode) }

// Marshal gives the encoding.
func (p *AddressPool) Marshal() ([]byte, error) {
	b := make([]byte, p.Size())
	n, err := p.MarshalTo(b)
	return b[:n], err
}

// Reset makes it empty.
func (p *AddressPool) Reset() { *p = AddressPool{} }

// Unmarshal reads an encoding into an empty AddressPool.
func (p *AddressPool) Unmarshal(data []byte) error {
	return decode(data, func(f wireField) error {
		switch f.number {
		case 1:
			return readKnown(f, &p.ObjectMeta)
		case 2:
			return readNested(f, p.Spec.set)
		case 3:
			return readNested(f, p.Status.set)
		}
		return nil
	})
}

// Size is the length of the encoding.
func (l *AddressPoolList) Size() int { return sizeOf(l.encode) }

// MarshalTo writes the encoding to the start of data, which has Size bytes.
func (l *AddressPoolList) MarshalTo(data []byte) (int, error) { return encodeTo(data, l.encode) }

// Marshal gives the encoding.
func (l *AddressPoolList) Marshal() ([]byte, error) {
	b := make([]byte, l.Size())
	n, err := l.MarshalTo(b)
	return b[:n], err
}

// Reset makes it empty.
func (l *AddressPoolList) Reset() { *l = AddressPoolList{} }

// Unmarshal reads an encoding into an empty list.
func (l *AddressPoolList) Unmarshal(data []byte) error {
	return decode(data, func(f wireField) error {
		switch f.number {
		case 1:
			return readKnown(f, &l.ListMeta)
		case 2:
			if err := f.wants(lengthKind); err != nil {
				return err
			}
			l.Items = append(l.Items, AddressPool{})
			return l.Items[len(l.Items)-1].Unmarshal(f.bytes)
		}
		return nil
	})
}

func (l *AddressPoolList) encode(e *encoder) {
	e.known(1, &l.ListMeta)
	for i := range l.Items {
		e.known(2, &l.Items[i])
	}
}

func (p *AddressPool) encode(e *encoder) {
	e.known(1, &p.ObjectMeta)
	e.nested(2, p.Spec.encode)
	e.nested(3, p.Status.encode)
}

func (s *AddressPoolSpec) encode(e *encoder) {
	for _, a := range s.Addresses {
		e.always(1, a)
	}
	if s.AutoAssign != nil {
		e.tag(2, varintKind)
		if *s.AutoAssign {
			e.varint(1)
		} else {
			e.varint(0)
		}
	}
	if s.ServiceSelector != nil {
		e.known(3, s.ServiceSelector)
	}
	for _, n := range s.Namespaces {
		e.always(4, n)
	}
}

func (s *AddressPoolSpec) set(f wireField) error {
	switch f.number {
	case 1:
		s.Addresses = append(s.Addresses, "")
		return readText(f, &s.Addresses[len(s.Addresses)-1])
	case 2:
		s.AutoAssign = new(bool)
		return readFlag(f, s.AutoAssign)
	case 3:
		s.ServiceSelector = &metav1.LabelSelector{}
		return readKnown(f, s.ServiceSelector)
	case 4:
		s.Namespaces = append(s.Namespaces, "")
		return readText(f, &s.Namespaces[len(s.Namespaces)-1])
	}
	return nil
}

func (s *AddressPoolStatus) encode(e *encoder) {
	e.number(1, s.Total)
	e.number(2, s.Used)
}

func (s *AddressPoolStatus) set(f wireField) error {
	switch f.number {
	case 1:
		return readNumber(f, &s.Total)
	case 2:
		return readNumber(f, &s.Used)
	}
	return nil
}
