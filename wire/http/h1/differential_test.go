package h1

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	nethttp "net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/fingerpost/fingerpost/wire/http"
)

// differences are the intended ones: lines of testdata/differences.txt.
type differences struct {
	strict  map[string]bool // reasons for which we refuse what net/http takes
	lenient []string        // in errors of net/http about what we take
	seen    map[string]bool
}

func intended(t testing.TB) *differences {
	t.Helper()
	text, err := os.ReadFile("testdata/differences.txt")
	if err != nil {
		t.Fatal(err)
	}
	d := &differences{strict: map[string]bool{}, seen: map[string]bool{}}
	for line := range strings.Lines(string(text)) {
		what, _, _ := strings.Cut(line, " -- ")
		if what = strings.TrimSpace(what); strings.HasPrefix(what, "strict: ") {
			d.strict[strings.TrimPrefix(what, "strict: ")] = true
		} else if strings.HasPrefix(what, "lenient: ") {
			d.lenient = append(d.lenient, strings.TrimPrefix(what, "lenient: "))
		}
	}
	return d
}

// expected says whether it is known that only one of the two refuses.
func (d *differences) expected(ours, theirs error) bool {
	if e := (*Error)(nil); errors.As(ours, &e) {
		d.seen[e.Reason] = true
		return d.strict[e.Reason]
	}
	return slices.ContainsFunc(d.lenient, func(s string) bool {
		hit := strings.Contains(theirs.Error(), s)
		d.seen[s] = d.seen[s] || hit
		return hit
	})
}

// theirs is a message as net/http reads it.
type theirs struct {
	head    string
	header  nethttp.Header
	body    []byte
	used    int
	trailer nethttp.Header
}

// source counts what a reader of messages took.
func source(b []byte) (*bufio.Reader, func() int) {
	in := bytes.NewReader(b)
	buf := bufio.NewReader(in)
	return buf, func() int { return len(b) - in.Len() - buf.Buffered() }
}

func readTheirRequest(b []byte) (*theirs, error) {
	buf, used := source(b)
	q, err := nethttp.ReadRequest(buf)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(q.Body)
	if err != nil {
		return nil, err
	}
	return &theirs{q.Method + " " + q.RequestURI, q.Header, body, used(), q.Trailer}, nil
}

func readTheirResponse(b []byte, method string) (*theirs, error) {
	buf, used := source(b)
	p, err := nethttp.ReadResponse(buf, &nethttp.Request{Method: method})
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(p.Body)
	if err != nil {
		return nil, err
	}
	return &theirs{p.Status[:3], p.Header, body, used(), p.Trailer}, nil
}

// sameFields: each field that we have is there with the same values.
func sameFields(t *testing.T, in []byte, ours http.Fields, header nethttp.Header) {
	t.Helper()
	got := nethttp.Header{}
	for _, f := range ours {
		if f.ID != http.Trailer { // net/http keeps it apart
			got.Add(string(f.Name), string(f.Value))
		}
	}
	for name := range header {
		// net/http keeps a space before the colon in the name.
		if short := strings.TrimRight(name, " \t"); short != name {
			delete(got, nethttp.CanonicalHeaderKey(short))
		}
	}
	for name, values := range got {
		if !slices.Equal(values, header[name]) {
			t.Errorf("%q: %s is %q, for net/http %q", in, name, values, header[name])
		}
	}
}

