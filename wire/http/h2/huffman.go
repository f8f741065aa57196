package h2

import "encoding/binary"

// huffmanLen are the lengths of the codes of RFC 7541, appendix B. The code is
// canonical: codes of one length are numbered in the order of the symbols, so
// that the lengths say all.
var huffmanLen = [256]uint8{
	13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
	28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
	6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
	5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
	13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
	7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
	15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
	6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
	20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
	24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
	22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
	21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
	26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
	19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
	20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
	26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
}

const (
	peek    = 11 // bits looked at at once: one or two symbols of text
	longest = 30
)

// coding is the code in the forms in which it is used.
type coding struct {
	code [256]uint32
	// short is indexed by the next bits: the first symbol, the second one, the
	// length of the first, the length of both, and how many there are; 0 if the
	// code is longer.
	short [1 << peek]uint32
	// Of each length: the first code, how many, and where their symbols begin.
	first, count, start [longest + 1]uint32
	symbols             [256]byte
}

var huffman = newCoding()

func newCoding() *coding {
	c := &coding{}
	for _, n := range huffmanLen {
		c.count[n]++
	}
	code, at := uint32(0), uint32(0)
	for n := 1; n <= longest; n++ {
		c.first[n], c.start[n] = code, at
		for s, l := range huffmanLen {
			if int(l) == n {
				c.code[s], c.symbols[at] = code, byte(s)
				code++
				at++
			}
		}
		code <<= 1
	}
	for bits := range c.short {
		s1, n1, ok := c.lookup(uint32(bits)<<(longest-peek), peek)
		if !ok {
			continue
		}
		e := uint32(s1) | n1<<16 | n1<<20 | 1<<28
		rest := uint32(bits) << n1 & (1<<peek - 1)
		if s2, n2, ok := c.lookup(rest<<(longest-peek), peek-n1); ok {
			e = uint32(s1) | uint32(s2)<<8 | n1<<16 | (n1+n2)<<20 | 2<<28
		}
		c.short[bits] = e
	}
	return c
}

// lookup finds the symbol at the top of 30 bits whose code has at most n bits.
func (c *coding) lookup(top, n uint32) (s byte, length uint32, ok bool) {
	for l := uint32(5); l <= n; l++ {
		if d := top>>(longest-l) - c.first[l]; d < c.count[l] {
			return c.symbols[c.start[l]+d], l, true
		}
	}
	return 0, 0, false
}

// appendDecoded appends the text of a Huffman-coded string; dst has room for
// len(src)*8/5 bytes.
func appendDecoded(dst, src []byte) ([]byte, bool) {
	var acc uint64
	n := uint(0) // valid low bits of acc
	for {
		if n < 32 {
			if len(src) >= 4 {
				acc = acc<<32 | uint64(binary.BigEndian.Uint32(src))
				src = src[4:]
				n += 32
			} else {
				for _, b := range src {
					acc = acc<<8 | uint64(b)
					n += 8
				}
				src = nil
				if n < peek {
					break
				}
			}
		}
		e := huffman.short[acc>>(n-peek)&(1<<peek-1)]
		switch e >> 28 {
		case 2:
			dst = append(dst, byte(e), byte(e>>8))
			n -= uint(e >> 20 & 15)
			continue
		case 1:
			dst = append(dst, byte(e))
			n -= uint(e >> 20 & 15)
			continue
		}
		var top uint32
		if n >= longest {
			top = uint32(acc>>(n-longest)) & (1<<longest - 1)
		} else {
			top = uint32(acc<<(longest-n))&(1<<longest-1) | (1<<(longest-n) - 1)
		}
		s, l, ok := huffman.lookup(top, min(longest, uint32(n)))
		if !ok {
			return dst, false // the end-of-string symbol, too much padding or a cut code
		}
		dst = append(dst, s)
		n -= uint(l)
	}
	for n > 0 {
		pad := uint32(1)<<(peek-n) - 1
		e := huffman.short[uint32(acc<<(peek-n))&(1<<peek-1)|pad]
		l := uint(e >> 16 & 15)
		if e == 0 || l > n {
			ones := uint64(1)<<n - 1
			return dst, n < 8 && acc&ones == ones
		}
		dst = append(dst, byte(e))
		n -= l
	}
	return dst, true
}

// encodedLen is the length of s in the Huffman code.
func encodedLen(s []byte) int {
	n := 0
	for _, c := range s {
		n += int(huffmanLen[c])
	}
	return (n + 7) / 8
}

func appendEncoded(dst, s []byte) []byte {
	var acc uint64
	n := uint(0)
	for _, c := range s {
		l := uint(huffmanLen[c])
		acc = acc<<l | uint64(huffman.code[c])
		n += l
		if n >= 32 {
			n -= 32
			dst = binary.BigEndian.AppendUint32(dst, uint32(acc>>n))
		}
	}
	for ; n >= 8; n -= 8 {
		dst = append(dst, byte(acc>>(n-8)))
	}
	if n > 0 {
		dst = append(dst, byte(acc<<(8-n))|byte(1<<(8-n)-1))
	}
	return dst
}
