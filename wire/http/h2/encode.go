package h2

import (
	"bytes"
	"encoding/binary"

	"github.com/fingerpost/fingerpost/wire/http"
)

// Encoder encodes the blocks of one direction of a connection. The zero value is
// ready.
//
// A field goes into the table when it comes for the second time: what differs
// from message to message then does not push out what repeats.
type Encoder struct {
	table  table
	ready  bool
	lowest int  // the smallest size since the last block
	resize bool // the peer is to be told of a new size
	seen   [64]uint32
	name   [64]byte // of a field that is not well known, in lower case
	number [20]byte
}

// SetTableSize takes the peer's SETTINGS_HEADER_TABLE_SIZE. More than the default
// is not used.
func (e *Encoder) SetTableSize(n uint32) {
	size := int(min(n, TableSize))
	e.start()
	if size == e.table.max {
		return
	}
	switch {
	case !e.resize || size < e.lowest:
		e.lowest = size
	case size > e.lowest:
		// Of a size that went down and up again the lowest must be told (RFC 7541,
		// 4.2). Some decoders take two updates in a row only if the first one
		// empties the table.
		e.lowest = 0
		e.table.resize(0)
	}
	e.resize = true
	e.table.resize(size)
}

func (e *Encoder) start() {
	if !e.ready {
		e.ready = true
		e.table.max = TableSize
	}
}

func (e *Encoder) begin(dst []byte) []byte {
	e.start()
	if !e.resize {
		return dst
	}
	e.resize = false
	if e.lowest < e.table.max {
		dst = appendInteger(dst, 0x20, 5, e.lowest)
	}
	return appendInteger(dst, 0x20, 5, e.table.max)
}

// AppendRequest encodes the head of a request. https is the scheme. An
// Upgrade becomes an extended CONNECT (RFC 8441).
func (e *Encoder) AppendRequest(dst []byte, r *http.Request, https bool) []byte {
	dst = e.begin(dst)
	method := r.Method
	if r.Upgrade != nil {
		method = connectText
	}
	switch string(method) {
	case "GET":
		dst = append(dst, 0x80|2)
	case "POST":
		dst = append(dst, 0x80|3)
	default:
		dst = e.field(dst, 2, http.Other, static.entries[2].name, method)
	}
	if r.Upgrade != nil || string(method) != "CONNECT" {
		if https {
			dst = append(dst, 0x80|7)
		} else {
			dst = append(dst, 0x80|6)
		}
		if len(r.Path) == 1 && r.Path[0] == '/' {
			dst = append(dst, 0x80|4)
		} else {
			dst = e.field(dst, 4, http.Other, static.entries[4].name, r.Path)
		}
	}
	if len(r.Authority) > 0 {
		dst = e.field(dst, 1, http.Other, static.entries[1].name, r.Authority)
	}
	if r.Upgrade != nil {
		dst = e.field(dst, 0, http.Other, protocolText, r.Upgrade)
	} else if r.Length > 0 || r.Length == 0 && hasBody(method) {
		dst = e.length(dst, r.Length)
	}
	if r.Trailers {
		dst = e.field(dst, 0, http.TE, nil, trailersText)
	}
	if r.Expect {
		dst = e.field(dst, 35, http.Expect, nil, continueText)
	}
	return e.fields(dst, r.Fields)
}

var protocolText = []byte(":protocol")

// hasBody: methods for which a body is expected say so when there is none
// (RFC 9110, 8.6).
func hasBody(method []byte) bool {
	switch string(method) {
	case "POST", "PUT", "PATCH":
		return true
	}
	return false
}

// AppendResponse encodes the head of a response with this status. It says the
// length if the response has one and the status allows for it.
func (e *Encoder) AppendResponse(dst []byte, status int, r *http.Response) []byte {
	dst = e.begin(dst)
	switch status {
	case 200:
		dst = append(dst, 0x80|8)
	case 204:
		dst = append(dst, 0x80|9)
	case 206:
		dst = append(dst, 0x80|10)
	case 304:
		dst = append(dst, 0x80|11)
	case 400:
		dst = append(dst, 0x80|12)
	case 404:
		dst = append(dst, 0x80|13)
	case 500:
		dst = append(dst, 0x80|14)
	default:
		e.number[0], e.number[1], e.number[2] = byte('0'+status/100%10), byte('0'+status/10%10), byte('0'+status%10)
		dst = e.field(dst, 8, http.Other, static.entries[8].name, e.number[:3])
	}
	if status >= 200 && status != 204 && r.Upgrade == nil && r.Status != 101 && r.Length >= 0 && (status != 304 || r.Declared) {
		dst = e.length(dst, r.Length)
	}
	return e.fields(dst, r.Fields)
}

