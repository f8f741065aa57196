package h1

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/fingerpost/fingerpost/wire/http"
)

// show writes a request in one line.
func show(r *http.Request) string {
	var s strings.Builder
	fmt.Fprintf(&s, "%s %s at %s len=%d", r.Method, r.Path, r.Authority, r.Length)
	for _, f := range []struct {
		on   bool
		name string
	}{{r.Version == http.HTTP10, "1.0"}, {r.Close, "close"}, {r.Expect, "expect"}, {r.Trailers, "trailers"}} {
		if f.on {
			s.WriteString(" " + f.name)
		}
	}
	if r.Upgrade != nil {
		fmt.Fprintf(&s, " upgrade=%s", r.Upgrade)
	}
	s.WriteString(showFields(r.Fields))
	return s.String()
}

func showFields(fields http.Fields) string {
	var s strings.Builder
	for _, f := range fields {
		fmt.Fprintf(&s, " [%s=%s]", f.Name, f.Value)
	}
	return s.String()
}

const h = "Host: a\r\n"

func TestParseRequest(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"plain", "GET / HTTP/1.1\r\n" + h + "\r\n", "GET / at a len=0"},
		{"own method", "M-SEARCH!#$%&'*+.^_`|~ / HTTP/1.1\r\n" + h + "\r\n", "M-SEARCH!#$%&'*+.^_`|~ / at a len=0"},
		{"1.0 without Host", "GET / HTTP/1.0\r\n\r\n", "GET / at  len=0 1.0 close"},
		{"1.0 with an empty Host", "GET / HTTP/1.0\r\nHost:\r\n\r\n", "GET / at  len=0 1.0 close"},
		{"1.0 keep-alive", "GET / HTTP/1.0\r\n" + h + "Connection: Keep-Alive\r\n\r\n", "GET / at a len=0 1.0"},
		{"1.0 ignores Upgrade and Expect", "GET / HTTP/1.0\r\n" + h + "Connection: upgrade\r\nUpgrade: websocket\r\nExpect: 100-continue\r\nTE: trailers\r\n\r\n", "GET / at a len=0 1.0 close [Expect=100-continue]"},
		{"close", "GET / HTTP/1.1\r\n" + h + "Connection: close\r\n\r\n", "GET / at a len=0 close"},
		{"close wins", "GET / HTTP/1.1\r\n" + h + "Connection: Keep-Alive ,, Close\r\n\r\n", "GET / at a len=0 close"},
		{"empty lines before (2.2)", "\r\n\r\nGET / HTTP/1.1\r\n" + h + "\r\n", "GET / at a len=0"},
		{"Content-Length", "POST / HTTP/1.1\r\n" + h + "content-length:\t007 \r\n\r\n", "POST / at a len=7"},
		{"largest Content-Length", "POST / HTTP/1.1\r\n" + h + "Content-Length: 999999999999999999\r\n\r\n", "POST / at a len=999999999999999999"},
		{"chunked in any case", "POST / HTTP/1.1\r\n" + h + "TRANSFER-encoding: \t Chunked \t\r\n\r\n", "POST / at a len=-1"},
		{"Expect stays, as its member", "PUT / HTTP/1.1\r\n" + h + "Expect: 100-Continue\r\nContent-Length: 1\r\n\r\n", "PUT / at a len=1 expect [Expect=100-Continue]"},
		{"other Expect", "PUT / HTTP/1.1\r\n" + h + "Expect: coffee\r\n\r\n", "PUT / at a len=0 [Expect=coffee]"},
		{"TE", "GET / HTTP/1.1\r\n" + h + "TE: gzip, Trailers\r\nConnection: TE\r\n\r\n", "GET / at a len=0 trailers"},
		{"TE without trailers", "GET / HTTP/1.1\r\n" + h + "TE: gzip\r\nConnection: TE\r\n\r\n", "GET / at a len=0"},
		{"upgrade", "GET /ws HTTP/1.1\r\n" + h + "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n", "GET /ws at a len=0 upgrade=websocket [Sec-WebSocket-Key=x]"},
		{"upgrade that Connection does not list", "GET / HTTP/1.1\r\n" + h + "Upgrade: websocket\r\n\r\n", "GET / at a len=0"},
		{"upgrade without Upgrade", "GET / HTTP/1.1\r\n" + h + "Connection: upgrade\r\n\r\n", "GET / at a len=0"},
		{"two Upgrades", "GET / HTTP/1.1\r\n" + h + "Connection: upgrade\r\nUpgrade: a\r\nUpgrade: b\r\n\r\n", "GET / at a len=0"},
		{"h2c is not passed on", "GET / HTTP/1.1\r\n" + h + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: websocket, H2C\r\nHTTP2-Settings: AAA\r\n\r\n", "GET / at a len=0"},
		{"what governs the connection", "GET / HTTP/1.1\r\n" + h + "Keep-Alive: 5\r\nProxy-Connection: keep-alive\r\nTrailer: X\r\nHTTP2-Settings: A\r\nX: y\r\n\r\n", "GET / at a len=0 [X=y]"},
		{"trailers announced", "POST / HTTP/1.1\r\n" + h + "Transfer-Encoding: chunked\r\nTrailer: X\r\n\r\n", "POST / at a len=-1 [Trailer=X]"},
		{"named by Connection (RFC 9110, 7.6.1)", "GET / HTTP/1.1\r\n" + h + "X-A: 1\r\nConnection: close, x-a\r\nX-B: 2\r\nConnection: X-B\r\nX-C: 3\r\nX-A: 4\r\n\r\n", "GET / at a len=0 close [X-C=3]"},
		{"well-known names cannot be named", "GET / HTTP/1.1\r\n" + h + "Cookie: c\r\nX-Forwarded-For: d\r\nConnection: host, cookie, X-Forwarded-For, content-length\r\nAuthorization: e\r\nContent-Length: 0\r\n\r\n", "GET / at a len=0 [Cookie=c] [X-Forwarded-For=d] [Authorization=e]"},
		{"values", "GET / HTTP/1.1\r\n" + h + "A:\r\nB: \t \r\nC:x\r\nD: \xff\t \"y\" ; z\t\r\n\r\n", "GET / at a len=0 [A=] [B=] [C=x] [D=\xff\t \"y\" ; z]"},
		{"target as proxies pass it", "GET /a%20b/../;c=d,(e)|{f}^`\"<>\\[]?g=%zz&h=?/%00 HTTP/1.1\r\n" + h + "\r\n", "GET /a%20b/../;c=d,(e)|{f}^`\"<>\\[]?g=%zz&h=?/%00 at a len=0"},
		{"two slashes are a path", "GET //b/c HTTP/1.1\r\n" + h + "\r\n", "GET //b/c at a len=0"},
		{"absolute (3.2.2)", "GET HTTP://A.example:80/b?c HTTP/1.1\r\nHost: a.EXAMPLE\r\n\r\n", "GET /b?c at A.example:80 len=0"},
		{"absolute, https", "GET https://a/b HTTP/1.1\r\nHost: a:443\r\n\r\n", "GET /b at a len=0"},
		{"absolute without path", "GET http://a HTTP/1.1\r\n" + h + "\r\n", "GET / at a len=0"},
		{"absolute with query only", "GET http://a?b=/c HTTP/1.1\r\n" + h + "\r\n", "GET /?b=/c at a len=0"},
		{"absolute in 1.0 without Host", "GET http://a/ HTTP/1.0\r\n\r\n", "GET / at a len=0 1.0 close"},
		{"absolute OPTIONS without path (3.2.4)", "OPTIONS http://a HTTP/1.1\r\n" + h + "\r\n", "OPTIONS * at a len=0"},
		{"asterisk", "OPTIONS * HTTP/1.1\r\n" + h + "\r\n", "OPTIONS * at a len=0"},
		{"CONNECT (3.2.3)", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", "CONNECT  at a:443 len=0"},
		{"CONNECT to IPv6", "CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]\r\n\r\n", "CONNECT  at [::1]:443 len=0"},
		{"IPv6", "GET / HTTP/1.1\r\nHost: [2001:db8::1]:8080\r\n\r\n", "GET / at [2001:db8::1]:8080 len=0"},
		{"host with everything", "GET / HTTP/1.1\r\nHost: a_B-0.~x.:65535\r\n\r\n", "GET / at a_B-0.~x.:65535 len=0"},
		{"empty port (RFC 3986, 3.2.3)", "GET / HTTP/1.1\r\nHost: a:\r\n\r\n", "GET / at a: len=0"},
	} {
		var r http.Request
		in := []byte(c.in)
		n, f, err := ParseRequest(append(in, "GARBAGE\x00"...), &r, nil)
		if err != nil || n != len(in) {
			t.Errorf("%s: %d of %d bytes, %v", c.name, n, len(in), err)
			continue
		}
		if got := show(&r); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
		}
		if f.Chunked != (r.Length == http.Unknown) || !f.Chunked && f.Length != r.Length || f.UntilClose {
			t.Errorf("%s: framing %+v with length %d", c.name, f, r.Length)
		}
		if string(in) != c.in {
			t.Errorf("%s: the input was modified", c.name)
		}
		for i := range in {
			if n, _, err := ParseRequest(in[:i], &r, nil); n != 0 || err != nil {
				t.Errorf("%s: after %d of %d bytes: %d, %v", c.name, i, len(in), n, err)
			}
			if Ended(in[:i], 0) && !strings.HasPrefix(c.in, "\r\n") {
				t.Errorf("%s: ended after %d of %d bytes", c.name, i, len(in))
			}
			if from := min(i, len(in)-1); !Ended(in, from) {
				t.Errorf("%s: not ended, after %d of %d bytes had been there", c.name, from, len(in))
			}
		}
	}
}

