package h1

import (
	"bytes"
	"testing"

	"github.com/fingerpost/fingerpost/wire/http"
)

// sameFieldsAs compares two lists of fields.
func sameFieldsAs(a, b http.Fields) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].ID != b[i].ID || !bytes.Equal(a[i].Name, b[i].Name) || !bytes.Equal(a[i].Value, b[i].Value) {
			return false
		}
	}
	return true
}

// identified: each field has the ID of its name, and none is left that a decoder
// leaves out.
func identified(t *testing.T, fields http.Fields) {
	t.Helper()
	for _, f := range fields {
		if f.ID != http.Identify(f.Name) || f.ID != http.Other && f.ID < http.Expect || !isToken(f.Name) || bytes.ContainsAny(f.Value, "\r\n\x00") {
			t.Fatalf("field %q: %q with ID %d", f.Name, f.Value, f.ID)
		}
	}
}

// FuzzParseRequest: n is within the input; what is refused or not complete leaves
// nothing; a request that is written and parsed again is the same; a shorter
// input is not complete; net/http sees the same bytes of body.
func FuzzParseRequest(f *testing.F) {
	for _, a := range corpus(f) {
		f.Add(a.in)
	}
	f.Add([]byte(browser))
	f.Add([]byte(wrk))
	f.Add([]byte("POST http://a?b HTTP/1.1\r\nHost: a\r\nConnection: upgrade, X\r\nX: y\r\nUpgrade: w\r\nTE: trailers\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nX: y\r\n\r\n"))
	f.Add([]byte("\r\nGET / HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc"))
	d := intended(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		var r, again http.Request
		in := bytes.Clone(b)
		n, fr, err := ParseRequest(b, &r, nil)
		if !bytes.Equal(in, b) {
			t.Fatal("the input was modified")
		}
		if n < 0 || n > len(b) {
			t.Fatalf("%d of %d bytes", n, len(b))
		}
		if err != nil || n == 0 {
			if n != 0 || r.Method != nil || len(r.Fields) > 0 || fr != (Framing{}) {
				t.Fatalf("%q left %+v", b, r)
			}
			compareRequest(t, b, d)
			return
		}
		if m, _, err := ParseRequest(b[:n-1], &again, nil); m != 0 || err != nil {
			t.Fatalf("%q without its last byte: %d, %v", b[:n], m, err)
		}
		if !Ended(b[:n], n-1) {
			t.Fatalf("%q has not ended", b[:n])
		}
		identified(t, r.Fields)
		if r.Version == http.HTTP11 && len(r.Authority) == 0 {
			t.Fatalf("%q has no authority", b[:n])
		}
		compareRequest(t, b, d)
		if r.Version == http.HTTP10 {
			return
		}
		out := AppendRequest(nil, &r, fr.Chunked)
		m, fr2, err := ParseRequest(out, &again, nil)
		if err != nil || m != len(out) || fr2 != fr {
			t.Fatalf("%q written as %q: %d, %+v, %v", b[:n], out, m, fr2, err)
		}
		r.Fields.Del(http.Expect)
		again.Fields.Del(http.Expect)
		if show(&r) != show(&again) || !sameFieldsAs(r.Fields, again.Fields) {
			t.Fatalf("%q written as %q:\n%s\n%s", b[:n], out, show(&r), show(&again))
		}
	})
}

