package h1

import (
	"strings"
	"testing"

	"github.com/fingerpost/fingerpost/wire/http"
)

func TestChunks(t *testing.T) {
	for _, c := range []struct{ name, in, body, trailers string }{
		{"empty", "0\r\n\r\n", "", ""},
		{"two chunks", "5\r\nabcde\r\nA\r\n0123456789\r\n0\r\n\r\n", "abcde0123456789", ""},
		{"zeros and cases (7.1)", "0000a\r\n0123456789\r\n0C\r\n0123456789ab\r\n000\r\n\r\n", "01234567890123456789ab", ""},
		{"16 digits", "0000000000000001\r\na\r\n0\r\n\r\n", "a", ""},
		{"extensions (7.1.1)", "1;a\r\na\r\n1;b=c;d=\"e;f\"\r\nb\r\n1; g = h\t\r\nc\r\n0;last\r\n\r\n", "abc", ""},
		{"CRLF in data", "4\r\n\r\n\r\n\r\n0\r\n\r\n", "\r\n\r\n", ""},
		{"trailers (7.1.2)", "1\r\na\r\n0\r\nX-Sum: 7\r\nGrpc-Status:0\r\n\r\n", "a", " [X-Sum=7] [Grpc-Status=0]"},
		{"forbidden trailers (RFC 9110, 6.5.1)", "0\r\n" +
			"Transfer-Encoding: chunked\r\nContent-Length: 5\r\nHost: b\r\nConnection: close\r\nTrailer: x\r\nTE: x\r\nUpgrade: x\r\n" +
			"Authorization: x\r\nProxy-Authorization: x\r\nCookie: x\r\nSet-Cookie: x\r\nContent-Type: x\r\nContent-Encoding: x\r\n" +
			"Content-Range: x\r\nCache-Control: x\r\nExpect: x\r\nRange: x\r\nIf-Match: x\r\nMax-Forwards: x\r\nLocation: x\r\n" +
			"X-Forwarded-For: x\r\nX-Real-IP: x\r\nForwarded: x\r\nETag: \"y\"\r\nX-Own: z\r\n\r\n", "", " [ETag=\"y\"] [X-Own=z]"},
	} {
		in := []byte(c.in + "GET / HTTP/1.1\r\n")
		for _, step := range []int{1, 2, 3, 7, len(in)} {
			var d Chunks
			var body strings.Builder
			at, ended := 0, false
			for at < len(in) && !ended {
				part := in[at:min(len(in), at+step)]
				used, data, end, err := d.Next(part)
				if err != nil {
					t.Fatalf("%s in pieces of %d: at %d: %v", c.name, step, at, err)
				}
				body.Write(data)
				at, ended = at+used, end
			}
			if !ended || at != len(c.in) || body.String() != c.body || showFields(d.Trailers) != c.trailers {
				t.Errorf("%s in pieces of %d: %d of %d bytes, %v, %q%s, want %q%s", c.name, step, at, len(c.in), ended, body.String(), showFields(d.Trailers), c.body, c.trailers)
			}
			if used, data, end, err := d.Next(in[at:]); used != 0 || data != nil || !end || err != nil {
				t.Errorf("%s: after the end: %d %q %v %v", c.name, used, data, end, err)
			}
			d.Reset()
			if used, _, end, err := d.Next([]byte("0\r\n\r\n")); used != 5 || !end || err != nil || len(d.Trailers) > 0 {
				t.Errorf("%s: not reset: %d %v %v", c.name, used, end, err)
			}
		}
	}
}

// TestInPlace: data is a part of the input, and the last of it comes with the
// end.
func TestInPlace(t *testing.T) {
	in := []byte("5\r\nabcde\r\n0\r\n\r\nrest")
	var d Chunks
	used, data, end, err := d.Next(in)
	if used != 15 || string(data) != "abcde" || !end || err != nil {
		t.Fatalf("%d %q %v %v", used, data, end, err)
	}
	if &data[0] != &in[3] || cap(data) != 5 {
		t.Error("data was copied, or may grow into what follows")
	}
	// What is wrong behind the data does not take the data away.
	d.Reset()
	used, data, end, err = d.Next([]byte("5\r\nabcdeX"))
	if used != 8 || string(data) != "abcde" || end || err != nil {
		t.Fatalf("%d %q %v %v", used, data, end, err)
	}
	for _, s := range []string{"X", "\r\n0\r\n\r\n"} {
		if _, data, end, err = d.Next([]byte(s)); err == nil || end || data != nil {
			t.Fatalf("%q %v %v", data, end, err)
		}
	}
}

func TestAppendChunks(t *testing.T) {
	out := append(AppendChunkHead(nil, 26), "abcdefghijklmnopqrstuvwxyz"...)
	out = append(out, ChunkEnd...)
	out = AppendTrailers(out, http.Fields{
		{ID: http.ContentLength, Name: []byte("Content-Length"), Value: []byte("1")},
		{ID: http.GrpcStatus, Name: []byte("Grpc-Status"), Value: []byte("0")},
		{Name: []byte("X"), Value: []byte("y")},
	})
	if got, want := string(out), "1a\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\nGrpc-Status: 0\r\nX: y\r\n\r\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := string(AppendTrailers(nil, nil)); got != LastChunk {
		t.Errorf("%q without trailers", got)
	}
}
