package gateway

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"

	"github.com/fingerpost/fingerpost/view/gateway"
	"github.com/fingerpost/fingerpost/view/gateway/route"
)

// TestMatrix: each protocol of clients to each of endpoints, with every kind of
// message: what an endpoint says does not depend on how it was asked.
func TestMatrix(t *testing.T) {
	t.Parallel()
	r := newRig(t, gateway.Config{})
	tlsServer := func(protocols ...string) string {
		c := &tls.Config{Certificates: []tls.Certificate{*r.ca.leaf(t, "endpoint.internal")}, NextProtos: protocols}
		return serveOn(t, newServer(echo("matrix")), c)
	}
	plain := serve(t, echo("matrix"))
	checked := &route.EndpointTLS{ServerName: "endpoint.internal", Roots: r.ca.pool}
	for _, out := range []struct {
		name     string
		protocol route.Protocol
		tls      *route.EndpointTLS
		addr     string
	}{
		{"http", route.HTTP, nil, plain},
		{"h2c", route.H2C, nil, plain},
		{"https1", route.HTTPS, nil, tlsServer("http/1.1")},
		{"https2", route.HTTPS, checked, tlsServer("h2", "http/1.1")},
		{"h2", route.H2, checked, tlsServer("h2")},
	} {
		p := usual()
		p.Protocol, p.EndpointTLS = out.protocol, out.tls
		site := out.name + ".example.com"
		r.site(site, out.name, p)
		r.endpoints(out.name, out.addr)
		for _, two := range []bool{false, true} {
			for _, secure := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s from HTTP/2 %v TLS %v", out.name, two, secure), func(t *testing.T) {
					t.Parallel()
					tr := r.transport(two)
					scheme := "http://"
					if secure {
						scheme = "https://"
					}
					everyKind(t, tr, scheme+site)
				})
			}
		}
	}
	// An endpoint that cannot show who it is gets nothing.
	p := usual()
	p.Protocol, p.EndpointTLS = route.HTTPS, &route.EndpointTLS{ServerName: "other.internal", Roots: r.ca.pool}
	r.site("wrong.example.com", "wrong", p)
	r.endpoints("wrong", tlsServer("http/1.1"))
	req, _ := http.NewRequest("GET", "http://wrong.example.com/", nil)
	resp, err := r.transport(false).RoundTrip(req)
	if err != nil || resp.StatusCode != 502 {
		t.Errorf("an endpoint with a certificate for another name: %v %v", resp, err)
	} else {
		_ = resp.Body.Close()
	}
}

func everyKind(t *testing.T, tr *http.Transport, base string) {
	large := strings.Repeat(patternText, 20000)
	for _, c := range []struct {
		method, path string
		body         io.Reader
		status       int
		want         string // body; length is checked if it is "large"
	}{
		{"GET", "/a?b=%2F", nil, 200, "GET /a?b=%2F 0"},
		{"HEAD", "/bytes/100", nil, 200, ""},
		{"POST", "/body", strings.NewReader(large), 200, large},
		{"POST", "/body", io.LimitReader(pattern{}, int64(len(large))), 200, large},
		{"POST", "/body", strings.NewReader(""), 200, ""},
		{"PUT", "/", strings.NewReader("x"), 200, "PUT / 1"},
		{"DELETE", "/", nil, 200, "DELETE / 0"},
		{"GET", "/bytes/320000", nil, 200, large},
		{"GET", "/bytes/320000?chunked", nil, 200, large},
		{"GET", "/bytes/0", nil, 200, ""},
		{"GET", "/status/204", nil, 204, ""},
		{"GET", "/status/304", nil, 304, ""},
		{"GET", "/status/418", nil, 418, "status 418"},
		{"POST", "/status/403", strings.NewReader("not read by the endpoint"), 403, "status 403"},
		{"POST", "/trailers", io.LimitReader(pattern{}, 16), 200, patternText + "body"},
		{"GET", "/hints", nil, 200, "after hints"},
		{"GET", "/fields?answer=20000", nil, 200, ""},
	} {
		req, err := http.NewRequest(c.method, base+c.path, c.body)
		if err != nil {
			t.Fatal(err)
		}
		hints := 0
		req = req.WithContext(httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(int, textproto.MIMEHeader) error { hints++; return nil }}))
		resp, err := tr.RoundTrip(req)
		if err != nil {
			t.Errorf("%s %s: %v", c.method, c.path, err)
			continue
		}
		b, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		fields := strings.HasPrefix(c.path, "/fields")
		if err != nil || resp.StatusCode != c.status || !fields && string(b) != c.want || resp.Header.Get("Served-By") != "matrix" {
			t.Errorf("%s %s: %d, %d bytes, %v, %v", c.method, c.path, resp.StatusCode, len(b), resp.Header, err)
		}
		switch {
		case c.path == "/trailers" && (resp.Trailer.Get("Checksum") != "abc"):
			t.Errorf("trailers: %v", resp.Trailer)
		case c.path == "/hints" && hints != 1:
			t.Errorf("%d early hints", hints)
		case fields && len(resp.Header.Get("Large")) != 20000:
			t.Errorf("a large field: %d bytes", len(resp.Header.Get("Large")))
		case c.method == "HEAD" && resp.ContentLength != 100:
			t.Errorf("HEAD: length %d", resp.ContentLength)
		}
	}
}
