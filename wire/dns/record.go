package dns

import "encoding/binary"

// Lengths and numbers of RFC 1035 and RFC 6891.
const (
	HeaderLen = 12
	MaxLabel  = 63
	MaxName   = 255 // with its root label (RFC 1035 §3.1)

	TypeOPT = 41
)

// SkipName gives the offset behind a name that may end in a pointer.
func SkipName(msg []byte, off int) (next int, ok bool) {
	for off < len(msg) {
		l := int(msg[off])
		switch {
		case l == 0:
			return off + 1, true
		case l&0xC0 == 0xC0:
			return off + 2, off+2 <= len(msg)
		case l > MaxLabel:
			return 0, false
		}
		off += 1 + l
	}
	return 0, false
}

// SkipQuestions gives the offset behind the questions of a message with a
// header.
func SkipQuestions(msg []byte) (next int, ok bool) {
	next = HeaderLen
	for range binary.BigEndian.Uint16(msg[4:]) {
		if next, ok = SkipName(msg, next); !ok || next+4 > len(msg) {
			return 0, false
		}
		next += 4
	}
	return next, true
}

// SkipRecord gives the offset behind a record, and where its fixed part (type,
// class, TTL, length: 10 bytes, all of them there) begins.
func SkipRecord(msg []byte, off int) (fixed, next int, ok bool) {
	fixed, ok = SkipName(msg, off)
	if !ok || fixed+10 > len(msg) {
		return 0, 0, false
	}
	next = fixed + 10 + int(binary.BigEndian.Uint16(msg[fixed+8:]))
	return fixed, next, next <= len(msg)
}

// Records is how many records the header says there are: answers and
// authorities, and additional ones. msg has at least a header.
func Records(msg []byte) (before, additional int) {
	return int(binary.BigEndian.Uint16(msg[6:])) + int(binary.BigEndian.Uint16(msg[8:])), int(binary.BigEndian.Uint16(msg[10:]))
}
