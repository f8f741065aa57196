package h1

import (
	"github.com/fingerpost/fingerpost/wire/http"
)

// Bounds of what a chunked body may carry besides its data.
const (
	maxTrailer  = 8 << 10 // bytes of trailers
	maxTrailers = 64      // lines of trailers
	maxExt      = 1 << 10 // bytes of one chunk's extensions
	extBudget   = 16 << 10
	sizeDigits  = 16
)

// Chunks decodes a chunked body (RFC 9112, 7.1). The zero value is at the
// start of one.
type Chunks struct {
	// Trailers are the fields after the body, valid once it has ended and until
	// Reset.
	Trailers http.Fields

	left   int64 // of the data of this chunk
	raw    []byte
	spent  int // bytes of extensions, less what data paid for
	ext    int // bytes of this chunk's extensions
	digits uint8
	state  uint8
}

// Where the decoder is.
const (
	atSize    = iota // in the digits of a size, or before them
	atExt            // after the digits
	atSizeLF         // after the CR of the size line
	atData           // before or in the data
	atDataCR         // after the data
	atDataLF         // after its CR
	atTrailer        // after the last chunk
	atEnd
	atFault // after an error
)

// Reset makes it ready for another body. Trailers lose their room in the
// decoder's own buffer.
func (c *Chunks) Reset() {
	*c = Chunks{Trailers: c.Trailers[:0], raw: c.raw[:0]}
}

// Next decodes the next part of a body from b. It used the first used bytes of b, in
// which data is the next part of the body, if there was any; end says that the
// body, with its trailers, ended after them. Without an error and without end, all
// of b is used unless data is returned. After the end it uses nothing more, and after
// an error it gives an error for whatever comes. An error is an *Error with status 400.
func (c *Chunks) Next(b []byte) (used int, data []byte, end bool, err error) {
	used, err = c.frame(b)
	if err != nil {
		c.state = atFault
		return used, nil, false, err
	}
	if c.state != atData {
		return used, nil, c.state == atEnd, nil
	}
	if used == len(b) {
		return used, nil, false, nil
	}
	n := len(b) - used
	if int64(n) > c.left {
		n = int(c.left)
	}
	data = b[used : used+n : used+n]
	used += n
	c.left -= int64(n)
	if c.spent > 0 {
		c.spent = max(0, c.spent-n/4)
	}
	if c.left > 0 {
		return used, data, false, nil
	}
	// What frames the next chunk is read at once, so that the last data comes
	// with the end. What is wrong about it is told by the next call.
	c.state = atDataCR
	after := *c
	n, err = after.frame(b[used:])
	if err != nil {
		return used, data, false, nil
	}
	*c = after
	return used + n, data, c.state == atEnd, nil
}

// frame reads what is between data, up to the next data or the end.
func (c *Chunks) frame(b []byte) (int, error) {
	for i, x := range b {
		switch c.state {
		case atSize:
			if d := unhex(x); d < 16 {
				if c.digits++; c.digits > sizeDigits || c.left >= 1<<59 {
					return i, malformed("chunk size too large")
				}
				c.left = c.left<<4 | int64(d)
				continue
			}
			if c.digits == 0 {
				return i, malformed("invalid chunk size")
			}
			c.ext = 0
			switch x {
			case '\r':
				c.state = atSizeLF
			case ';':
				c.state = atExt
			default:
				return i, malformed("invalid chunk size")
			}
		case atExt:
			if x == '\r' {
				c.state = atSizeLF
				continue
			}
			if x < ' ' && x != '\t' || x == 0x7f {
				return i, malformed("invalid chunk extension")
			}
			c.ext++
			if c.spent++; c.ext > maxExt || c.spent > extBudget {
				return i, malformed("chunk extensions longer than allowed")
			}
		case atSizeLF:
			if x != '\n' {
				return i, malformed("chunk size not ended by CRLF")
			}
			c.digits = 0
			if c.left > 0 {
				c.state = atData
				return i + 1, nil
			}
			c.state = atTrailer
		case atData, atEnd:
			return i, nil
		case atDataCR:
			if x != '\r' {
				return i, malformed("chunk longer than its size")
			}
			c.state = atDataLF
		case atDataLF:
			if x != '\n' {
				return i, malformed("chunk not ended by CRLF")
			}
			c.state = atSize
		case atFault:
			return i, malformed("chunked body after an error")
		case atTrailer:
			n, err := c.trailer(b[i:])
			return i + n, err
		}
	}
	return len(b), nil
}

func unhex(x byte) byte {
	switch {
	case '0' <= x && x <= '9':
		return x - '0'
	case 'a' <= x|0x20 && x|0x20 <= 'f':
		return x | 0x20 - 'a' + 10
	}
	return 16
}

// trailer reads lines up to the empty one. They are collected, because who reads
// the body reuses the buffer.
func (c *Chunks) trailer(b []byte) (int, error) {
	if len(c.raw) == 0 && len(b) >= 2 && b[0] == '\r' && b[1] == '\n' {
		c.state = atEnd
		return 2, nil
	}
	for i, x := range b {
		if len(c.raw) == maxTrailer {
			return i, malformed("trailers longer than allowed")
		}
		c.raw = append(c.raw, x)
		if x != '\n' {
			continue
		}
		if n := len(c.raw); n > 2 && c.raw[n-3] != '\n' && c.raw[n-2] == '\r' {
			continue
		}
		var h head
		n, err := parseFields(c.raw, 0, maxTrailers, &c.Trailers, &h)
		if err != nil {
			return i, blame400(err)
		}
		if n == 0 {
			return i, malformed("trailers not ended by CRLF")
		}
		c.allow()
		c.state = atEnd
		return i + 1, nil
	}
	return len(b), nil
}

// allow keeps what may be a trailer.
func (c *Chunks) allow() {
	out := c.Trailers[:0]
	for _, f := range c.Trailers {
		if !forbidden(f.ID, f.Name) {
			out = append(out, f)
		}
	}
	c.Trailers = out
}

// forbidden names what must not come in trailers (RFC 9110, 6.5.1): framing, routing,
// request modifiers, authentication, and what says how to read the body.
// Well-known names are allowed one by one.
func forbidden(id http.ID, name []byte) bool {
	switch id {
	case http.Other:
	case http.ETag, http.GrpcStatus, http.GrpcMessage, http.Server, http.Via, http.Traceparent, http.Tracestate, http.XRequestID, http.Date, http.LastModified:
		return false
	default:
		return true
	}
	switch len(name) {
	case 3:
		return fold(name, "age")
	case 6:
		return fold(name, "pragma")
	case 7:
		return fold(name, "expires") || fold(name, "warning") || fold(name, "cookie2")
	case 8:
		return fold(name, "if-match") || fold(name, "if-range")
	case 11:
		return fold(name, "set-cookie2")
	case 12:
		return fold(name, "max-forwards")
	case 13:
		return fold(name, "content-range")
	case 18:
		return fold(name, "proxy-authenticate")
	case 19:
		return fold(name, "if-unmodified-since")
	}
	return false
}

// blame400 makes any error about trailers one of 400: the response to the request
// may have begun.
func blame400(err error) error {
	if e, ok := err.(*Error); ok {
		return malformed(e.Reason)
	}
	return err
}
