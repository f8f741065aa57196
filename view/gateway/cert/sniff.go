package cert

import (
	"errors"
	"strings"
)

// MaxHello is how many bytes Sniff looks at before it gives up: records
// included, as much as crypto/tls takes for one handshake message.
const MaxHello = 64 << 10

var (
	errNotTLS  = errors.New("cert: sniff: not a TLS ClientHello")
	errHello   = errors.New("cert: sniff: malformed ClientHello")
	errTooLong = errors.New("cert: sniff: ClientHello is too long")
)

// Sniff reads the name and the protocols that a client asks for out of the
// first bytes of its connection, without answering. more: it needs more bytes.
// serverName is in lower case, "" if none was given.
func Sniff(b []byte) (serverName string, alpn []string, more bool, err error) {
	msg, more, err := assemble(b)
	if more || err != nil {
		return "", nil, more, err
	}
	name, alpn, ok := parseHello(msg)
	if !ok {
		return "", nil, false, errHello
	}
	return canonical(name), alpn, false, nil
}

// assemble joins the records that carry the first handshake message. It copies
// only if there is more than one.
func assemble(b []byte) (msg []byte, more bool, err error) {
	var joined []byte
	for at := 0; ; {
		rest := b[at:]
		if len(rest) > 0 && rest[0] != 22 || len(rest) > 1 && rest[1] != 3 {
			return nil, false, errNotTLS
		}
		if len(rest) < 5 {
			return nil, true, nil
		}
		n := int(rest[3])<<8 | int(rest[4])
		if n == 0 || n > 1<<14 {
			return nil, false, errNotTLS
		}
		part := rest[5:min(len(rest), 5+n)]
		if at == 0 {
			msg = part
		} else {
			if joined == nil {
				joined = append(joined, msg...)
			}
			joined = append(joined, part...)
			msg = joined
		}
		if len(msg) > 0 && msg[0] != 1 {
			return nil, false, errNotTLS
		}
		if len(msg) >= 4 {
			size := int(msg[1])<<16 | int(msg[2])<<8 | int(msg[3])
			switch {
			case size > MaxHello:
				return nil, false, errTooLong
			case len(msg) >= 4+size:
				return msg[4 : 4+size], false, nil
			}
		}
		if at += 5 + n; at >= len(b) {
			if len(b) >= MaxHello {
				return nil, false, errTooLong
			}
			return nil, true, nil
		}
		if at > MaxHello {
			return nil, false, errTooLong
		}
	}
}

// cursor takes fields of a message one by one; after one that is not there, ok
// is false for ever.
type cursor struct {
	b  []byte
	ok bool
}

func (c *cursor) take(n int) []byte {
	if !c.ok || n > len(c.b) {
		c.ok = false
		return nil
	}
	v := c.b[:n]
	c.b = c.b[n:]
	return v
}

// vector takes a field after its length in width bytes.
func (c *cursor) vector(width int) []byte {
	n := 0
	for _, x := range c.take(width) {
		n = n<<8 | int(x)
	}
	return c.take(n)
}

func (c *cursor) inner(width int) *cursor {
	v := c.vector(width)
	return &cursor{b: v, ok: c.ok}
}

func parseHello(msg []byte) (name string, alpn []string, ok bool) {
	c := &cursor{b: msg, ok: true}
	c.take(2 + 32) // version, random
	c.vector(1)    // session
	c.vector(2)    // cipher suites
	c.vector(1)    // compression
	if !c.ok {
		return "", nil, false
	}
	if len(c.b) == 0 {
		return "", nil, true
	}
	exts := c.inner(2)
	if !exts.ok || len(c.b) > 0 {
		return "", nil, false
	}
	var sni, protocols bool
	for len(exts.b) > 0 {
		kind := exts.take(2)
		body := exts.inner(2)
		if !exts.ok || !body.ok {
			return "", nil, false
		}
		switch {
		case kind[0] == 0 && kind[1] == 0:
			if sni {
				return "", nil, false
			}
			sni = true
			if name, ok = parseName(body.inner(2)); !ok {
				return "", nil, false
			}
		case kind[0] == 0 && kind[1] == 16:
			if protocols {
				return "", nil, false
			}
			protocols = true
			list := body.inner(2)
			for len(list.b) > 0 {
				p := list.vector(1)
				if !list.ok || len(p) == 0 {
					return "", nil, false
				}
				alpn = append(alpn, string(p))
			}
			if !list.ok {
				return "", nil, false
			}
		}
	}
	return name, alpn, exts.ok
}

// parseName reads a server_name extension (RFC 6066, 3).
func parseName(list *cursor) (name string, ok bool) {
	for len(list.b) > 0 {
		kind := list.take(1)
		v := list.vector(2)
		if !list.ok {
			return "", false
		}
		if kind[0] != 0 {
			continue
		}
		if name != "" || len(v) == 0 || len(v) > 255 || strings.ContainsFunc(string(v), func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
			return "", false
		}
		name = string(v)
	}
	return name, list.ok
}