// AppendTrailers encodes the fields after a body.
func (e *Encoder) AppendTrailers(dst []byte, f http.Fields) []byte {
	return e.fields(e.begin(dst), f)
}

func (e *Encoder) length(dst []byte, n int64) []byte {
	i := len(e.number)
	for {
		i--
		e.number[i] = byte('0' + n%10)
		if n /= 10; n == 0 {
			break
		}
	}
	return e.field(dst, 28, http.ContentLength, nil, e.number[i:])
}

func (e *Encoder) fields(dst []byte, f http.Fields) []byte {
	for i := range f {
		switch id := f[i].ID; id {
		case http.Connection, http.KeepAlive, http.ProxyConnection, http.TransferEncoding, http.ContentLength,
			http.Upgrade, http.TE, http.HTTP2Settings, http.Host,
			http.SecWebSocketKey, http.SecWebSocketAccept:
			// They are not of HTTP/2 (RFC 8441, 5, for the last two), or said by the struct.
		case http.Other:
			dst = e.field(dst, 0, id, f[i].Name, f[i].Value)
		default:
			dst = e.field(dst, int(static.index[id]), id, nil, f[i].Value)
		}
	}
	return dst
}

// field encodes one field. index is that of the name in the static table, or
// 0. name is in any case, and not needed if the id says it.
func (e *Encoder) field(dst []byte, index int, id http.ID, name, value []byte) []byte {
	if id != http.Other {
		name = static.lower[id]
	} else if index == 0 {
		// A long name is rare enough for the way that costs an allocation.
		name = appendLower(e.name[:0], name)
		index = nameIndex(name)
	}
	switch id {
	case http.Authorization, http.ProxyAuthorization, http.Cookie, http.SetCookie:
		// RFC 7541, 7.1.3: what an attacker could guess byte by byte.
		return appendLiteral(dst, 0x10, 4, index, name, value)
	}
	if len(value)+len(name) > 512 {
		return appendLiteral(dst, 0, 4, index, name, value)
	}
	h := hash(id, index, name, value)
	for i := range e.table.n {
		r := e.table.row(i)
		if r.hash != h || int(r.size)-int(r.name) != len(value) {
			continue
		}
		text := e.table.text[r.at : int(r.at)+int(r.size)]
		if bytes.Equal(text[r.name:], value) && bytes.Equal(text[:r.name], name) {
			return appendInteger(dst, 0x80, 7, len(static.entries)+i)
		}
	}
	if slot := &e.seen[h>>26]; *slot != h || e.table.max == 0 {
		*slot = h
		return appendLiteral(dst, 0, 4, index, name, value)
	}
	dst = appendLiteral(dst, 0x40, 6, index, name, value)
	x := entry{name: name, value: value, id: id}
	e.table.add(&x, h)
	return dst
}

// hash tells fields apart; it is 0 for none.
func hash(id http.ID, index int, name, value []byte) uint32 {
	const prime = 0x9e3779b97f4a7c15
	h := (uint64(id)<<8 | uint64(index)<<16 | uint64(len(value))<<32 | 1) * prime
	if id == http.Other && index == 0 {
		h = mix(h, name)
	}
	h = mix(h, value)
	return uint32(h>>32) | 1
}

func mix(h uint64, p []byte) uint64 {
	const prime = 0x9e3779b97f4a7c15
	for ; len(p) >= 8; p = p[8:] {
		h = (h ^ binary.LittleEndian.Uint64(p)) * prime
		h ^= h >> 29
	}
	for _, c := range p {
		h = (h ^ uint64(c)) * prime
	}
	return h ^ h>>31
}

func appendLiteral(dst []byte, kind byte, bits uint, index int, name, value []byte) []byte {
	dst = appendInteger(dst, kind, bits, index)
	if index == 0 {
		dst = appendText(dst, name)
	}
	return appendText(dst, value)
}

// appendInteger writes a number into the low bits of a first byte and what
// follows it (RFC 7541, 5.1).
func appendInteger(dst []byte, first byte, bits uint, n int) []byte {
	mask := 1<<bits - 1
	if n < mask {
		return append(dst, first|byte(n))
	}
	dst = append(dst, first|byte(mask))
	for n -= mask; n >= 0x80; n >>= 7 {
		dst = append(dst, byte(n)|0x80)
	}
	return append(dst, byte(n))
}

// appendText writes a string, Huffman-coded if that is shorter.
func appendText(dst, s []byte) []byte {
	if len(s) > 3 {
		if n := encodedLen(s); n < len(s) {
			return appendEncoded(appendInteger(dst, 0x80, 7, n), s)
		}
	}
	return append(appendInteger(dst, 0, 7, len(s)), s...)
}
