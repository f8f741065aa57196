package h1

import (
	"encoding/binary"

	"github.com/fingerpost/fingerpost/wire/http"
)

// Framing says how the body after a head is delimited: chunked, by the end of the
// connection, or after Length bytes (0: no body).
type Framing struct {
	Chunked    bool
	Length     int64
	UntilClose bool
}

const (
	http10 = 0x302e312f50545448 // "HTTP/1.0", little endian
	http11 = 0x312e312f50545448
)

// maxMethod is longer than any method: a longer one is not known here.
const maxMethod = 32

// ParseRequest parses the head of a request at the start of b into r. n is its
// length with what was skipped before it; 0 without an error says that it is not
// complete, and r holds nothing then. Which requests are refused is in the package's
// comment; err is an *Error.
func ParseRequest(b []byte, r *http.Request, l *Limits) (n int, f Framing, err error) {
	r.Reset()
	maxHead, maxFields, maxLine := l.resolve()
	var h head
	n, err = parseRequest(b, r, &h, maxFields, maxLine)
	switch {
	case err != nil:
	case n > maxHead || n == 0 && len(b) >= maxHead:
		err = &Error{431, "head larger than allowed"}
	case n > 0:
		if f, err = h.request(r); err == nil {
			h.announce(&r.Fields, f.Chunked)
			return n, f, nil
		}
	}
	r.Reset()
	return 0, Framing{}, err
}

func parseRequest(b []byte, r *http.Request, h *head, maxFields, maxLine int) (int, error) {
	p := 0
	for p < len(b) && b[p] == '\r' {
		if p+1 == len(b) {
			return 0, nil
		}
		if b[p+1] != '\n' || p == 8 {
			return 0, malformed("empty lines before the request")
		}
		p += 2
	}
	q := p
	for q < len(b) && class[b[q]]&inToken != 0 {
		q++
	}
	if q-p > maxMethod {
		return 0, &Error{501, "unknown method"}
	}
	if q == len(b) {
		return 0, nil
	}
	if b[q] != ' ' || q == p {
		return 0, malformed("invalid method")
	}
	r.Method = b[p:q:q]
	p = q + 1
	q = targetEnd(b, p)
	if q-p > maxLine {
		return 0, &Error{414, "request target longer than allowed"}
	}
	if q == len(b) {
		return 0, nil
	}
	if b[q] != ' ' || q == p {
		return 0, malformed("invalid request target")
	}
	target := b[p:q:q]
	p = q + 1
	if len(b)-p < 10 {
		if end := lineEnd(b, p); end != more {
			return 0, malformed("invalid version")
		}
		return 0, nil
	}
	switch v := binary.LittleEndian.Uint64(b[p:]); {
	case v == http11:
		r.Version = http.HTTP11
	case v == http10:
		r.Version = http.HTTP10
	default:
		return 0, badVersion(b[p : p+10])
	}
	if b[p+8] != '\r' || b[p+9] != '\n' {
		return 0, malformed("request line not ended by CRLF")
	}
	p, err := parseFields(b, p+10, maxFields, &r.Fields, h)
	if p == 0 || err != nil {
		return 0, err
	}
	return p, splitTarget(r, target)
}

func badVersion(v []byte) error {
	if string(v[:5]) == "HTTP/" && class[v[5]]&isDigit != 0 && v[6] == '.' && class[v[7]]&isDigit != 0 && v[8] == '\r' && v[9] == '\n' {
		return &Error{505, "version of HTTP not supported"}
	}
	return malformed("invalid version")
}

// request checks what the fields of a request say together.
func (h *head) request(r *http.Request) (f Framing, err error) {
	switch {
	case h.hosts > 1:
		return f, malformed("more than one Host")
	case h.hosts == 1 && len(h.host) > 0 && !http.ValidAuthority(h.host):
		return f, malformed("invalid Host")
	case r.Version == http.HTTP11 && len(h.host) == 0:
		return f, malformed("no Host")
	case r.Authority == nil:
		r.Authority = h.host
	case h.hosts == 1 && !sameAuthority(h.host, r.Authority):
		return f, malformed("Host is not that of the target")
	}
	switch {
	case h.encodings > 0:
		switch {
		case h.lengths > 0 || h.conflict:
			return f, malformed("Content-Length and Transfer-Encoding")
		case r.Version == http.HTTP10:
			return f, malformed("Transfer-Encoding in HTTP/1.0")
		case h.encodings > 1:
			return f, malformed("more than one Transfer-Encoding")
		case !h.chunked:
			return f, &Error{501, "transfer coding not supported"}
		}
		f.Chunked = true
		r.Length = http.Unknown
	case h.conflict:
		return f, malformed("invalid Content-Length")
	case h.lengths > 1:
		return f, malformed("more than one Content-Length")
	case h.lengths == 1:
		f.Length = h.length
		r.Length = h.length
	}
	if r.Length != 0 && isConnect(r.Method) {
		return Framing{}, malformed("CONNECT with a body")
	}
	if r.Version == http.HTTP10 {
		r.Close = h.close || !h.keepAlive
		return f, nil
	}
	r.Close = h.close
	r.Expect = h.expect
	r.Trailers = h.trailers
	if h.upgrading {
		r.Upgrade = h.protocol()
	}
	return f, nil
}
