package h1

import (
	"bytes"

	"github.com/fingerpost/fingerpost/wire/http"
)

// head is what the fields of a message say about its framing and its connection.
type head struct {
	host      []byte
	upgrade   []byte
	length    int64 // of Content-Length
	hosts     int
	lengths   int
	encodings int
	upgrades  int
	conflict  bool // Content-Lengths differ, or one is not a number
	chunked   bool // the only Transfer-Encoding is chunked
	close     bool
	keepAlive bool
	upgrading bool // Connection lists upgrade
	named     bool // Connection names fields to be dropped
	trailers  bool
	announced bool // there is a Trailer
	expect    bool
	lenient   bool // it is a response: see the package's comment
}

// maxOptions bounds what Connection may name: each costs a pass over the fields.
const maxOptions = 16

// parseFields parses field lines from b[p:] up to and with the empty line. It
// gives the index after it, or 0 if there are more to come.
func parseFields(b []byte, p, max int, to *http.Fields, h *head) (int, error) {
	start, count := p, 0
	fields := (*to)[:0]
	for {
		if p+1 < len(b) && b[p] == '\r' && b[p+1] == '\n' {
			break
		}
		// A well-known name needs no look at its bytes. Past the end of a line
		// there is none: no name has a colon, or a CR.
		q := colonAt(b, p)
		name := b[p:q:q]
		id := http.Identify(name)
		if id == http.Other || q == len(b) {
			colon := q
			q = p
			for q < len(b) && class[b[q]]&inToken != 0 {
				q++
			}
			if q == len(b) {
				return 0, nil
			}
			name = b[p:q:q]
			if b[q] != ':' || q == p {
				if b[q] == '\r' && q == p && q+1 == len(b) {
					return 0, nil
				}
				var err error
				if q, err = h.colon(b, p, q); q == 0 || err != nil {
					return 0, err
				}
			}
			if p+len(name) != colon {
				id = http.Identify(name)
			}
		}
		if count++; count > max {
			return 0, &Error{431, "more fields than allowed"}
		}
		q++
		for q < len(b) && (b[q] == ' ' || b[q] == '\t') {
			q++
		}
		end := lineEnd(b, q)
		if end < 0 {
			if end == bad {
				return 0, malformed("control character in a field")
			}
			return 0, nil
		}
		p = end + 2
		for end > q && (b[end-1] == ' ' || b[end-1] == '\t') {
			end--
		}
		value := b[q:end:end]
		if id != http.Other && id <= http.Expect {
			keep, err := h.field(id, value)
			if err != nil {
				return 0, err
			}
			if !keep {
				continue
			}
		}
		if len(fields) == cap(fields) {
			fields = append(fields, http.Field{})
		} else {
			fields = fields[:len(fields)+1]
		}
		f := &fields[len(fields)-1]
		f.ID, f.Name, f.Value = id, name, value
	}
	*to = fields
	if h.named {
		if err := dropNamed(b[start:p], to); err != nil {
			return 0, err
		}
	}
	return p + 2, nil
}

// colon looks for it after b[q], which ended a name and is none. Space before it
// is removed from responses, as RFC 9112, 5.1 demands of proxies, but not where
// it would decide about framing.
func (h *head) colon(b []byte, p, q int) (int, error) {
	i := q
	for i < len(b) && (b[i] == ' ' || b[i] == '\t') {
		i++
	}
	if !h.lenient || q == p || i == q || i < len(b) && b[i] != ':' {
		return 0, badName(b, p, q)
	}
	if i == len(b) {
		return 0, nil
	}
	switch http.Identify(b[p:q]) {
	case http.ContentLength, http.TransferEncoding:
		return 0, badName(b, p, q)
	}
	return i, nil
}

func badName(b []byte, p, q int) error {
	switch {
	case q == p && (b[q] == ' ' || b[q] == '\t'):
		return malformed("folded line")
	case b[q] == ' ' || b[q] == '\t':
		return malformed("space before the colon of a field")
	case b[q] == '\n' || b[q] == '\r':
		return malformed("line without colon, or not ended by CRLF")
	case b[q] == ':':
		return malformed("field without a name")
	}
	return malformed("invalid character in a field name")
}

