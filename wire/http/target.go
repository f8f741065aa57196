package http

import "bytes"

// ValidAuthority says whether b is a host with an optional port as all versions
// accept it: letters, digits, "-", ".", "_" and "~", or an address in
// brackets. What else RFC 3986 allows in a reg-name names no host.
func ValidAuthority(b []byte) bool {
	i := 0
	if len(b) > 0 && b[0] == '[' {
		if i = bytes.IndexByte(b, ']'); i < 3 {
			return false
		}
		for _, c := range b[1:i] {
			if !hex(c) && c != ':' && c != '.' {
				return false
			}
		}
		i++
	} else {
		for i < len(b) && inHost(b[i]) {
			i++
		}
	}
	if i == 0 || i == len(b) {
		return i > 0
	}
	if b[i] != ':' || len(b)-i > 6 {
		return false
	}
	for _, c := range b[i+1:] {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

func inHost(c byte) bool {
	switch {
	case 'a' <= c|0x20 && c|0x20 <= 'z', '0' <= c && c <= '9':
		return true
	}
	return c == '-' || c == '.' || c == '_' || c == '~'
}

func hex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f'
}

// ValidPath says whether b is the origin form of a target as all versions
// accept it: a slash, then visible ASCII without "#" and with right escapes.
func ValidPath(b []byte) bool {
	if len(b) == 0 || b[0] != '/' {
		return false
	}
	for _, c := range b {
		if c <= ' ' || c >= 0x7f || c == '#' {
			return false
		}
	}
	return ValidEscapes(b)
}

// ValidEscapes says whether each "%" before the query of a path has two hex digits,
// and none of them is NUL. Queries are nobody's business but the endpoint's.
func ValidEscapes(path []byte) bool {
	for i := 0; i < len(path); i++ {
		switch path[i] {
		case '?':
			return true
		case '%':
			if i+2 >= len(path) || !hex(path[i+1]) || !hex(path[i+2]) || path[i+1] == '0' && path[i+2] == '0' {
				return false
			}
		}
	}
	return true
}
