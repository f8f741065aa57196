package gateway

import (
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/fingerpost/fingerpost/view/gateway"
)

// TestSmuggling: what two servers could read differently is refused, and
// nothing after it is read as a request.
func TestSmuggling(t *testing.T) {
	t.Parallel()
	var smuggled, total atomic.Int64
	r := newRig(t, gateway.Config{})
	good(t, r)
	r.site(host, "web", nil)
	r.endpoints("web", serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		total.Add(1)
		if strings.Contains(r.URL.Path, "smuggled") {
			smuggled.Add(1)
		}
		_, _ = io.Copy(io.Discard, r.Body)
	})))
	const line = "POST / HTTP/1.1\r\nHost: " + host + "\r\n"
	const next = "GET /smuggled HTTP/1.1\r\nHost: " + host + "\r\n\r\n"
	for name, input := range map[string]string{
		"CL and TE":               line + "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nX",
		"TE and CL":               line + "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\nX",
		"two lengths":             line + "Content-Length: 6\r\nContent-Length: 5\r\n\r\nabcdef",
		"a list of lengths":       line + "Content-Length: 6, 5\r\n\r\nabcdef",
		"a signed length":         line + "Content-Length: +6\r\n\r\nabcdef",
		"a negative length":       line + "Content-Length: -6\r\n\r\n",
		"a length in hex":         line + "Content-Length: 0x6\r\n\r\nabcdef",
		"a length with a space":   line + "Content-Length: 1 0\r\n\r\nabcdef",
		"a huge length":           line + "Content-Length: 99999999999999999999\r\n\r\n",
		"an empty length":         line + "Content-Length:\r\n\r\n",
		"chunked twice":           line + "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
		"chunked, identity":       line + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
		"two TE":                  line + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
		"TE with a tab before :":  line + "Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n",
		"TE with a space before":  line + " Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"TE xchunked":             line + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
		"TE with a vertical tab":  line + "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
		"TE in quotes":            line + "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
		"TE in HTTP/1.0":          "POST / HTTP/1.0\r\nHost: " + host + "\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"a folded line":           line + "A: b\r\n c\r\n\r\n",
		"a folded first line":     line[:17] + " Host: " + host + "\r\n\r\n",
		"a space before a colon":  line + "Content-Length : 6\r\n\r\nabcdef",
		"a name with CR":          line + "A\rB: c\r\n\r\n",
		"a value with CR":         line + "A: b\rContent-Length: 6\r\n\r\n",
		"a value with NUL":        line + "A: b\x00\r\n\r\n",
		"bare LF":                 "GET / HTTP/1.1\nHost: " + host + "\n\n",
		"bare LF in a field":      line + "A: b\nContent-Length: 6\r\n\r\nabcdef",
		"no name":                 line + ": b\r\n\r\n",
		"no colon":                line + "A\r\n\r\n",
		"two hosts":               line + "Host: other.example.com\r\n\r\n",
		"no host":                 "GET / HTTP/1.1\r\n\r\n",
		"a host with a path":      "GET / HTTP/1.1\r\nHost: " + host + "/smuggled\r\n\r\n",
		"a host with @":           "GET / HTTP/1.1\r\nHost: good.example.com@" + host + "\r\n\r\n",
		"a host with a space":     "GET / HTTP/1.1\r\nHost: " + host + " x\r\n\r\n",
		"two spaces":              "GET  / HTTP/1.1\r\nHost: " + host + "\r\n\r\n",
		"a space in the target":   "GET /a b HTTP/1.1\r\nHost: " + host + "\r\n\r\n",
		"a tab in the first line": "GET\t/ HTTP/1.1\r\nHost: " + host + "\r\n\r\n",
		"no version":              "GET /\r\nHost: " + host + "\r\n\r\n",
		"a version of letters":    "GET / HTTP/x.y\r\nHost: " + host + "\r\n\r\n",
		"a method with NUL":       "GE\x00T / HTTP/1.1\r\nHost: " + host + "\r\n\r\n",
		"a target with NUL":       "GET /\x00 HTTP/1.1\r\nHost: " + host + "\r\n\r\n",
		"a target without slash":  "GET smuggled HTTP/1.1\r\nHost: " + host + "\r\n\r\n",
		"a fragment":              "GET /a#b HTTP/1.1\r\nHost: " + host + "\r\n\r\n",
	} {
		answers, open := r.talk(t, input+next, 2)
		if got := statuses(answers); got != "400" && got != "501" && got != "505" || open {
			t.Errorf("%s: %s, open %v", name, got, open)
		}
	}
	// In a body, when the request is on its way already.
	for name, input := range map[string]string{
		"a chunk of letters":      "zz\r\n" + next,
		"a negative chunk":        "-1\r\n" + next,
		"a signed chunk":          "+1\r\na\r\n0\r\n\r\n" + next,
		"a chunk in 0x":           "0x1\r\na\r\n0\r\n\r\n" + next,
		"a chunk too large":       "ffffffffffffffffff\r\n" + next,
		"a chunk without end":     "1\r\nab\r\n0\r\n\r\n" + next,
		"a chunk with LF":         "1\na\r\n0\r\n\r\n" + next,
		"an extension with LF":    "1;a\nb\r\na\r\n0\r\n\r\n" + next,
		"an endless extension":    "1;" + strings.Repeat("a", 100000) + "\r\na\r\n0\r\n\r\n" + next,
		"a trailer with a length": "0\r\nA b\r\n\r\n" + next,
		"an endless trailer":      "0\r\nA: " + strings.Repeat("a", 1<<20) + "\r\n\r\n" + next,
	} {
		answers, open := r.talk(t, line+"Transfer-Encoding: chunked\r\n\r\n"+input, 2)
		if got := statuses(answers); got != "400" && got != "431" && got != "" || open {
			t.Errorf("%s: %s, open %v", name, got, open)
		}
	}
	if n := smuggled.Load(); n != 0 {
		t.Errorf("%d requests were smuggled", n)
	}
	// What is right stays right: pipelined requests are answered in order.
	answers, _ := r.talk(t, strings.Repeat(line+"Content-Length: 3\r\n\r\nabc", 20), 20)
	if got := statuses(answers); got != strings.TrimSpace(strings.Repeat("200 ", 20)) {
		t.Errorf("pipelined: %s", got)
	}
	if total.Load() < 20 {
		t.Error("nothing came through")
	}
}