func TestRequestLimits(t *testing.T) {
	l := &Limits{Head: 200, Fields: 3, Line: 50}
	target := func(n int) string { return "GET /" + strings.Repeat("x", n-1) }
	for _, c := range []struct {
		name, in string
		status   int
	}{
		{"fits", "GET / HTTP/1.1\r\n" + h + "A: b\r\nB: c\r\n\r\n", 0},
		{"fields", "GET / HTTP/1.1\r\n" + h + "A: b\r\nB: c\r\nC: d\r\n\r\n", 431},
		{"fields, not complete", "GET / HTTP/1.1\r\n" + h + "A: b\r\nB: c\r\nC: d", 431},
		{"head", "GET / HTTP/1.1\r\n" + h + "A: " + strings.Repeat("b", 200) + "\r\n\r\n", 431},
		{"head, not complete", "GET / HTTP/1.1\r\n" + h + "A: " + strings.Repeat("b", 200), 431},
		{"target fits", target(50) + " HTTP/1.1\r\n" + h + "\r\n", 0},
		{"target", target(51) + " HTTP/1.1\r\n" + h + "\r\n", 414},
		{"target, not complete", target(51), 414},
		{"target longer than a head", target(500), 414},
		{"method", strings.Repeat("A", 33), 501},
	} {
		var r http.Request
		_, _, err := ParseRequest([]byte(c.in), &r, l)
		status := 0
		if e := (*Error)(nil); errors.As(err, &e) {
			status = e.Status
		}
		if status != c.status {
			t.Errorf("%s: status %d (%v), want %d", c.name, status, err, c.status)
		}
	}
}

