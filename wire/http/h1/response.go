package h1

import (
	"encoding/binary"

	"github.com/fingerpost/fingerpost/wire/http"
)

// ParseResponse parses the head of a response at the start of b into r; toMethod is
// that of the request. n is its length; 0 without an error says that it is not
// complete, and r holds nothing then. err is an *Error with status 502.
func ParseResponse(b []byte, r *http.Response, toMethod []byte, l *Limits) (n int, f Framing, err error) {
	r.Reset()
	maxHead, maxFields, _ := l.resolve()
	h := head{lenient: true}
	n, err = parseResponse(b, r, &h, maxFields)
	switch {
	case err != nil:
		err = blame(err)
	case n > maxHead || n == 0 && len(b) >= maxHead:
		err = &Error{502, "head larger than allowed"}
	case n > 0:
		f, err = h.response(r, toMethod)
		h.announce(&r.Fields, f.Chunked)
	}
	if n == 0 || err != nil {
		r.Reset()
		return 0, Framing{}, err
	}
	return n, f, nil
}

func parseResponse(b []byte, r *http.Response, h *head, maxFields int) (int, error) {
	// The shortest status line is "HTTP/1.1 200\r\n".
	if len(b) < 14 {
		if line := "HTTP/1."; len(b) > 0 && string(b[:min(len(b), 7)]) != line[:min(len(b), 7)] {
			return 0, malformed("invalid version")
		}
		return 0, nil
	}
	switch v := binary.LittleEndian.Uint64(b); {
	case v == http11:
		r.Version = http.HTTP11
	case v == http10:
		r.Version = http.HTTP10
	default:
		return 0, malformed("invalid version")
	}
	if b[8] != ' ' || b[9] == '0' || class[b[9]]&class[b[10]]&class[b[11]]&isDigit == 0 || b[12] != ' ' && b[12] != '\r' {
		return 0, malformed("invalid status line")
	}
	r.Status = int(b[9]-'0')*100 + int(b[10]-'0')*10 + int(b[11]-'0')
	p := lineEnd(b, 12)
	if p < 0 {
		if p == bad {
			return 0, malformed("invalid reason phrase")
		}
		return 0, nil
	}
	return parseFields(b, p+2, maxFields, &r.Fields, h)
}

// response checks what the fields of a response say together.
func (h *head) response(r *http.Response, toMethod []byte) (f Framing, err error) {
	r.Close = h.close || r.Version == http.HTTP10 && !h.keepAlive
	if r.Status/100 == 2 && isConnect(toMethod) {
		return f, nil // RFC 9110, 9.3.6: whatever it declares is to be ignored
	}
	switch {
	case h.lengths > 0 && h.encodings > 0:
		return f, malformed502("Content-Length and Transfer-Encoding")
	case h.conflict:
		return f, malformed502("invalid Content-Length")
	case h.encodings > 1:
		return f, malformed502("more than one Transfer-Encoding")
	case h.encodings == 1 && !h.chunked:
		return f, malformed502("transfer coding not supported")
	case h.encodings == 1 && r.Version == http.HTTP10:
		return f, malformed502("Transfer-Encoding in HTTP/1.0")
	}
	if r.Status < 200 || r.Status == 204 {
		// RFC 9110, 8.6 and RFC 9112, 6.1: they declare no length. If one does,
		// nobody knows what follows; after a 204 at least nothing must.
		if h.encodings > 0 || h.length > 0 {
			if r.Status < 200 {
				return f, malformed502("interim response with a body")
			}
			r.Close = true
		}
		if r.Status == 101 {
			r.Upgrade = h.protocol()
		}
		return f, nil
	}
	r.Declared = h.lengths > 0
	if r.Status == 304 || len(toMethod) == 4 && string(toMethod) == "HEAD" {
		r.Length = h.length
		return f, nil
	}
	switch {
	case h.encodings > 0:
		f.Chunked = true
		r.Length = http.Unknown
	case h.lengths > 0:
		f.Length = h.length
		r.Length = h.length
	default:
		f.UntilClose = true
		r.Length = http.Unknown
		r.Close = true
	}
	return f, nil
}

func malformed502(reason string) error { return &Error{502, reason} }

func isConnect(method []byte) bool { return len(method) == 7 && string(method) == "CONNECT" }
