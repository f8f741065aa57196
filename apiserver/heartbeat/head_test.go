package heartbeat

import (
	"bufio"
	"bytes"
	"net/http"
	"strings"
	"testing"
)

const path = "/apis/fingerpost.dev/v1alpha1/namespaces/default/instances/web-1/renew"

func text(method, path, token, more string) string {
	return method + " " + path + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + token + "\r\n" + more + "\r\n"
}

// FuzzHead: whatever is taken for a heartbeat is one for net/http too, the
// same one.
func FuzzHead(f *testing.F) {
	for _, more := range []string{"", "Content-Length: 0\r\n", "Content-Length: 24\r\n", "Accept: */*\r\n", "Transfer-Encoding: chunked\r\n", "Connection: close\r\n", "User-Agent: \xff\r\n", " x: y\r\n"} {
		f.Add([]byte(text("PUT", path, "good", more)), []byte(text("POST", path, "good", "")))
	}
	f.Add([]byte(text("PUT", path+"?door=a&id=b", "good", "Host: y\r\n")), []byte{})
	f.Add([]byte(text("PUT", path, "good", "Content-Length: 1\r\nContent-Length: 2\r\n")), []byte{})
	f.Fuzz(func(t *testing.T, a, b []byte) {
		var h Head
		for _, in := range [][]byte{a, b, a} {
			if h.Read(in) != Beat {
				continue
			}
			if h.Size > len(in) || h.Body < 0 || h.Body > MaxBody {
				t.Fatalf("%d bytes of head and %d of body in %d", h.Size, h.Body, len(in))
			}
			r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(in)))
			if err != nil {
				t.Fatalf("taken, but net/http says: %v: %q", err, in)
			}
			ns, name, ok := Target(r.URL.Path)
			if !ok || ns != h.Namespace || name != h.Name || r.URL.RawQuery != h.Query || r.Method != "PUT" && r.Method != "POST" {
				t.Fatalf("read %q %q %q, net/http: %s %s", h.Namespace, h.Name, h.Query, r.Method, r.URL)
			}
			if r.ContentLength != int64(h.Body) || len(r.TransferEncoding) > 0 || r.Close || r.Host == "" || r.ProtoMinor != 1 {
				t.Fatalf("read a body of %d, net/http: %d %v close=%v host=%q", h.Body, r.ContentLength, r.TransferEncoding, r.Close, r.Host)
			}
			if r.Header.Get("Authorization") != h.Credential {
				t.Fatalf("read %q, net/http: %q", h.Credential, r.Header.Get("Authorization"))
			}
		}
	})
}

func BenchmarkHead(b *testing.B) {
	in := []byte(text("PUT", path, strings.Repeat("x", 1000), "User-Agent: y\r\n"))
	var h Head
	b.ReportAllocs()
	for b.Loop() {
		if h.Read(in) != Beat {
			b.Fatal("no heartbeat")
		}
	}
}
