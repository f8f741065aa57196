package h2

import "github.com/fingerpost/fingerpost/wire/http"

// Decoder decodes the blocks of one direction of a connection, in the order in
// which they came. The zero value is ready for a table of 4096 bytes.
type Decoder struct {
	table   table
	ready   bool
	in      []byte
	fields  bool // a field of this block was seen
	allowed int  // what we allow as size of the table
}

// SetTableSize says what our SETTINGS allow as size of the table, if that is not
// the default; before the first block.
func (d *Decoder) SetTableSize(n int) {
	d.ready, d.allowed = true, n
	d.table.max = n
}

func (d *Decoder) begin(block []byte) {
	if !d.ready {
		d.SetTableSize(TableSize)
	}
	d.in, d.fields = block, false
}

// next decodes one field into e, whose slices point into the arena, the static
// table or nowhere else; more is false at the end of the block. With drop the
// text of the field is not wanted.
func (d *Decoder) next(arena *[]byte, e *entry, drop bool) (more bool, err error) {
	for len(d.in) > 0 {
		b := d.in[0]
		switch {
		case b&0x80 != 0:
			i, ok := d.integer(7)
			if !ok || !d.at(i, arena, e, drop) {
				return false, ErrCompression
			}
			d.fields = true
			return true, nil
		case b&0xc0 == 0x40:
			return d.literal(6, true, arena, e)
		case b&0xe0 == 0x20:
			n, ok := d.integer(5)
			if !ok {
				return false, ErrCompression
			}
			if d.fields || n > uint64(d.allowed) {
				return false, ErrTableUpdate
			}
			d.table.resize(int(n))
		default:
			return d.literal(4, false, arena, e)
		}
	}
	return false, nil
}

// integer reads a number whose first byte has this many bits of it
// (RFC 7541, 5.1).
func (d *Decoder) integer(bits uint) (uint64, bool) {
	if len(d.in) == 0 {
		return 0, false
	}
	mask := uint64(1)<<bits - 1
	v := uint64(d.in[0]) & mask
	d.in = d.in[1:]
	if v < mask {
		return v, true
	}
	for shift := uint(0); shift <= 28; shift += 7 {
		if len(d.in) == 0 {
			return 0, false
		}
		b := d.in[0]
		d.in = d.in[1:]
		v += uint64(b&0x7f) << shift
		if b&0x80 == 0 {
			return v, true
		}
	}
	return 0, false
}

// at gives the entry of an index.
func (d *Decoder) at(i uint64, arena *[]byte, e *entry, drop bool) bool {
	if i == 0 {
		return false
	}
	if i < uint64(len(static.entries)) {
		*e = static.entries[i]
		return true
	}
	i -= uint64(len(static.entries))
	if i >= uint64(d.table.n) {
		return false
	}
	r := d.table.row(int(i))
	e.id, e.pseudo, e.flaw = r.id, r.pseudo, r.flaw
	if drop {
		e.name, e.value = nil, nil
		return true
	}
	text := d.table.text[r.at : int(r.at)+int(r.size)]
	a := reserve(arena, len(text))
	m := len(a)
	a = append(a, text...)
	*arena = a
	e.name, e.value = a[m:m+int(r.name):m+int(r.name)], a[m+int(r.name):len(a):len(a)]
	return true
}

func (d *Decoder) literal(bits uint, index bool, arena *[]byte, e *entry) (bool, error) {
	d.fields = true
	i, ok := d.integer(bits)
	if !ok {
		return false, ErrCompression
	}
	if i != 0 {
		if !d.at(i, arena, e, false) {
			return false, ErrCompression
		}
		e.flaw &^= badValue
	} else {
		if e.name, ok = d.text(arena); !ok {
			return false, ErrCompression
		}
		e.pseudo = pseudoOf(e.name)
		e.id, e.flaw = http.Identify(e.name), 0
		if e.pseudo == regular && !validName(e.name) {
			e.flaw = badName
		}
	}
	if e.value, ok = d.text(arena); !ok {
		return false, ErrCompression
	}
	if !validValue(e.value) {
		e.flaw |= badValue
	}
	if index {
		d.table.add(e, 0)
	}
	return true, nil
}

// text reads a string into the arena (RFC 7541, 5.2).
func (d *Decoder) text(arena *[]byte) ([]byte, bool) {
	coded := len(d.in) > 0 && d.in[0]&0x80 != 0
	n, ok := d.integer(7)
	if !ok || n > uint64(len(d.in)) {
		return nil, false
	}
	src := d.in[:n]
	d.in = d.in[n:]
	if !coded {
		a := reserve(arena, len(src))
		m := len(a)
		*arena = append(a, src...)
		return (*arena)[m:len(*arena):len(*arena)], true
	}
	a := reserve(arena, len(src)*8/5+2)
	m := len(a)
	a, ok = appendDecoded(a, src)
	*arena = a
	return a[m:len(a):len(a)], ok
}

// reserve makes room for n bytes at the end of the arena. What points into an
// arena that is too small keeps pointing there.
func reserve(arena *[]byte, n int) []byte {
	a := *arena
	if cap(a)-len(a) < n {
		a = make([]byte, 0, max(1024, 2*cap(a), n))
	}
	return a
}

// validName: a token in lower case (RFC 9113, 8.2.1).
func validName(s []byte) bool {
	for _, c := range s {
		if charClass[c]&inName == 0 {
			return false
		}
	}
	return len(s) > 0
}

func validValue(s []byte) bool {
	if len(s) == 0 {
		return true
	}
	if a, z := s[0], s[len(s)-1]; a == ' ' || a == '\t' || z == ' ' || z == '\t' {
		return false
	}
	for _, c := range s {
		if charClass[c]&inValue == 0 {
			return false
		}
	}
	return true
}

const (
	inName = 1 << iota
	inValue
	inToken
)

var charClass = newCharClass()

func newCharClass() (t [256]uint8) {
	for i := range t {
		c := byte(i)
		if c >= 0x20 && c != 0x7f || c == '\t' {
			t[i] |= inValue
		}
		letter := 'a' <= c && c <= 'z' || '0' <= c && c <= '9'
		for _, x := range []byte("!#$%&'*+-.^_`|~") {
			letter = letter || c == x
		}
		if letter {
			t[i] |= inName | inToken
		}
		if 'A' <= c && c <= 'Z' {
			t[i] |= inToken
		}
	}
	return t
}