// field draws the conclusions of one of the first IDs; keep says that it stays
// among the fields.
func (h *head) field(id http.ID, v []byte) (keep bool, err error) {
	switch id {
	case http.Host:
		h.hosts++
		h.host = v
	case http.ContentLength:
		h.contentLength(v)
	case http.TransferEncoding:
		h.encodings++
		h.chunked = fold(v, "chunked")
	case http.Connection:
		return false, h.connection(v)
	case http.Upgrade:
		h.upgrades++
		h.upgrade = v
	case http.TE:
		for len(v) > 0 {
			var t []byte
			if t, v = item(v); fold(t, "trailers") {
				h.trailers = true
			}
		}
	case http.Trailer:
		h.announced = true
		return true, nil
	case http.Expect:
		h.expect = h.expect || fold(v, "100-continue")
		return true, nil
	}
	return false, nil
}

// announce leaves Trailer out if none can follow.
func (h *head) announce(f *http.Fields, chunked bool) {
	if h.announced && !chunked {
		f.Del(http.Trailer)
	}
}

// contentLength reads a number, or a list of them: each counts.
func (h *head) contentLength(v []byte) {
	for comma := true; comma; {
		one := v
		if comma = false; len(v) > 1 {
			if i := bytes.IndexByte(v, ','); i >= 0 {
				one, v, comma = trim(v[:i]), trim(v[i+1:]), true
			}
		}
		n, ok := number(one)
		if !ok || h.lengths > 0 && n != h.length {
			h.conflict = true
			return
		}
		h.lengths++
		h.length = n
	}
}

func number(v []byte) (n int64, ok bool) {
	if len(v) == 0 || len(v) > 18 {
		return 0, false
	}
	for _, c := range v {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

func (h *head) connection(v []byte) error {
	// What nearly all send is told by its first letter.
	if len(v) == 10 && fold(v, "keep-alive") {
		h.keepAlive = true
		return nil
	}
	for len(v) > 0 {
		var o []byte
		o, v = item(v)
		switch {
		case len(o) == 0:
		case fold(o, "close"):
			h.close = true
		case fold(o, "keep-alive"):
			h.keepAlive = true
		case fold(o, "upgrade"):
			h.upgrading = true
		case !isToken(o):
			if h.lenient {
				continue
			}
			return malformed("invalid Connection")
		case http.Identify(o) == http.Other:
			h.named = true
		}
	}
	return nil
}

// dropNamed drops the fields that Connection names. It reads the lines again:
// nearly nobody names any, so that nothing is remembered in the first pass.
func dropNamed(lines []byte, fields *http.Fields) error {
	options := 0
	for len(lines) > 0 {
		end := bytes.IndexByte(lines, '\n')
		line := lines[:end-1]
		lines = lines[end+1:]
		colon := bytes.IndexByte(line, ':')
		if http.Identify(trim(line[:colon])) != http.Connection {
			continue
		}
		for v := line[colon+1:]; len(v) > 0; {
			var o []byte
			o, v = item(v)
			if len(o) == 0 || fold(o, "close") || http.Identify(o) != http.Other {
				continue
			}
			if options++; options > maxOptions {
				return malformed("too many connection options")
			}
			fields.DelNamed(o)
		}
	}
	return nil
}

// protocol is what Upgrade asks for, if that may be passed on.
func (h *head) protocol() []byte {
	if !h.upgrading || h.upgrades != 1 || len(h.upgrade) == 0 {
		return nil
	}
	for v := h.upgrade; len(v) > 0; {
		var p []byte
		if p, v = item(v); fold(p, "h2c") {
			return nil
		}
	}
	return h.upgrade
}

// Ended says whether the end of a head may be in b, of which the first from bytes
// were there when parsing it gave 0. It saves a caller from parsing a long head
// again for every few bytes of it: only an empty line, or a line that is wrong, makes a
// difference.
func Ended(b []byte, from int) bool {
	for i := from; i < len(b); i++ {
		j := bytes.IndexByte(b[i:], '\n')
		if j < 0 {
			return false
		}
		i += j
		if i < 3 || b[i-1] != '\r' || b[i-2] == '\n' {
			return true
		}
	}
	return false
}
