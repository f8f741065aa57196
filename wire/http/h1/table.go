package h1

import (
	"encoding/binary"
	"math/bits"
)

// What a byte may be part of.
const (
	inToken  = 1 << iota // RFC 9110, 5.6.2
	inTarget             // visible ASCII but "#"
	isDigit
)

const (
	letter = inToken | inTarget
	digit  = letter | isDigit
	only   = inTarget
)

var class = [256]uint8{
	'!': letter, '$': letter, '%': letter, '&': letter, '\'': letter, '*': letter, '+': letter, '-': letter, '.': letter,
	'^': letter, '_': letter, '`': letter, '|': letter, '~': letter, '#': inToken,
	'0': digit, '1': digit, '2': digit, '3': digit, '4': digit, '5': digit, '6': digit, '7': digit, '8': digit, '9': digit,
	'A': letter, 'B': letter, 'C': letter, 'D': letter, 'E': letter, 'F': letter, 'G': letter, 'H': letter, 'I': letter,
	'J': letter, 'K': letter, 'L': letter, 'M': letter, 'N': letter, 'O': letter, 'P': letter, 'Q': letter, 'R': letter,
	'S': letter, 'T': letter, 'U': letter, 'V': letter, 'W': letter, 'X': letter, 'Y': letter, 'Z': letter,
	'a': letter, 'b': letter, 'c': letter, 'd': letter, 'e': letter, 'f': letter, 'g': letter, 'h': letter, 'i': letter,
	'j': letter, 'k': letter, 'l': letter, 'm': letter, 'n': letter, 'o': letter, 'p': letter, 'q': letter, 'r': letter,
	's': letter, 't': letter, 'u': letter, 'v': letter, 'w': letter, 'x': letter, 'y': letter, 'z': letter,
	'"': only, '(': only, ')': only, ',': only, '/': only, ':': only, ';': only, '<': only, '=': only, '>': only,
	'?': only, '@': only, '[': only, '\\': only, ']': only, '{': only, '}': only,
}

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// controls marks the lowest byte of x that is a control character (below 0x20, or
// 0x7f) in its high bit; bits above it mean nothing.
func controls(x uint64) uint64 {
	del := x ^ 0x7f*ones
	return ((x-0x20*ones)&^x | (del-ones)&^del) & highs
}

// What lineEnd gives instead of an index.
const (
	more = -1
	bad  = -2
)

// lineEnd gives the index of the CR of the CRLF that ends the text from p on, more
// if there is none yet, bad if something else than HTAB and what is visible
// comes before it.
func lineEnd(b []byte, p int) int {
	for {
		for p+8 <= len(b) {
			x := binary.LittleEndian.Uint64(b[p : p+8])
			// Without bytes from 0x80, this marks some byte if any is a control
			// character; with them, it is looked at again.
			if ((x-0x20*ones)|(x+ones)|x)&highs != 0 {
				if m := controls(x); m != 0 {
					p += bits.TrailingZeros64(m) >> 3
					goto found
				}
			}
			p += 8
		}
		for p < len(b) && b[p] >= ' ' && b[p] != 0x7f {
			p++
		}
		if p >= len(b) {
			return more
		}
	found:
		switch b[p] {
		case '\t':
			p++
		case '\r':
			if p+1 >= len(b) {
				return more
			}
			if b[p+1] == '\n' {
				return p
			}
			return bad
		default:
			return bad
		}
	}
}

// targetEnd gives the index of the first byte from p on that no target has.
func targetEnd(b []byte, p int) int {
	for p+8 <= len(b) {
		x := binary.LittleEndian.Uint64(b[p : p+8])
		hash := x ^ '#'*ones
		if ((x-0x21*ones)|(x+ones)|x|((hash-ones)&^hash))&highs != 0 {
			break
		}
		p += 8
	}
	for p < len(b) && class[b[p]]&inTarget != 0 {
		p++
	}
	return p
}

// colonAt gives the index of the first colon from p on, if one is within reach of
// words of 8 bytes; len(b) otherwise.
func colonAt(b []byte, p int) int {
	for p+8 <= len(b) {
		x := binary.LittleEndian.Uint64(b[p:p+8]) ^ ':'*ones
		if m := (x - ones) &^ x & highs; m != 0 {
			return p + bits.TrailingZeros64(m)>>3
		}
		p += 8
	}
	return len(b)
}

func isToken(b []byte) bool {
	for _, c := range b {
		if class[c]&inToken == 0 {
			return false
		}
	}
	return len(b) > 0
}

// trim cuts spaces and tabs from both ends.
func trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// item cuts the first item from a list with commas.
func item(list []byte) (first, rest []byte) {
	for i, c := range list {
		if c == ',' {
			return trim(list[:i]), list[i+1:]
		}
	}
	return trim(list), nil
}

// fold compares with a text in lower case, in any case.
func fold(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i := range b {
		c := b[i]
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}
