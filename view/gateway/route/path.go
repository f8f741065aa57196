package route

import "unsafe"

// What is odd about a path, so that it cannot be matched as it came.
const (
	encodedSlash = 1 << iota // %2F: some take it for a separator
	backslash                // "\" or %5C: some take it for a separator
	parameters               // ";x": some cut it off before they look
	empties                  // "//": some take it for one
	kinds        = iota
)

// class says how a byte of a path is treated.
const (
	plain = iota
	slash // begins an element
	query // ends the path
	strange
)

// classes of bytes. pchar (RFC 3986) without ";" is plain.
var classes = func() (t [256]uint8) {
	for c := range t {
		t[c] = strange
		switch {
		case c == '/':
			t[c] = slash
		case c == '?':
			t[c] = query
		case pchar(byte(c)) && c != ';':
			t[c] = plain
		}
	}
	return t
}()

// pchar says that the byte may stand in an element as itself (RFC 3986).
func pchar(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	}
	switch c {
	case '-', '.', '_', '~', '!', '$', '&', '\'', '(', ')', '*', '+', ',', ';', '=', ':', '@':
		return true
	}
	return false
}

// clean gives the length of the path in a request target, and whether it can be
// matched as it is: no escapes, no empty elements, none that begins with a dot.
func clean(target []byte) (n int, ok bool) {
	if len(target) == 0 || target[0] != '/' {
		return len(target), false
	}
	for i := 0; i < len(target); i++ {
		class := classes[target[i]]
		if class == plain {
			continue
		}
		switch class {
		case slash:
			if i+1 < len(target) && (target[i+1] == '/' || target[i+1] == '.') {
				return 0, false
			}
		case query:
			return i, true
		default:
			return 0, false
		}
	}
	return len(target), true
}

const digits = "0123456789ABCDEF"

// canonical appends the one way to write a path: what may stand as itself does,
// everything else is escaped in upper case, and an escaped slash stays one. It
// ends at the query. refused says why there is no such way.
func canonical(dst, target []byte) (out []byte, odd int, refused string) {
	if len(target) == 0 || target[0] != '/' {
		return dst, 0, "the path does not begin with a slash"
	}
	for i := 0; i < len(target); i++ {
		c := target[i]
		escaped := false
		switch {
		case c == '?':
			return dst, odd, ""
		case c == '#':
			return dst, odd, "a fragment in the path"
		case c < 0x20 || c == 0x7f:
			return dst, odd, "a control character in the path"
		case c == '%':
			if i+2 >= len(target) {
				return dst, odd, "an incomplete escape in the path"
			}
			hi, lo := unhex(target[i+1]), unhex(target[i+2])
			if hi > 15 || lo > 15 {
				return dst, odd, "a broken escape in the path"
			}
			c, escaped = hi<<4|lo, true
			i += 2
			if c == 0 {
				return dst, odd, "a NUL in the path"
			}
		}
		switch {
		case c == '/' && !escaped:
			if len(dst) > 0 && dst[len(dst)-1] == '/' {
				odd |= empties
			}
			dst = append(dst, c)
		case pchar(c):
			if c == ';' {
				odd |= parameters
			}
			dst = append(dst, c)
		default:
			if c == '/' {
				odd |= encodedSlash
			} else if c == '\\' {
				odd |= backslash
			}
			dst = append(dst, '%', digits[c>>4], digits[c&15])
		}
	}
	return dst, odd, ""
}

func unhex(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	}
	return 255
}

// separator gives the length of what separates elements at the begin of a
// canonical path in the most generous reading, 0 if nothing does.
func separator(p []byte) int {
	switch {
	case p[0] == '/':
		return 1
	case len(p) >= 3 && p[0] == '%' && (p[1] == '2' && p[2] == 'F' || p[1] == '5' && p[2] == 'C'):
		return 3
	}
	return 0
}

// dots looks for elements "." and ".." in a canonical path, in the most
// generous reading: whatever may separate separates, and "..;x" is "..".
func dots(p []byte) (plain, masked bool) {
	for i := 0; i < len(p); {
		n := separator(p[i:])
		if n == 0 {
			i++
			continue
		}
		i += n
		j := i
		for j < len(p) && p[j] == '.' {
			j++
		}
		if j == i || j-i > 2 {
			continue
		}
		switch {
		case j == len(p) || separator(p[j:]) > 0:
			plain = true
		case p[j] == ';':
			masked = true
		}
	}
	return plain, masked
}

// resolve takes the dot elements out of a path that begins with a slash (RFC
// 3986, 5.2.4), in place. above says that it would leave the root.
func resolve(p []byte) (out []byte, above bool) {
	out = p[:0]
	for i := 0; i < len(p); {
		j := i + 1
		for j < len(p) && p[j] != '/' {
			j++
		}
		last := j == len(p)
		switch seg := p[i+1 : j]; {
		case string(seg) == ".":
			if last {
				out = append(out, '/')
			}
		case string(seg) == "..":
			if len(out) == 0 {
				return out, true
			}
			for out[len(out)-1] != '/' {
				out = out[:len(out)-1]
			}
			out = out[:len(out)-1]
			if last {
				out = append(out, '/')
			}
		default:
			out = append(out, p[i:j]...)
		}
		i = j
	}
	return out, false
}

// read appends a canonical path as somebody reads it who does to it what mask
// says.
func read(dst, p []byte, mask int) []byte {
	begin := len(dst)
	for i := 0; i < len(p); i++ {
		c := p[i]
		switch {
		case c == ';' && mask&parameters != 0:
			for i+1 < len(p) && p[i+1] != '/' && (mask&(encodedSlash|backslash) == 0 || separator(p[i+1:]) == 0) {
				i++
			}
			continue
		case c == '%' && separator(p[i:]) == 3:
			if p[i+1] == '2' && mask&encodedSlash != 0 || p[i+1] == '5' && mask&backslash != 0 {
				c = '/'
				i += 2
			}
		}
		if c == '/' && mask&empties != 0 && len(dst) > begin && dst[len(dst)-1] == '/' {
			continue
		}
		dst = append(dst, c)
	}
	return dst
}

// Unsafe says that a path, without query, has what a reader could resolve to
// another place: "." or ".." as an element, in any disguise. A rewrite can make one
// of captures that were harmless where they stood ("/x(.*)" and "/x../y"), so that
// its result is to be looked at before it is sent.
func Unsafe(path []byte) bool {
	n, ok := clean(path)
	if ok && n == len(path) {
		return false
	}
	p, _, refused := canonical(nil, path)
	if refused != "" {
		return true
	}
	plain, masked := dots(p)
	return plain || masked
}

// rulePath brings the path of a rule into the form in which requests are
// matched.
func rulePath(kind PathKind, value string) string {
	if value == "" {
		value = "/"
	}
	if n, ok := clean(unsafe.Slice(unsafe.StringData(value), len(value))); !ok || n != len(value) {
		// A question mark in a rule is not the begin of a query.
		p, _, refused := canonical(nil, escapeQuery(value))
		if refused == "" {
			value = string(read(nil, p, empties))
		}
	}
	if kind == Prefix {
		for len(value) > 0 && value[len(value)-1] == '/' {
			value = value[:len(value)-1]
		}
	}
	return value
}

func escapeQuery(s string) []byte {
	out := make([]byte, 0, len(s)+8)
	for i := range len(s) {
		if s[i] == '?' {
			out = append(out, "%3F"...)
		} else {
			out = append(out, s[i])
		}
	}
	return out
}
