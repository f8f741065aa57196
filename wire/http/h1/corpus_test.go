package h1

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/fingerpost/fingerpost/wire/http"
)

// attempt is one entry of testdata/smuggling.txt.
type attempt struct {
	name   string
	status int
	in     []byte
}

func corpus(t testing.TB) []attempt {
	t.Helper()
	text, err := os.ReadFile("testdata/smuggling.txt")
	if err != nil {
		t.Fatal(err)
	}
	var all []attempt
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		if head, ok := strings.CutPrefix(line, "-- "); ok {
			status, name, _ := strings.Cut(strings.TrimSuffix(head, " --"), " ")
			n, err := strconv.Atoi(status)
			if err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			all = append(all, attempt{name: name, status: n})
		} else if len(all) > 0 && line != "" && !strings.HasPrefix(line, "Responses: ") {
			all[len(all)-1].in = append(all[len(all)-1].in, unescape(t, line)...)
		}
	}
	return all
}

func unescape(t testing.TB, s string) []byte {
	t.Helper()
	var out []byte
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			out = append(out, s[i])
			continue
		}
		i++
		switch s[i] {
		case 'r':
			out = append(out, '\r')
		case 'n':
			out = append(out, '\n')
		case 't':
			out = append(out, '\t')
		case '0':
			out = append(out, 0)
		case '\\':
			out = append(out, '\\')
		case 'x':
			n, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
			if err != nil {
				t.Fatalf("%q: %v", s, err)
			}
			out = append(out, byte(n))
			i += 2
		default:
			t.Fatalf("%q: unknown escape", s)
		}
	}
	return out
}

// message is a whole message as this package reads it.
type message struct {
	n        int // bytes of it; 0: not complete
	body     []byte
	trailers http.Fields
}

// readBody takes the body that framing announces from b.
func readBody(b []byte, f Framing) (m message, err error) {
	switch {
	case f.UntilClose:
		return message{n: len(b), body: b}, nil
	case !f.Chunked:
		if int64(len(b)) < f.Length {
			return m, nil
		}
		return message{n: int(f.Length), body: b[:f.Length]}, nil
	}
	var c Chunks
	for at := 0; ; {
		used, data, end, err := c.Next(b[at:])
		if err != nil {
			return message{}, err
		}
		at += used
		m.body = append(m.body, data...)
		if end {
			m.n, m.trailers = at, c.Trailers
			return m, nil
		}
		if at == len(b) {
			return message{}, nil
		}
	}
}

func readRequest(b []byte, r *http.Request) (head int, m message, err error) {
	head, f, err := ParseRequest(b, r, nil)
	if head == 0 || err != nil {
		return head, m, err
	}
	if m, err = readBody(b[head:], f); err == nil && (m.n > 0 || !f.Chunked && f.Length == 0) {
		m.n += head
	}
	return head, m, err
}

func readResponse(b []byte, r *http.Response, method string) (head int, m message, err error) {
	head, f, err := ParseResponse(b, r, []byte(method), nil)
	if head == 0 || err != nil {
		return head, m, err
	}
	if m, err = readBody(b[head:], f); err == nil && (m.n > 0 || f.UntilClose || !f.Chunked && f.Length == 0) {
		m.n += head
	}
	return head, m, err
}

// TestSmuggling: every attempt of the corpus is refused with its status, at once
// and also if it comes byte by byte.
func TestSmuggling(t *testing.T) {
	all := corpus(t)
	if len(all) < 80 {
		t.Fatalf("%d attempts only", len(all))
	}
	for _, a := range all {
		read := func(b []byte) (message, error) {
			var r http.Request
			_, m, err := readRequest(b, &r)
			return m, err
		}
		if a.status == 502 {
			read = func(b []byte) (message, error) {
				var r http.Response
				_, m, err := readResponse(b, &r, "GET")
				return m, err
			}
		}
		m, err := read(a.in)
		if e := (*Error)(nil); !errors.As(err, &e) || e.Status != a.status || e.Reason == "" {
			t.Errorf("%s: %d bytes accepted, error %v, want status %d", a.name, m.n, err, a.status)
		}
		refused := false
		for i := range a.in {
			m, err := read(a.in[:i])
			if err == nil && refused {
				t.Errorf("%s: after %d bytes no longer refused", a.name, i)
			}
			// A body may be complete before the next message turns out wrong only if
			// the attempt is about what follows it; here nothing is.
			if refused = refused || err != nil; m.n > 0 && m.n == i {
				t.Errorf("%s: taken for complete after %d bytes: %q", a.name, i, a.in[:i])
			}
		}
	}
}

// TestChunkLimits: what comes besides data is bounded.
func TestChunkLimits(t *testing.T) {
	over := func(name string, b []byte) {
		t.Helper()
		if _, err := readBody(b, Framing{Chunked: true}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	over("long extension", []byte("1;"+strings.Repeat("x", maxExt+1)))
	over("many extensions", bytes.Repeat([]byte("1;"+strings.Repeat("x", 900)+"\r\na\r\n"), 20))
	over("many trailers", []byte("0\r\n"+strings.Repeat("a: b\r\n", maxTrailers+1)+"\r\n"))
	over("long trailer", []byte("0\r\na: "+strings.Repeat("x", maxTrailer)))
	over("endless zeros", []byte(strings.Repeat("0", 100)))

	// Extensions that data pays for go on for ever.
	var c Chunks
	chunk := []byte("1000;signature=0123456789012345678901234567890123456789\r\n" + strings.Repeat("x", 4096) + "\r\n")
	for range 1000 {
		for b := chunk; len(b) > 0; {
			used, _, end, err := c.Next(b)
			if err != nil || end {
				t.Fatal(end, err)
			}
			b = b[used:]
		}
	}
}
