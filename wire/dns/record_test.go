package dns

import (
	"bytes"
	"testing"
)

func TestSkipRecord(t *testing.T) {
	opt := []byte{0, 0, TypeOPT, 4, 208, 0, 0, 0, 0, 0, 2, 'x', 'y'}
	long := append(bytes.Repeat([]byte{63}, 64), 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0) // one label of 63 times 63
	for _, c := range []struct {
		what        string
		msg         []byte
		off         int
		fixed, next int
		ok          bool
	}{
		{"OPT with data", opt, 0, 1, 13, true},
		{"behind another", append(bytes.Clone(opt), opt...), 13, 14, 26, true},
		{"data cut off", opt[:12], 0, 1, 13, false},
		{"fixed part cut off", opt[:10], 0, 0, 0, false},
		{"pointer", []byte{0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0}, 0, 2, 12, true},
		{"pointer cut off", []byte{0xC0}, 0, 0, 0, false},
		{"labels, then a pointer", []byte{1, 'a', 0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0}, 0, 4, 14, true},
		{"longest label", long, 0, 65, 75, true},
		{"label too long", []byte{64, 0, 0, 0}, 0, 0, 0, false},
		{"reserved kind of label", []byte{0x80, 0, 0, 0}, 0, 0, 0, false},
		{"name without end", []byte{1, 'a', 1, 'b'}, 0, 0, 0, false},
		{"nothing", nil, 0, 0, 0, false},
		{"behind the end", opt, 99, 0, 0, false},
	} {
		fixed, next, ok := SkipRecord(c.msg, c.off)
		if ok != c.ok || ok && (fixed != c.fixed || next != c.next) {
			t.Errorf("%s: %d, %d, %v, want %d, %d, %v", c.what, fixed, next, ok, c.fixed, c.next, c.ok)
		}
	}
}

func TestRecords(t *testing.T) {
	if before, additional := Records([]byte{0, 0, 0, 0, 0, 1, 0, 2, 1, 0, 0, 3}); before != 258 || additional != 3 {
		t.Errorf("%d and %d records, want 258 and 3", before, additional)
	}
}

func TestSkipQuestions(t *testing.T) {
	for _, c := range []struct {
		what string
		msg  []byte
		want int // 0: refused
	}{
		{"none", make([]byte, HeaderLen), HeaderLen},
		{"two", []byte{0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 1, 'a', 0, 0, 1, 0, 1, 0xC0, 12, 0, 1, 0, 1}, 25},
		{"type cut off", []byte{0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 'a', 0, 0, 1, 0}, 0},
		{"fewer than said", []byte{0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 1, 'a', 0, 0, 1, 0, 1}, 0},
	} {
		next, ok := SkipQuestions(c.msg)
		if ok != (c.want > 0) || next != c.want {
			t.Errorf("%s: %d, %v, want %d", c.what, next, ok, c.want)
		}
	}
}

// FuzzSkipRecord: records follow each other and stay within the message.
func FuzzSkipRecord(f *testing.F) {
	f.Add([]byte{0, 0, TypeOPT, 4, 208, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{3, 'w', 'w', 'w', 0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 1, 2, 3, 4})
	f.Fuzz(func(t *testing.T, msg []byte) {
		for off := 0; off < len(msg); {
			fixed, next, ok := SkipRecord(msg, off)
			if !ok {
				return
			}
			if fixed <= off || next < fixed+10 || next > len(msg) {
				t.Fatalf("at %d of %d bytes: fixed part at %d, next at %d", off, len(msg), fixed, next)
			}
			off = next
		}
	})
}
