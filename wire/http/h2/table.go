package h2

import "github.com/fingerpost/fingerpost/wire/http"

// overhead is what each entry of a table counts beyond its text (RFC 7541, 4.1).
const overhead = 32

// row says where an entry of a table is.
type row struct {
	at         uint32 // of the name in the text; the value follows
	name, size uint16 // lengths: of the name, of name and value
	id         http.ID
	pseudo     pseudo
	flaw       flaw
	hash       uint32 // for the encoder
}

// table is a dynamic table. Its text is one stretch of memory: new entries are
// appended, and when it is full the living ones move to its beginning.
type table struct {
	text []byte
	rows []row // a ring whose length is a power of two
	next int   // where the next row goes
	n    int   // rows that live
	size int   // as the RFC counts
	max  int
}

// row gives the i-th newest, from 0.
func (t *table) row(i int) *row { return &t.rows[(t.next-1-i)&(len(t.rows)-1)] }

func (t *table) resize(max int) {
	t.max = max
	t.evict(0)
}

// evict drops the oldest entries until there is room for one of this size.
func (t *table) evict(room int) {
	for t.n > 0 && t.size+room > t.max {
		t.size -= int(t.row(t.n-1).size) + overhead
		t.n--
	}
	if t.n == 0 {
		t.text, t.size = t.text[:0], 0
	}
}

// add makes an entry. name and value must not point into the table.
func (t *table) add(e *entry, hash uint32) {
	size := len(e.name) + len(e.value)
	t.evict(size + overhead)
	if size+overhead > t.max {
		return // the table is empty now, as the RFC demands
	}
	if t.n == len(t.rows) {
		t.grow()
	}
	if len(t.text)+size > cap(t.text) {
		t.compact(size)
	}
	at := len(t.text)
	t.text = append(append(t.text, e.name...), e.value...)
	t.rows[t.next&(len(t.rows)-1)] = row{
		at: uint32(at), name: uint16(len(e.name)), size: uint16(size),
		id: e.id, pseudo: e.pseudo, flaw: e.flaw, hash: hash,
	}
	t.next = (t.next + 1) & (len(t.rows) - 1)
	t.n++
	t.size += size + overhead
}

func (t *table) grow() {
	bigger := make([]row, max(8, 2*len(t.rows)))
	for i := range t.n {
		bigger[t.n-1-i] = *t.row(i)
	}
	t.rows, t.next = bigger, t.n
}

// compact moves the living text to the beginning, of more memory if it is not
// at least half as much again as the text.
func (t *table) compact(size int) {
	from := len(t.text)
	if t.n > 0 {
		from = int(t.row(t.n - 1).at)
	}
	live := t.text[from:]
	to := t.text[:0]
	if need := len(live) + size; need+need/2 > cap(t.text) {
		to = make([]byte, 0, max(256, min(2*need, t.max+t.max/2)))
	}
	t.text = append(to, live...)
	for i := range t.n {
		t.row(i).at -= uint32(from)
	}
}
