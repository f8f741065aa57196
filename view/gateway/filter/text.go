package filter

import "unsafe"

// Classes of bytes.
const (
	inHost   = 1 << iota // of an authority: host, port, IPv6
	inURL                // may stand in a Location as it is
	inID                 // of a request id
	inToken              // of a field name, a method
	inCookie             // of a cookie's value
	inLabel              // of a part of a host name
)

type table [256]uint8

func newTable() (t table) {
	for c := range 256 {
		b := byte(c)
		letter := 'a' <= b|0x20 && b|0x20 <= 'z'
		digit := '0' <= b && b <= '9'
		in := func(s string) bool {
			for i := range len(s) {
				if s[i] == b {
					return true
				}
			}
			return false
		}
		if letter || digit || in("-._:[]") {
			t[c] |= inHost
		}
		if letter || digit || in("-._~:/?#[]@!$&'()*+,;=%") {
			t[c] |= inURL
		}
		if letter || digit || in("-_.:+/=@") {
			t[c] |= inID
		}
		if letter || digit || in("!#$%&'*+-.^_`|~") {
			t[c] |= inToken
		}
		if b > 0x20 && b < 0x7f && !in("\",;\\") {
			t[c] |= inCookie
		}
		if letter || digit || in("-.") {
			t[c] |= inLabel
		}
	}
	return t
}

// classes is written once, when the program starts.
var classes = newTable()

func all(b []byte, class uint8) bool {
	for _, c := range b {
		if classes[c]&class == 0 {
			return false
		}
	}
	return true
}

const hexDigits = "0123456789abcdef"
const upperHex = "0123456789ABCDEF"

// appendURL appends what came from a client to a place, escaping what must not
// stand in one. Escapes stay as they are.
func appendURL(dst, b []byte) []byte {
	for _, c := range b {
		if classes[c]&inURL != 0 {
			dst = append(dst, c)
		} else {
			dst = append(dst, '%', upperHex[c>>4], upperHex[c&15])
		}
	}
	return dst
}

// appendQuery escapes b as the value of a query parameter.
func appendQuery(dst, b []byte) []byte {
	for _, c := range b {
		if classes[c]&inLabel != 0 || c == '_' || c == '~' {
			dst = append(dst, c)
		} else {
			dst = append(dst, '%', upperHex[c>>4], upperHex[c&15])
		}
	}
	return dst
}

// appendValue appends to a field value; control characters become spaces.
func appendValue(dst, b []byte) []byte {
	for _, c := range b {
		if c < 0x20 && c != '\t' || c == 0x7f {
			c = ' '
		}
		dst = append(dst, c)
	}
	return dst
}

// clean says that b may be a field value.
func clean(b []byte) bool {
	for _, c := range b {
		if c < 0x20 && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// bytesOf is the text of a string that is never written to.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

// hostname is an authority without its port.
func hostname(authority []byte) []byte {
	for i := len(authority) - 1; i >= 0; i-- {
		switch c := authority[i]; {
		case c == ':':
			return authority[:i]
		case c < '0' || c > '9':
			return authority
		}
	}
	return authority
}

// trim removes blanks at both ends.
func trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}
