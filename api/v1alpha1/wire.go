package v1alpha1

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math/bits"
	"slices"
	"unique"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// encoder writes protobuf fields to the end of b, or only counts their bytes.
type encoder struct {
	b     []byte
	n     int // bytes counted
	count bool
	err   error
}

// message is a message of Kubernetes, which knows its own encoding.
type message interface {
	Size() int
	MarshalTo(data []byte) (int, error)
}

func sizeVarint(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }

func (e *encoder) varint(v uint64) {
	if e.count {
		e.n += sizeVarint(v)
		return
	}
	for v >= 0x80 {
		e.b = append(e.b, byte(v)|0x80)
		v >>= 7
	}
	e.b = append(e.b, byte(v))
}

func (e *encoder) tag(field, kind int) { e.varint(uint64(field)<<3 | uint64(kind)) }

// text writes a string that is not empty; always one that may be.
func (e *encoder) text(field int, s string) {
	if s != "" {
		e.always(field, s)
	}
}

func (e *encoder) always(field int, s string) {
	e.tag(field, lengthKind)
	e.varint(uint64(len(s)))
	if e.count {
		e.n += len(s)
		return
	}
	e.b = append(e.b, s...)
}

func (e *encoder) number(field int, v int64) {
	if v != 0 {
		e.tag(field, varintKind)
		e.varint(uint64(v))
	}
}

func (e *encoder) flag(field int, v bool) {
	if v {
		e.number(field, 1)
	}
}

// known writes a message of Kubernetes.
func (e *encoder) known(field int, m message) {
	n := m.Size()
	e.tag(field, lengthKind)
	e.varint(uint64(n))
	if e.count {
		e.n += n
		return
	}
	at := len(e.b)
	e.b = slices.Grow(e.b, n)[:at+n]
	if _, err := m.MarshalTo(e.b[at:]); err != nil && e.err == nil {
		e.err = err
	}
}

// nested writes a message of ours.
func (e *encoder) nested(field int, write func(*encoder)) {
	e.tag(field, lengthKind)
	if e.count {
		before := e.n
		write(e)
		e.varint(uint64(e.n - before))
		return
	}
	// Most are shorter than 128 bytes: room for a length of one byte.
	at := len(e.b)
	e.b = append(e.b, 0)
	write(e)
	n := len(e.b) - at - 1
	if extra := sizeVarint(uint64(n)) - 1; extra > 0 {
		e.b = append(e.b, make([]byte, extra)...)
		copy(e.b[at+1+extra:], e.b[at+1:at+1+n])
	}
	length := encoder{b: e.b[:at]}
	length.varint(uint64(n))
}

// pairs writes a map, in the order of its keys: equal objects have one encoding.
func (e *encoder) pairs(field int, m map[string]string) {
	if len(m) == 0 {
		return
	}
	for _, k := range slices.Sorted(maps.Keys(m)) {
		e.nested(field, func(e *encoder) {
			e.always(1, k)
			e.always(2, m[k])
		})
	}
}

// sizeOf counts what write writes.
func sizeOf(write func(*encoder)) int {
	e := encoder{count: true}
	write(&e)
	return e.n
}

// encodeTo writes into data, which has room for it.
func encodeTo(data []byte, write func(*encoder)) (int, error) {
	e := encoder{b: data[:0]}
	write(&e)
	return len(e.b), e.err
}

// Kinds of fields on the wire.
const (
	varintKind  = 0
	fixed64Kind = 1
	lengthKind  = 2
	fixed32Kind = 5
)

var errWire = errors.New("v1alpha1: the encoding is broken")

// wireField is one field of a message: a number or bytes.
type wireField struct {
	number, kind int
	value        uint64
	bytes        []byte
}

func (f wireField) int() int64   { return int64(f.value) }
func (f wireField) bool() bool   { return f.value != 0 }
func (f wireField) text() string { return string(f.bytes) }

