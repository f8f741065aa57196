package gateway

import (
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gorilla/websocket"
)

// echo is an HTTP server that does what clients ask for by the path. Each answer
// names it in the field Served-By.
func echo(name string) http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			return
		}
		fmt.Fprintf(w, "%s %s %d", r.Method, r.URL.RequestURI(), n)
	})
	// body gives back what was sent, while it comes.
	m.HandleFunc("/body", func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		w.Header().Set("Framing", strings.Join(r.TransferEncoding, ",")+"/"+strconv.FormatInt(r.ContentLength, 10))
		_, _ = io.Copy(w, r.Body)
	})
	// status/N, with a body where there may be one.
	m.HandleFunc("/status/{n}", func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.PathValue("n"))
		if n == 304 {
			w.Header().Set("ETag", `"x"`)
		}
		w.WriteHeader(n)
		if n >= 200 && n != 204 && n != 304 {
			fmt.Fprintf(w, "status %d", n)
		}
	})
	// bytes/N with a length; ?chunked without.
	m.HandleFunc("/bytes/{n}", func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.ParseInt(r.PathValue("n"), 10, 64)
		if !r.URL.Query().Has("chunked") {
			w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
		}
		_, _ = io.CopyN(w, pattern{}, n)
	})
	m.HandleFunc("/trailers", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "Checksum")
		_, _ = io.Copy(w, r.Body)
		_, _ = io.WriteString(w, "body")
		// A response with a length has no place for trailers in HTTP/1.
		_ = http.NewResponseController(w).Flush()
		w.Header().Set("Checksum", "abc")
		w.Header().Set(http.TrailerPrefix+"Late", r.Trailer.Get("Sent"))
	})
	m.HandleFunc("/range", func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "a.txt", time.Unix(1e9, 0), strings.NewReader("0123456789"))
	})
	m.HandleFunc("/gzip", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		_, _ = io.WriteString(z, strings.Repeat("compressed ", 1000))
		_ = z.Close()
	})
	m.HandleFunc("/fields", func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.URL.Query().Get("answer"))
		w.Header().Set("Large", strings.Repeat("x", n))
		sum := 0
		for k, v := range r.Header {
			sum += len(k) + len(strings.Join(v, ""))
		}
		fmt.Fprint(w, sum)
	})
	m.HandleFunc("/hints", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		_, _ = io.WriteString(w, "after hints")
	})
	m.Handle("/ws", socket(websocket.Upgrader{EnableCompression: true, CheckOrigin: func(*http.Request) bool { return true }, Subprotocols: []string{"chat"}}))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Served-By", name)
		m.ServeHTTP(w, r)
	})
}

// pattern is bytes without end.
type pattern struct{}

const patternText = "0123456789abcdef"

func (pattern) Read(p []byte) (int, error) {
	for i := 0; i < len(p); {
		i += copy(p[i:], patternBlock)
	}
	return len(p), nil
}

var patternBlock = strings.Repeat(patternText, 4096)
