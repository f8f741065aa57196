package h1

import (
	"fmt"
	"testing"

	"github.com/fingerpost/fingerpost/wire/http"
)

func TestParseResponse(t *testing.T) {
	for _, c := range []struct{ name, method, in, want string }{
		{"plain", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: y\r\n\r\n", "200 len=5 declared 5 [X=y]"},
		{"no reason", "GET", "HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", "200 len=0 declared 0"},
		{"no space either", "GET", "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", "200 len=0 declared 0"},
		{"reason in UTF-8", "GET", "HTTP/1.1 404 Nicht gef\xc3\xbcnden\t!\r\nContent-Length: 0\r\n\r\n", "404 len=0 declared 0"},
		{"unknown status", "GET", "HTTP/1.1 999 X\r\nContent-Length: 0\r\n\r\n", "999 len=0 declared 0"},
		{"chunked", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "200 len=-1 chunked"},
		{"until close (6.3)", "GET", "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\n", "200 len=-1 close until-close"},
		{"equal lengths (RFC 9110, 8.6)", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", "200 len=5 declared 5"},
		{"list of equal lengths", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 5, 05\r\n\r\n", "200 len=5 declared 5"},
		{"1.0", "GET", "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", "200 len=5 declared close 5"},
		{"1.0 keep-alive", "GET", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\n", "200 len=5 declared 5"},
		{"HEAD", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "200 len=5 declared 0"},
		{"HEAD, chunked", "HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "200 len=0 0"},
		{"HEAD, nothing said", "HEAD", "HTTP/1.1 200 OK\r\n\r\n", "200 len=0 0"},
		{"304 with length", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: x\r\n\r\n", "304 len=5 declared 0 [ETag=x]"},
		{"304", "GET", "HTTP/1.1 304 Not Modified\r\n\r\n", "304 len=0 0"},
		{"204", "GET", "HTTP/1.1 204 No Content\r\n\r\n", "204 len=0 0"},
		{"204 with length 0", "GET", "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", "204 len=0 0"},
		{"204 with a body", "GET", "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", "204 len=0 close 0"},
		{"204 chunked", "GET", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", "204 len=0 close 0"},
		{"100", "POST", "HTTP/1.1 100 Continue\r\n\r\n", "100 len=0 0"},
		{"103", "GET", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", "103 len=0 0 [Link=</a>]"},
		{"101", "GET", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "101 len=0 upgrade=websocket 0"},
		{"101 without Upgrade", "GET", "HTTP/1.1 101 Switching Protocols\r\n\r\n", "101 len=0 0"},
		{"Upgrade without 101", "GET", "HTTP/1.1 200 OK\r\nUpgrade: h3\r\nConnection: upgrade\r\nContent-Length: 0\r\n\r\n", "200 len=0 declared 0"},
		{"CONNECT", "CONNECT", "HTTP/1.1 200 OK\r\n\r\n", "200 len=0 0"},
		{"CONNECT refused", "CONNECT", "HTTP/1.1 403 No\r\nContent-Length: 5\r\n\r\n", "403 len=5 declared 5"},
		{"space before the colon (RFC 9112, 5.1)", "GET", "HTTP/1.1 200 OK\r\nX-A \t: b\r\nServer : c\r\nContent-Length: 0\r\n\r\n", "200 len=0 declared 0 [X-A=b] [Server=c]"},
		{"the same of a known name", "GET", "HTTP/1.1 200 OK\r\nConnection : close, X-A\r\nX-A : b\r\nContent-Length: 0\r\n\r\n", "200 len=0 declared close 0"},
		{"odd Connection", "GET", "HTTP/1.1 200 OK\r\nConnection: timeout=5, (x), close\r\nContent-Length: 0\r\n\r\n", "200 len=0 declared close 0"},
		{"CONNECT with lengths (RFC 9110, 9.3.6)", "CONNECT", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: gzip\r\n\r\n", "200 len=0 0"},
		{"hop-by-hop", "GET", "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5\r\nConnection: X-A, keep-alive, set-cookie\r\nX-A: b\r\nTrailer: c\r\nSet-Cookie: d\r\nContent-Length: 0\r\n\r\n", "200 len=0 declared 0 [Set-Cookie=d]"},
	} {
		var r http.Response
		in := []byte(c.in)
		n, f, err := ParseResponse(append(in, 0), &r, []byte(c.method), nil)
		if err != nil || n != len(in) {
			t.Errorf("%s: %d of %d bytes, %v", c.name, n, len(in), err)
			continue
		}
		got := fmt.Sprintf("%d len=%d", r.Status, r.Length)
		if r.Declared {
			got += " declared"
		}
		if r.Close {
			got += " close"
		}
		if r.Upgrade != nil {
			got += " upgrade=" + string(r.Upgrade)
		}
		switch {
		case f.Chunked:
			got += " chunked"
		case f.UntilClose:
			got += " until-close"
		default:
			got += fmt.Sprint(" ", f.Length)
		}
		for _, f := range r.Fields {
			if f.ID != http.Identify(f.Name) {
				t.Errorf("%s: %s has ID %d", c.name, f.Name, f.ID)
			}
		}
		if got += showFields(r.Fields); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
		}
		for i := range in {
			if n, _, err := ParseResponse(in[:i], &r, []byte(c.method), nil); n != 0 || err != nil {
				t.Errorf("%s: after %d of %d bytes: %d, %v", c.name, i, len(in), n, err)
			}
		}
	}
}

func TestAppendResponse(t *testing.T) {
	get := &http.Request{Version: http.HTTP11, Method: []byte("GET")}
	head := &http.Request{Version: http.HTTP11, Method: []byte("HEAD")}
	old := &http.Request{Version: http.HTTP10, Method: []byte("GET")}
	last := &http.Request{Version: http.HTTP11, Method: []byte("GET"), Close: true}
	connect := &http.Request{Version: http.HTTP11, Method: []byte("CONNECT")}
	dated := http.Fields{{ID: http.Date, Name: []byte("Date"), Value: []byte("then")}}
	for _, c := range []struct {
		name    string
		r       http.Response
		to      *http.Request
		chunked bool
		want    string
	}{
		{"length", http.Response{Status: 200, Length: 5}, get, false, "HTTP/1.1 200 OK\r\nDate: now\r\nContent-Length: 5\r\n\r\n"},
		{"no body", http.Response{Status: 404}, get, false, "HTTP/1.1 404 Not Found\r\nDate: now\r\nContent-Length: 0\r\n\r\n"},
		{"chunked", http.Response{Status: 200, Length: -1}, get, true, "HTTP/1.1 200 OK\r\nDate: now\r\nTransfer-Encoding: chunked\r\n\r\n"},
		{"until close", http.Response{Status: 200, Length: -1}, old, false, "HTTP/1.1 200 OK\r\nDate: now\r\nConnection: close\r\n\r\n"},
		{"1.0 keep-alive", http.Response{Status: 200, Length: 1}, old, false, "HTTP/1.1 200 OK\r\nDate: now\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\n"},
		{"close", http.Response{Status: 200, Length: 1, Close: true}, get, false, "HTTP/1.1 200 OK\r\nDate: now\r\nContent-Length: 1\r\nConnection: close\r\n\r\n"},
		{"close of the client", http.Response{Status: 200, Length: 1}, last, false, "HTTP/1.1 200 OK\r\nDate: now\r\nContent-Length: 1\r\nConnection: close\r\n\r\n"},
		{"HEAD", http.Response{Status: 200, Length: 5, Declared: true}, head, true, "HTTP/1.1 200 OK\r\nDate: now\r\nContent-Length: 5\r\n\r\n"},
		{"HEAD, declared 0", http.Response{Status: 200, Declared: true}, head, false, "HTTP/1.1 200 OK\r\nDate: now\r\nContent-Length: 0\r\n\r\n"},
		{"HEAD, not declared", http.Response{Status: 200}, head, false, "HTTP/1.1 200 OK\r\nDate: now\r\n\r\n"},
		{"204", http.Response{Status: 204, Length: 5}, get, true, "HTTP/1.1 204 No Content\r\nDate: now\r\n\r\n"},
		{"304", http.Response{Status: 304, Length: 5, Declared: true}, get, false, "HTTP/1.1 304 Not Modified\r\nDate: now\r\nContent-Length: 5\r\n\r\n"},
		{"100", http.Response{Status: 100}, get, false, "HTTP/1.1 100 Continue\r\n\r\n"},
		{"101", http.Response{Status: 101, Upgrade: []byte("websocket")}, get, false, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"},
		{"CONNECT", http.Response{Status: 200, Length: -1}, connect, false, "HTTP/1.1 200 OK\r\nDate: now\r\n\r\n"},
		{"own date", http.Response{Status: 200, Fields: dated}, get, false, "HTTP/1.1 200 OK\r\nDate: then\r\nContent-Length: 0\r\n\r\n"},
		{"status without reason", http.Response{Status: 799}, nil, false, "HTTP/1.1 799 \r\nDate: now\r\nContent-Length: 0\r\n\r\n"},
	} {
		if got := string(AppendResponse(nil, &c.r, c.to, c.chunked, []byte("now"))); got != c.want {
			t.Errorf("%s:\n got %q\nwant %q", c.name, got, c.want)
		}
	}
}

func TestAppendRequest(t *testing.T) {
	fields := http.Fields{{Name: []byte("X"), Value: []byte("y")}, {ID: http.Host, Name: []byte("Host"), Value: []byte("z")}, {ID: http.Expect, Name: []byte("Expect"), Value: []byte("z")}}
	for _, c := range []struct {
		name, method, path string
		r                  http.Request
		chunked            bool
		want               string
	}{
		{"GET", "GET", "/b", http.Request{Fields: fields}, false, "GET /b HTTP/1.1\r\nHost: a:1\r\nX: y\r\n\r\n"},
		{"POST without body", "POST", "/b", http.Request{}, false, "POST /b HTTP/1.1\r\nHost: a:1\r\nContent-Length: 0\r\n\r\n"},
		{"POST", "POST", "/b", http.Request{Length: 9, Expect: true}, false, "POST /b HTTP/1.1\r\nHost: a:1\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n"},
		{"chunked", "POST", "/b", http.Request{Length: -1}, true, "POST /b HTTP/1.1\r\nHost: a:1\r\nTransfer-Encoding: chunked\r\n\r\n"},
		{"CONNECT", "CONNECT", "", http.Request{}, false, "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n"},
		{"upgrade", "GET", "/b", http.Request{Upgrade: []byte("websocket")}, false, "GET /b HTTP/1.1\r\nHost: a:1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"},
		{"all options", "GET", "/b", http.Request{Upgrade: []byte("w"), Close: true, Trailers: true}, false, "GET /b HTTP/1.1\r\nHost: a:1\r\nConnection: Upgrade, close, TE\r\nTE: trailers\r\nUpgrade: w\r\n\r\n"},
	} {
		c.r.Method, c.r.Path, c.r.Authority = []byte(c.method), []byte(c.path), []byte("a:1")
		if got := string(AppendRequest(nil, &c.r, c.chunked)); got != c.want {
			t.Errorf("%s:\n got %q\nwant %q", c.name, got, c.want)
		}
	}
}