func FuzzParseResponse(f *testing.F) {
	for _, a := range corpus(f) {
		if a.status == 502 {
			f.Add(a.in, uint8(0))
		}
	}
	f.Add([]byte(answer), uint8(0))
	f.Add([]byte("HTTP/1.0 304\r\nConnection: keep-alive\r\nContent-Length: 5, 5\r\n\r\n"), uint8(1))
	f.Add([]byte("HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: w\r\n\r\n"), uint8(0))
	f.Add([]byte("HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n"), uint8(0))
	d := intended(f)
	f.Fuzz(func(t *testing.T, b []byte, which uint8) {
		method := []string{"GET", "HEAD", "CONNECT"}[which%3]
		var r, again http.Response
		n, fr, err := ParseResponse(b, &r, []byte(method), nil)
		if n < 0 || n > len(b) {
			t.Fatalf("%d of %d bytes", n, len(b))
		}
		compareResponse(t, b, method, d)
		if err != nil || n == 0 {
			if n != 0 || r.Status != 0 || len(r.Fields) > 0 || fr != (Framing{}) {
				t.Fatalf("%q left %+v", b, r)
			}
			return
		}
		if m, _, err := ParseResponse(b[:n-1], &again, []byte(method), nil); m != 0 || err != nil {
			t.Fatalf("%q without its last byte: %d, %v", b[:n], m, err)
		}
		identified(t, r.Fields)
		to := http.Request{Version: http.HTTP11, Method: []byte(method)}
		out := AppendResponse(nil, &r, &to, fr.Chunked, nil)
		m, fr2, err := ParseResponse(out, &again, []byte(method), nil)
		if err != nil || m != len(out) || fr2 != fr || again.Status != r.Status || !sameFieldsAs(again.Fields, r.Fields) ||
			again.Length != r.Length || !bytes.Equal(again.Upgrade, r.Upgrade) {
			t.Fatalf("%q written as %q: %d, %+v (was %+v), %v", b[:n], out, m, fr2, fr, err)
		}
	})
}

// FuzzChunks: however a body is cut into reads, the data, the end and the error
// are the same; and what is written is read again.
func FuzzChunks(f *testing.F) {
	for _, a := range corpus(f) {
		if _, body, ok := bytes.Cut(a.in, []byte("chunked\r\n\r\n")); ok {
			f.Add(body, uint8(3))
		}
	}
	f.Add([]byte("A\r\n0123456789\r\n2;x=y\r\nab\r\n0\r\nX-T: v\r\nHost: x\r\n\r\nGET"), uint8(1))
	f.Fuzz(func(t *testing.T, b []byte, cut uint8) {
		read := func(step int) (body []byte, at int, end bool, c *Chunks, err error) {
			c = new(Chunks)
			for at < len(b) {
				part := b[at:min(len(b), at+step)]
				var used int
				var data []byte
				if used, data, end, err = c.Next(part); err != nil {
					return
				}
				if used < 0 || used > len(part) || used < len(part) && !end && data == nil {
					t.Fatalf("used %d of %q without an end", used, part)
				}
				if used == 0 && !end {
					t.Fatalf("nothing used of %q", part)
				}
				body = append(body, data...)
				if at += used; end {
					return
				}
			}
			return
		}
		body, at, end, c, err := read(len(b) + 1)
		body2, at2, end2, c2, err2 := read(1 + int(cut))
		if !bytes.Equal(body, body2) || end != end2 || (err == nil) != (err2 == nil) || err == nil && at != at2 {
			t.Fatalf("%q: %q %d %v %v, in pieces of %d: %q %d %v %v", b, body, at, end, err, 1+int(cut), body2, at2, end2, err2)
		}
		if !end || err != nil {
			return
		}
		if !sameFieldsAs(c.Trailers, c2.Trailers) {
			t.Fatalf("%q: trailers %v and %v", b, c.Trailers, c2.Trailers)
		}
		var out []byte
		if len(body) > 0 {
			out = append(AppendChunkHead(nil, len(body)), body...)
			out = append(out, ChunkEnd...)
		}
		out = AppendTrailers(out, c.Trailers)
		m, err := readBody(out, Framing{Chunked: true})
		if err != nil || m.n != len(out) || !bytes.Equal(m.body, body) || !sameFieldsAs(m.trailers, c.Trailers) {
			t.Fatalf("%q written as %q: %q, %v", b, out, m.body, err)
		}
	})
}