// TestEarly: what can never be a request is refused before its line ends.
func TestEarly(t *testing.T) {
	for _, in := range []string{"\x16\x03\x01\x02", "\n", "GET\r", "GET /\x00", "GET / SSH-2.0-x\r\n", "GET / H\r\n", "\r\n\r\n\r\n\r\n\r\n"} {
		var r http.Request
		if _, _, err := ParseRequest([]byte(in), &r, nil); err == nil {
			t.Errorf("%q: not refused", in)
		}
	}
	for _, in := range []string{"\x16", "HTTQ", "HTTP/2", "SSH-2.0-OpenSSH\r\n"} {
		var r http.Response
		if _, _, err := ParseResponse([]byte(in), &r, nil, nil); err == nil {
			t.Errorf("%q: not refused", in)
		}
	}
}

func TestNoAllocations(t *testing.T) {
	q := http.Request{Fields: make(http.Fields, 0, 32)}
	p := http.Response{Fields: make(http.Fields, 0, 32)}
	request, response, out := []byte(browser), []byte(answer), make([]byte, 0, 4096)
	chunked := []byte("5\r\nabcde\r\n3;x=y\r\nfgh\r\n0\r\n\r\n")
	absolute := []byte("GET http://a/b HTTP/1.1\r\nHost: a\r\nConnection: X-Y, close\r\nX-Y: z\r\n\r\n")
	for name, f := range map[string]func(){
		"request":  func() { ParseRequest(request, &q, nil) },
		"absolute": func() { ParseRequest(absolute, &q, nil) },
		"half":     func() { ParseRequest(request[:200], &q, nil) },
		"response": func() { ParseResponse(response, &p, q.Method, nil) },
		"chunks":   func() { readChunks(chunked) },
		"append": func() {
			ParseRequest(request, &q, nil)
			ParseResponse(response, &p, q.Method, nil)
			AppendRequest(out, &q, false)
			AppendResponse(out, &p, &q, false, []byte("Sat, 21 Nov 2026 08:00:00 GMT"))
		},
	} {
		if n := testing.AllocsPerRun(200, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// readChunks reads a body and drops it.
func readChunks(b []byte) {
	var c Chunks
	for len(b) > 0 {
		used, _, end, err := c.Next(b)
		if err != nil || end {
			return
		}
		b = b[used:]
	}
}

// TestIDs: what the parser looks at and leaves out are the first IDs.
func TestIDs(t *testing.T) {
	for id := http.Host; id <= http.Expect; id++ {
		switch id {
		case http.Host, http.Connection, http.KeepAlive, http.ProxyConnection, http.TransferEncoding, http.ContentLength,
			http.Upgrade, http.TE, http.Trailer, http.HTTP2Settings, http.Expect:
		default:
			t.Errorf("%s is among the fields that govern connections", id.Text())
		}
	}
	if http.Expect != 11 {
		t.Errorf("%d such fields, want 11", http.Expect)
	}
}