// compareRequest holds one request against net/http.
func compareRequest(t *testing.T, in []byte, d *differences) {
	t.Helper()
	var r http.Request
	head, m, err := readRequest(in, &r)
	their, theirErr := readTheirRequest(in)
	switch {
	case err != nil && theirErr != nil:
	case err == nil && head == 0 || err == nil && m.n == 0:
		// Not complete: net/http must miss something too, or hold for complete what
		// ends with the input.
		if theirErr == nil {
			t.Errorf("%q: not complete, net/http takes %d of %d bytes", in, their.used, len(in))
		}
	case (err == nil) != (theirErr == nil):
		if !d.expected(err, theirErr) {
			t.Errorf("%q: we say %v, net/http %v", in, err, theirErr)
		}
	default:
		if m.n != their.used || !bytes.Equal(m.body, their.body) {
			t.Errorf("%q: %d bytes with body %q, net/http %d with %q", in, m.n, m.body, their.used, their.body)
		}
		if method, _, _ := strings.Cut(their.head, " "); method != string(r.Method) {
			t.Errorf("%q: method %q, net/http %q", in, r.Method, method)
		}
		sameFields(t, in, r.Fields, their.header)
	}
}

func compareResponse(t *testing.T, in []byte, method string, d *differences) {
	t.Helper()
	var r http.Response
	head, m, err := readResponse(in, &r, method)
	if method == "CONNECT" && err == nil && r.Status/100 == 2 {
		return // net/http reads a body where a tunnel begins
	}
	their, theirErr := readTheirResponse(in, method)
	switch {
	case err != nil && theirErr != nil:
	case err == nil && head == 0 || err == nil && m.n == 0:
		if theirErr == nil {
			t.Errorf("%q to %s: not complete, net/http takes %d of %d bytes", in, method, their.used, len(in))
		}
	case (err == nil) != (theirErr == nil):
		if !d.expected(err, theirErr) {
			t.Errorf("%q to %s: we say %v, net/http %v", in, method, err, theirErr)
		}
	case r.Status == 101 || r.Status < 200 && r.Close || r.Status == 204 && r.Close:
		// net/http leaves to its transport what follows these.
	default:
		if m.n != their.used || !bytes.Equal(m.body, their.body) {
			t.Errorf("%q to %s: %d bytes with body %q, net/http %d with %q", in, method, m.n, m.body, their.used, their.body)
		}
		if string([]byte{byte('0' + r.Status/100), byte('0' + r.Status/10%10), byte('0' + r.Status%10)}) != their.head {
			t.Errorf("%q: status %d, net/http %s", in, r.Status, their.head)
		}
		sameFields(t, in, r.Fields, their.header)
	}
}

// pick takes one of the usual most of the time, and one of the odd else.
func pick(r *rand.Rand, usual, odd []string) string {
	if len(odd) == 0 || r.IntN(10) > 0 {
		return usual[r.IntN(len(usual))]
	}
	return odd[r.IntN(len(odd))]
}

