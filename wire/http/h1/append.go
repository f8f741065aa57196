package h1

import (
	"slices"
	"strconv"

	"github.com/fingerpost/fingerpost/wire/http"
)

// AppendRequest appends the head of a request in HTTP/1.1. Host is written from
// Authority, and Content-Length, Expect, Connection, Upgrade and TE from the
// members; fields with these names in Fields are left out. With chunked
// Transfer-Encoding is written instead of Content-Length. An unknown
// Length without chunked declares no body. Close becomes "Connection: close":
// clear it if only the client wanted that.
//
// Nothing is checked: names must be tokens and values free of CR, LF and NUL, as
// those that were parsed are.
func AppendRequest(dst []byte, r *http.Request, chunked bool) []byte {
	dst = append(dst, r.Method...)
	dst = append(dst, ' ')
	if len(r.Path) == 0 {
		dst = append(dst, r.Authority...)
	} else {
		dst = append(dst, r.Path...)
	}
	dst = append(dst, " HTTP/1.1\r\nHost: "...)
	dst = append(dst, r.Authority...)
	dst = append(dst, '\r', '\n')
	dst = appendFields(dst, r.Fields, chunked)
	switch {
	case chunked:
		dst = append(dst, "Transfer-Encoding: chunked\r\n"...)
	case r.Length > 0 || r.Length == 0 && anticipated(r.Method):
		dst = appendLength(dst, r.Length)
	}
	if r.Expect {
		dst = append(dst, "Expect: 100-continue\r\n"...)
	}
	if len(r.Upgrade) > 0 || r.Close || r.Trailers {
		dst = appendConnection(dst, r.Upgrade, r.Close, r.Trailers)
	}
	return append(dst, '\r', '\n')
}

// anticipated says that a server may wait for a body if no length is told (RFC
// 9110, 8.6).
func anticipated(method []byte) bool {
	switch string(method) {
	case "POST", "PUT", "PATCH":
		return true
	}
	return false
}

// AppendResponse appends the head of a response to a request; to may be nil. It
// says HTTP/1.1, and what Connection the client's version needs: the body of
// unknown length that is not chunked ends with the connection, as the exchange
// does if r or to says Close. Content-Length is written unless the status
// forbids it; of answers to HEAD and of 304 if it was declared. Date is added
// unless there is one, or date is empty, or the status is 1xx.
func AppendResponse(dst []byte, r *http.Response, to *http.Request, chunked bool, date []byte) []byte {
	dst = appendStatus(dst, r.Status)
	dst = appendFields(dst, r.Fields, chunked)
	if r.Status < 200 {
		if r.Status == 101 && len(r.Upgrade) > 0 {
			dst = appendConnection(dst, r.Upgrade, false, false)
		}
		return append(dst, '\r', '\n')
	}
	if len(date) > 0 && r.Fields.Get(http.Date) == nil {
		dst = append(dst, "Date: "...)
		dst = append(dst, date...)
		dst = append(dst, '\r', '\n')
	}
	closing := r.Close
	old, bare, tunnel := false, r.Status == 304, false
	if to != nil {
		closing = closing || to.Close
		old = to.Version == http.HTTP10
		bare = bare || len(to.Method) == 4 && string(to.Method) == "HEAD"
		tunnel = isConnect(to.Method) && r.Status < 300
	}
	switch {
	case r.Status == 204 || tunnel:
	case bare:
		if r.Length >= 0 && (r.Declared || r.Length > 0) {
			dst = appendLength(dst, r.Length)
		}
	case chunked:
		dst = append(dst, "Transfer-Encoding: chunked\r\n"...)
	case r.Length >= 0:
		dst = appendLength(dst, r.Length)
	default:
		closing = true
	}
	switch {
	case tunnel:
	case closing:
		dst = append(dst, "Connection: close\r\n"...)
	case old:
		dst = append(dst, "Connection: keep-alive\r\n"...)
	}
	return append(dst, '\r', '\n')
}

func appendStatus(dst []byte, status int) []byte {
	switch status {
	case 200:
		return append(dst, "HTTP/1.1 200 OK\r\n"...)
	case 304:
		return append(dst, "HTTP/1.1 304 Not Modified\r\n"...)
	}
	dst = append(dst, "HTTP/1.1 "...)
	dst = append(dst, byte('0'+status/100%10), byte('0'+status/10%10), byte('0'+status%10), ' ')
	dst = append(dst, Reason(status)...)
	return append(dst, '\r', '\n')
}

// appendFields appends all but what is written from members.
func appendFields(dst []byte, fields http.Fields, chunked bool) []byte {
	for i := range fields {
		f := &fields[i]
		if f.ID != http.Other && f.ID <= http.Expect && !(chunked && f.ID == http.Trailer) {
			continue
		}
		dst = appendField(dst, f)
	}
	return dst
}

// appendField grows dst once for the whole line.
func appendField(dst []byte, f *http.Field) []byte {
	at := len(dst)
	colon := at + len(f.Name)
	end := colon + 2 + len(f.Value)
	dst = slices.Grow(dst, end+2-at)[:end+2]
	copy(dst[at:], f.Name)
	dst[colon], dst[colon+1] = ':', ' '
	copy(dst[colon+2:], f.Value)
	dst[end], dst[end+1] = '\r', '\n'
	return dst
}

func appendLength(dst []byte, n int64) []byte {
	dst = append(dst, "Content-Length: "...)
	dst = strconv.AppendInt(dst, n, 10)
	return append(dst, '\r', '\n')
}

func appendConnection(dst, upgrade []byte, closing, te bool) []byte {
	dst = append(dst, "Connection: "...)
	start := len(dst)
	option := func(name string) {
		if len(dst) > start {
			dst = append(dst, ", "...)
		}
		dst = append(dst, name...)
	}
	if len(upgrade) > 0 {
		option("Upgrade")
	}
	if closing {
		option("close")
	}
	if te {
		option("TE")
	}
	if te {
		dst = append(dst, "\r\nTE: trailers"...)
	}
	if len(upgrade) > 0 {
		dst = append(dst, "\r\nUpgrade: "...)
		dst = append(dst, upgrade...)
	}
	return append(dst, '\r', '\n')
}

// ChunkEnd comes after the data of a chunk, LastChunk instead of trailers.
const (
	ChunkEnd  = "\r\n"
	LastChunk = "0\r\n\r\n"
)

// AppendChunkHead appends what comes before the data of a chunk; size is not 0.
func AppendChunkHead(dst []byte, size int) []byte {
	dst = strconv.AppendUint(dst, uint64(size), 16)
	return append(dst, '\r', '\n')
}

// AppendTrailers appends the last chunk and trailers, and ends the body.
func AppendTrailers(dst []byte, trailers http.Fields) []byte {
	dst = append(dst, '0', '\r', '\n')
	for i := range trailers {
		f := &trailers[i]
		if forbidden(f.ID, f.Name) {
			continue
		}
		dst = appendField(dst, f)
	}
	return append(dst, '\r', '\n')
}