// TestHuge: heads beyond every limit are refused, whether they come at once or
// without end; a body that is too large is too.
func TestHuge(t *testing.T) {
	t.Parallel()
	r := web(t, gateway.Config{Limits: gateway.Limits{Body: 1000}}, echo("huge"))
	good(t, r)
	const line = "GET / HTTP/1.1\r\nHost: " + host + "\r\n"
	for name, c := range map[string]struct {
		input  string
		status string
	}{
		"one field":          {line + "A: " + strings.Repeat("x", 1<<20) + "\r\n\r\n", "431"},
		"one name":           {line + strings.Repeat("x", 1<<20) + ": a\r\n\r\n", "431"},
		"many fields":        {line + strings.Repeat("A: b\r\n", 200) + "\r\n", "431"},
		"a field, no end":    {line + "A: " + strings.Repeat("x", 1<<20), "431"},
		"a target":           {"GET /" + strings.Repeat("x", 1<<20) + " HTTP/1.1\r\n\r\n", "414"},
		"a target, no end":   {"GET /" + strings.Repeat("x", 1<<20), "414"},
		"a method":           {strings.Repeat("X", 1<<20), "501"},
		"empty lines":        {strings.Repeat("\r\n", 1<<20), "400"},
		"a body by length":   {"POST / HTTP/1.1\r\nHost: " + host + "\r\nContent-Length: 1001\r\n\r\n" + strings.Repeat("x", 1001), "413"},
		"a body in chunks":   {"POST / HTTP/1.1\r\nHost: " + host + "\r\nTransfer-Encoding: chunked\r\n\r\n" + strings.Repeat("64\r\n"+strings.Repeat("x", 100)+"\r\n", 11) + "0\r\n\r\n", "413"},
		"as much as allowed": {"POST / HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\nContent-Length: 1000\r\n\r\n" + strings.Repeat("x", 1000), "200"},
	} {
		answers, open := r.talk(t, c.input, 2)
		if got := statuses(answers); got != c.status || open {
			t.Errorf("%s: %q, open %v", name, got, open)
		}
	}
	for _, n := range []int{80 << 10, 900 << 10} {
		req, _ := http.NewRequest("GET", r.url(false, "/"), nil)
		req.Header.Set("Large", strings.Repeat("x", n))
		tr := r.transport(true)
		resp, err := tr.RoundTrip(req)
		if err != nil {
			t.Logf("HTTP/2, %d bytes: %v", n, err)
			if n < 100<<10 {
				t.Errorf("HTTP/2, %d bytes: no answer: %v", n, err)
			}
			continue
		}
		_ = resp.Body.Close()
		if resp.StatusCode != 431 {
			t.Errorf("HTTP/2, %d bytes: %d", n, resp.StatusCode)
		}
	}
}
