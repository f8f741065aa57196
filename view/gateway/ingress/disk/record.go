package disk

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"time"
)

// magic opens every file; its last byte is the version of the format. Any
// change of what follows needs a new one: old files are ignored then.
const magic = "fproute\x01"

const sumLen = 4

// Why a file is of no use.
var (
	ErrForeign = errors.New("it holds no routes of this version")
	ErrDamaged = errors.New("it is damaged")
)

// Record is one object.
type Record struct {
	Kind string
	Data []byte
}

// Contents is what a file holds.
type Contents struct {
	// Source names where the objects come from: the URL of the server, say.
	Source string
	// Taken is when they were known to be so.
	Taken   time.Time
	Records []Record
}

func table() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// Encode gives the bytes of a file.
func Encode(c *Contents) []byte {
	size := len(magic) + len(c.Source) + 32 + sumLen
	for i := range c.Records {
		size += len(c.Records[i].Kind) + len(c.Records[i].Data) + 2*binary.MaxVarintLen32
	}
	b := append(make([]byte, 0, size), magic...)
	b = text(b, c.Source)
	b = binary.AppendVarint(b, c.Taken.UnixNano())
	b = binary.AppendUvarint(b, uint64(len(c.Records)))
	for i := range c.Records {
		b = text(b, c.Records[i].Kind)
		b = text(b, c.Records[i].Data)
	}
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, table()))
}

func text[T string | []byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// Decode reads the bytes of a file. The records point into b.
func Decode(b []byte) (*Contents, error) {
	if len(b) < len(magic)+sumLen || string(b[:len(magic)]) != magic {
		return nil, ErrForeign
	}
	body, sum := b[:len(b)-sumLen], b[len(b)-sumLen:]
	if crc32.Checksum(body, table()) != binary.BigEndian.Uint32(sum) {
		return nil, ErrDamaged
	}
	return decodeBody(body[len(magic):])
}

func decodeBody(b []byte) (*Contents, error) {
	d := decoder{b: b}
	c := &Contents{Source: string(d.bytes())}
	taken, k := binary.Varint(d.b)
	if k <= 0 {
		return nil, ErrDamaged
	}
	d.b, c.Taken = d.b[k:], time.Unix(0, taken)
	n := d.uint()
	if n > uint64(len(d.b)/2) { // each has two lengths
		return nil, ErrDamaged
	}
	c.Records = make([]Record, n)
	for i := range c.Records {
		c.Records[i] = Record{Kind: string(d.bytes()), Data: d.bytes()}
	}
	if d.bad || len(d.b) > 0 {
		return nil, ErrDamaged
	}
	return c, nil
}

// decoder takes values from the front of b. After the first that makes no sense
// it gives nothing.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) uint() uint64 {
	n, k := binary.Uvarint(d.b)
	if k <= 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[k:]
	return n
}

func (d *decoder) bytes() []byte {
	n := d.uint()
	if n > uint64(len(d.b)) {
		d.bad, d.b = true, nil
		return nil
	}
	b := d.b[:n:n]
	d.b = d.b[n:]
	return b
}
