package http

import "unsafe"

// Field is one field line of a head or of trailers. Name keeps the case in
// which it came; ID says which of the well-known names it is, so that nobody
// compares names twice.
type Field struct {
	ID          ID
	Name, Value []byte
}

// Fields are field lines in the order in which they came.
type Fields []Field

// Version is a version of HTTP.
type Version uint8

// The versions that are spoken.
const (
	HTTP10 Version = iota
	HTTP11
	HTTP2
)

// Unknown is the length of a body whose end is seen only when it comes:
// chunked, until the connection closes, or HTTP/2 without content-length.
const Unknown int64 = -1

// Request is the head of a request. Fields hold neither Host nor what frames
// the body or governs the connection (Connection, Keep-Alive, Proxy-Connection,
// Transfer-Encoding, Content-Length, Upgrade, TE, HTTP2-Settings and what Connection
// names): a decoder has drawn the conclusions from these and left them out. Trailer
// is among them if trailers may follow.
type Request struct {
	Version   Version
	Method    []byte // case-sensitive token
	Authority []byte // host and port as sent; empty only in HTTP/1.0
	Path      []byte // origin form with query, "*" for OPTIONS *; empty for CONNECT
	Fields    Fields
	Length    int64  // of the body: 0 none, Unknown, or bytes
	Upgrade   []byte // the protocol asked for: Upgrade, or :protocol of RFC 8441; nil: none
	Close     bool   // the connection is not to be used after this exchange
	Expect    bool   // 100-continue is waited for
	Trailers  bool   // TE: trailers
}

// Response is the head of a response. Fields leave out the same as in a
// Request.
type Response struct {
	Version  Version
	Status   int // 100–999
	Fields   Fields
	Length   int64  // of the body: 0 none, Unknown, or bytes
	Upgrade  []byte // of a 101: the protocol from here on
	Close    bool
	Declared bool // Length was in Content-Length, also where no body follows (HEAD, 304)
}

// Reset makes the request empty and keeps the room of its fields.
func (r *Request) Reset() { *r = Request{Fields: r.Fields[:0]} }

// Reset makes the response empty and keeps the room of its fields.
func (r *Response) Reset() { *r = Response{Fields: r.Fields[:0]} }

// Get gives the value of the first field with a well-known name, nil if there
// is none.
func (f Fields) Get(id ID) []byte {
	for i := range f {
		if f[i].ID == id {
			return f[i].Value
		}
	}
	return nil
}

// Lookup gives the value of the first field of this name, in any case.
func (f Fields) Lookup(name []byte) []byte {
	if id := Identify(name); id != Other {
		return f.Get(id)
	}
	for i := range f {
		if f[i].ID == Other && EqualFold(f[i].Name, name) {
			return f[i].Value
		}
	}
	return nil
}

// Set replaces all fields of a well-known name by one.
func (f *Fields) Set(id ID, value []byte) {
	f.Del(id)
	*f = append(*f, Field{ID: id, Name: id.Bytes(), Value: value})
}

// Add appends a field with a well-known name.
func (f *Fields) Add(id ID, value []byte) {
	*f = append(*f, Field{ID: id, Name: id.Bytes(), Value: value})
}

// AddNamed appends a field with any name.
func (f *Fields) AddNamed(name, value []byte) {
	*f = append(*f, Field{ID: Identify(name), Name: name, Value: value})
}

// Del removes all fields of a well-known name.
func (f *Fields) Del(id ID) {
	out := (*f)[:0]
	for _, x := range *f {
		if x.ID != id {
			out = append(out, x)
		}
	}
	*f = out
}

// DelNamed removes all fields of this name, in any case.
func (f *Fields) DelNamed(name []byte) {
	id := Identify(name)
	if id != Other {
		f.Del(id)
		return
	}
	out := (*f)[:0]
	for _, x := range *f {
		if x.ID != Other || !EqualFold(x.Name, name) {
			out = append(out, x)
		}
	}
	*f = out
}

// EqualFold compares two ASCII strings without regard to case.
func EqualFold(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i, x := range a {
		y := b[i]
		if x != y && (x|0x20 != y|0x20 || x|0x20 < 'a' || x|0x20 > 'z') {
			return false
		}
	}
	return true
}

// Bytes gives the name in its usual case. It must not be modified.
func (id ID) Bytes() []byte { return unsafe.Slice(unsafe.StringData(id.Text()), len(id.Text())) }
