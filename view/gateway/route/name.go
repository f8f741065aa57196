package route

import "strings"

// longest is more than a host name can have (RFC 1035: 253).
const longest = 255

// hostname brings the host of an authority into the form in which hosts are
// kept: lower case, without port, brackets and the dot of the root. It uses buf
// and gives nil if there is no name in it that could match.
func hostname(authority []byte, buf *[longest + 1]byte) []byte {
	n := 0
	if len(authority) > 0 && authority[0] == '[' {
		for _, c := range authority[1:] {
			if c == ']' || n == longest {
				break
			}
			buf[n] = lower(c)
			n++
		}
		return buf[:n]
	}
	for _, c := range authority {
		if c == ':' {
			break
		}
		if n == longest {
			return nil
		}
		buf[n] = lower(c)
		n++
	}
	if n > 0 && buf[n-1] == '.' {
		n--
	}
	return buf[:n]
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c |= 0x20
	}
	return c
}

// keyOf is the name under which a host of the model is kept.
func keyOf(name string) string {
	if strings.Count(name, ":") > 1 && name[0] != '[' {
		return strings.ToLower(name) // an IPv6 address without brackets
	}
	var buf [longest + 1]byte
	if k := hostname([]byte(name), &buf); string(k) != name {
		return string(k)
	}
	return name
}