var (
	someMethods  = []string{"GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "PATCH", "CONNECT", "X-OWN"}
	oddMethods   = []string{"get", "", "GE T", "GET:", "G\x00T", "G\xffT"}
	someTargets  = []string{"/", "/a/b?c=d", "/%20", "//x", "http://a/b", "http://a", "*", "a:80", "/a;b=c"}
	oddTargets   = []string{"", "a", "/a b", "/#f", "/\xc3\xa4", "/%", "http://b/", "/\x00", "/{}|^\"<>\\`"}
	someVersions = []string{" HTTP/1.1\r\n", " HTTP/1.1\r\n", " HTTP/1.0\r\n"}
	oddVersions  = []string{" HTTP/1.2\r\n", " HTTP/1.1\n", "\r\n", "  HTTP/1.1\r\n", " HTTP/1.1 \r\n", " http/1.1\r\n"}
	someNames    = []string{"X-A", "Accept", "User-Agent", "Cookie", "Connection", "Content-Length", "Transfer-Encoding", "Upgrade", "Expect", "Host", "TE", "Trailer"}
	oddNames     = []string{"X A", "X-A ", "X-A\t", "", " X", "X\x00", "Content-Length ", "Transfer-Encoding\t", "\xc3\xa4"}
	someValues   = []string{"x", "", "a b", "5", "0", "chunked", "close", "keep-alive", "upgrade", "a", "X-A, close", "100-continue", "trailers"}
	oddValues    = []string{"+5", "5,5", "-1", "a\x00", "a\tb", "a\r\n b", "a\rb", "\xff", "gzip, chunked", "99999999999999999999", "a\x7f", "0x5", "Chunked"}
	someEnds     = []string{"\r\n"}
	oddEnds      = []string{"\n", "\r", "\r\r\n", " \r\n", "\n\r"}
	someBodies   = []string{"", "abcde", "5\r\nabcde\r\n0\r\n\r\n", "0\r\n\r\n", "A\r\n0123456789\r\n2;x=y\r\nab\r\n0\r\nX-T: v\r\n\r\n"}
	oddBodies    = []string{"5\nabcde\r\n0\r\n\r\n", "5 \r\nabcde\r\n0\r\n\r\n", "+5\r\nabcde\r\n0\r\n\r\n", "5\r\nabcdef\r\n0\r\n\r\n", "0\r\nX\r\n\r\n", "0\n\n", "5;\nabcde\r\n0\r\n\r\n", "00000000000000005\r\nabcde\r\n0\r\n\r\n"}
	someStatuses = []string{"200", "204", "304", "404", "100", "101", "500", "206"}
	oddStatuses  = []string{"20", "2000", "099", "abc", "-20", "+20"}
)

func someFields(r *rand.Rand) string {
	var s strings.Builder
	for range r.IntN(5) {
		s.WriteString(pick(r, someNames, oddNames))
		s.WriteString(pick(r, []string{": ", ":", ":\t"}, []string{" : ", "", "="}))
		s.WriteString(pick(r, someValues, oddValues))
		s.WriteString(pick(r, someEnds, oddEnds))
	}
	return s.String()
}

func someRequest(r *rand.Rand) string {
	s := pick(r, []string{""}, []string{"\r\n", "\r\n\r\n", "\n"}) + pick(r, someMethods, oddMethods) + " " + pick(r, someTargets, oddTargets) + pick(r, someVersions, oddVersions)
	s += pick(r, []string{"Host: a\r\n"}, []string{"", "Host: a\r\nHost: a\r\n", "Host: b/c\r\n", "Host:\r\n"})
	s += pick(r, []string{"", "Transfer-Encoding: chunked\r\n", "Content-Length: 5\r\n"}, nil)
	return s + someFields(r) + pick(r, someEnds, oddEnds) + pick(r, someBodies, oddBodies)
}

func someResponse(r *rand.Rand) string {
	s := pick(r, []string{"HTTP/1.1 ", "HTTP/1.0 "}, []string{"HTTP/1.1  ", "HTTP/1.2 ", "http/1.1 "}) + pick(r, someStatuses, oddStatuses)
	s += pick(r, []string{" OK\r\n", " \r\n", "\r\n"}, []string{" OK\n", " O\rK\r\n", "OK\r\n", " \x00\r\n"})
	s += pick(r, []string{"", "Transfer-Encoding: chunked\r\n", "Content-Length: 5\r\n"}, nil)
	return s + someFields(r) + pick(r, someEnds, oddEnds) + pick(r, someBodies, oddBodies)
}

// TestDifferential holds the corpus and made-up messages against net/http: whatever
// both take ends at the same byte, and whatever only one takes is on the list.
func TestDifferential(t *testing.T) {
	d := intended(t)
	for _, a := range corpus(t) {
		if a.status == 502 {
			compareResponse(t, a.in, "GET", d)
		} else {
			compareRequest(t, a.in, d)
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 30000 {
		compareRequest(t, []byte(someRequest(r)), d)
		compareResponse(t, []byte(someResponse(r)), []string{"GET", "HEAD", "POST", "CONNECT"}[r.IntN(4)], d)
		if t.Failed() {
			break
		}
	}
	for reason := range d.strict {
		if !d.seen[reason] {
			t.Errorf("testdata/differences.txt: %q is no difference any more", reason)
		}
	}
	for _, text := range d.lenient {
		if !d.seen[text] {
			t.Errorf("testdata/differences.txt: %q is no difference any more", text)
		}
	}
}
