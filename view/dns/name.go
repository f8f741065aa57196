package dns

import (
	"fmt"
	"strings"

	wiredns "github.com/fingerpost/fingerpost/wire/dns"
)

const (
	maxName   = wiredns.MaxName
	maxLabel  = wiredns.MaxLabel
	maxLabels = 127
)

// name is a domain name in wire form, lower-cased, with the places of its
// labels. It has no pointers, so that it lives on the stack.
type name struct {
	b      [maxName]byte
	n      int // bytes used, root label included
	labels int // without the root
	off    [maxLabels + 1]uint8
}

// read takes an uncompressed name from msg at off and gives the offset after
// it. Names in questions are never compressed: nothing stands before them.
func (n *name) read(msg []byte, off int) (next int, ok bool) {
	start := off
	n.labels = 0
	for {
		if off >= len(msg) {
			return 0, false
		}
		l := int(msg[off])
		if l > maxLabel || off-start+1+l >= maxName && l != 0 || off+1+l > len(msg) {
			return 0, false
		}
		n.off[n.labels] = uint8(off - start)
		off += 1 + l
		if l == 0 {
			break
		}
		n.labels++
	}
	n.n = off - start
	// Length bytes are below 'A', so the whole name is folded at once.
	for i, c := range msg[start:off] {
		if c-'A' < 26 {
			c += 'a' - 'A'
		}
		n.b[i] = c
	}
	return off, true
}

// span gives the wire form of labels [from, to), without a root label.
func (n *name) span(from, to int) []byte { return n.b[n.off[from]:n.off[to]] }

// label gives the text of one label.
func (n *name) label(i int) []byte { return n.b[n.off[i]+1 : n.off[i+1]] }

// under says whether the name ends in suffix (wire form with the root label,
// which has that many labels), and how many labels stand before it.
func (n *name) under(suffix string, labels int) (before int, ok bool) {
	before = n.labels - labels
	if before < 0 {
		return 0, false
	}
	return before, string(n.b[n.off[before]:n.n]) == suffix
}

// wireName turns a name in text into lower-case wire form with the root label.
func wireName(s string) (wire string, labels int, err error) {
	s = strings.ToLower(strings.TrimSuffix(s, "."))
	if s == "" {
		return "\x00", 0, nil
	}
	var b strings.Builder
	for label := range strings.SplitSeq(s, ".") {
		if !validLabel(label) {
			return "", 0, fmt.Errorf("%q is no domain name: a label has 1 to %d letters, digits, '-' or '_'", s, maxLabel)
		}
		b.WriteByte(byte(len(label)))
		b.WriteString(label)
		labels++
	}
	b.WriteByte(0)
	if b.Len() > maxName {
		return "", 0, fmt.Errorf("%q is no domain name: it is longer than %d bytes", s, maxName-2)
	}
	return b.String(), labels, nil
}

// validLabel is what the catalog can name: no byte of it needs an escape.
func validLabel(s string) bool {
	if s == "" || len(s) > maxLabel {
		return false
	}
	for i := range len(s) {
		c := s[i] | 0x20
		if !(c >= 'a' && c <= 'z' || s[i] >= '0' && s[i] <= '9' || s[i] == '-' || s[i] == '_') {
			return false
		}
	}
	return true
}

// wireLabel is wireName for one label, without a root.
func wireLabel(s string) (string, bool) {
	if !validLabel(s) {
		return "", false
	}
	return string(rune(len(s))) + strings.ToLower(s), true
}

// text is the opposite of wireName, for people.
func text(wire string) string {
	var b strings.Builder
	for i := 0; i < len(wire) && wire[i] != 0; i += 1 + int(wire[i]) {
		b.WriteString(wire[i+1 : min(len(wire), i+1+int(wire[i]))])
		b.WriteByte('.')
	}
	if b.Len() == 0 {
		return "."
	}
	return b.String()
}

// set takes a name that is in lower-case wire form already.
func (n *name) set(wire string) {
	n.n = copy(n.b[:], wire)
	n.index()
}

// index finds the labels of what is in b.
func (n *name) index() {
	n.labels = 0
	i := 0
	for ; n.b[i] != 0; i += 1 + int(n.b[i]) {
		n.off[n.labels] = uint8(i)
		n.labels++
	}
	n.off[n.labels] = uint8(i)
}