// shared is a string that many objects have: they share it in memory.
func (f wireField) shared() string { return share(string(f.bytes)) }

func share(s string) string {
	if s == "" {
		return ""
	}
	return unique.Make(s).Value()
}

// wants says whether a field that is known is of the kind that it should be.
func (f wireField) wants(kind int) error {
	if f.kind != kind {
		return fmt.Errorf("%w: field %d has kind %d, want %d", errWire, f.number, f.kind, kind)
	}
	return nil
}

// decode calls set for each field of a message. What set does not know it
// ignores: a later version may have written it.
func decode(data []byte, set func(wireField) error) error {
	for len(data) > 0 {
		tag, n := readVarint(data)
		if n == 0 {
			return io.ErrUnexpectedEOF
		}
		data = data[n:]
		f := wireField{number: int(tag >> 3), kind: int(tag & 7)}
		if tag>>3 == 0 || tag>>3 > 1<<29-1 {
			return fmt.Errorf("%w: field number %d", errWire, tag>>3)
		}
		size := 0
		switch f.kind {
		case varintKind:
			if f.value, n = readVarint(data); n == 0 {
				return io.ErrUnexpectedEOF
			}
			data = data[n:]
		case lengthKind:
			length, n := readVarint(data)
			if n == 0 || length > uint64(len(data)-n) {
				return io.ErrUnexpectedEOF
			}
			data, size = data[n:], int(length)
		case fixed64Kind:
			size = 8
		case fixed32Kind:
			size = 4
		default:
			return fmt.Errorf("%w: kind %d of field %d", errWire, f.kind, f.number)
		}
		if size > len(data) {
			return io.ErrUnexpectedEOF
		}
		f.bytes, data = data[:size], data[size:]
		if err := set(f); err != nil {
			return err
		}
	}
	return nil
}

// readVarint gives a number and how many bytes it takes; 0 of them: it has no end.
func readVarint(b []byte) (v uint64, n int) {
	for i, c := range b {
		if i == 10 {
			return 0, 0
		}
		v |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			return v, i + 1
		}
	}
	return 0, 0
}

// decodePair adds an entry of a map. Keys repeat among objects.
func decodePair(m *map[string]string, f wireField) error {
	if err := f.wants(lengthKind); err != nil {
		return err
	}
	var k, v string
	err := decode(f.bytes, func(f wireField) error {
		switch f.number {
		case 1:
			k = f.shared()
		case 2:
			v = f.text()
		}
		return nil
	})
	if err == nil {
		if *m == nil {
			*m = map[string]string{}
		}
		(*m)[k] = v
	}
	return err
}

// What follows reads a field into where it belongs, if it is of the right kind.

func readText(f wireField, to *string) error {
	*to = f.text()
	return f.wants(lengthKind)
}

// readShared reads a string that many objects have.
func readShared(f wireField, to *string) error {
	*to = f.shared()
	return f.wants(lengthKind)
}

func readNumber[T int32 | int64](f wireField, to *T) error {
	*to = T(f.int())
	return f.wants(varintKind)
}

func readFlag(f wireField, to *bool) error {
	*to = f.bool()
	return f.wants(varintKind)
}

func readNested(f wireField, set func(wireField) error) error {
	if err := f.wants(lengthKind); err != nil {
		return err
	}
	return decode(f.bytes, set)
}

func readKnown(f wireField, to interface{ Unmarshal([]byte) error }) error {
	if err := f.wants(lengthKind); err != nil {
		return err
	}
	return to.Unmarshal(f.bytes)
}

func readDuration(f wireField, to **metav1.Duration) error {
	*to = &metav1.Duration{}
	return readKnown(f, *to)
}

func (e *encoder) duration(field int, d *metav1.Duration) {
	if d != nil {
		e.known(field, d)
	}
}

func (e *encoder) moment(field int, t *metav1.MicroTime) {
	if !t.IsZero() {
		e.known(field, t)
	}
}
