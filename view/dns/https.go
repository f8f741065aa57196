package dns

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	wiredns "github.com/fingerpost/fingerpost/wire/dns"
)

// DNS over HTTPS (RFC 8484): a question is the body of a POST, or the parameter
// "dns" of a GET, which caches between client and server may answer.

const (
	httpsPath  = "/dns-query"
	dnsMessage = "application/dns-message"

	httpsHeader  = 16 << 10 // bytes; a GET carries its question in the first line
	httpsStreams = 128      // questions at once on a connection
	httpsIdle    = 30 * time.Second
	httpsTimeout = 10 * time.Second
)

const httpStatuses = 8

// countedStatuses are those that serveDNS gives.
func countedStatuses() [httpStatuses]int {
	return [...]int{
		http.StatusOK, http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed,
		http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusInternalServerError, http.StatusServiceUnavailable,
	}
}

func (s *stats) status(code int) {
	for i, c := range countedStatuses() {
		if c == code {
			s.statuses[i].Add(1)
		}
	}
}

// serveHTTPS answers until the listener is closed and what was asked before is
// answered.
func (s *Server) serveHTTPS(ctx context.Context, l *secureListener, fail func(error)) {
	srv := &http.Server{
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.serveDNS(ctx, w, r, l.stats) }),
		TLSConfig:         s.tlsConfig("h2", "http/1.1"),
		ReadHeaderTimeout: httpsTimeout, ReadTimeout: httpsTimeout, WriteTimeout: httpsTimeout,
		IdleTimeout: max(s.cfg.IdleTimeout, httpsIdle), MaxHeaderBytes: httpsHeader,
		HTTP2:    &http.HTTP2Config{MaxConcurrentStreams: httpsStreams},
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug), // handshakes of port scanners
	}
	err := srv.ServeTLS(limited{l}, "", "")
	if !s.closing.Load() && !errors.Is(err, net.ErrClosed) {
		fail(fmt.Errorf("view/dns: accept on %s: %w", l.Addr(), err))
	}
	if err := srv.Shutdown(ctx); err != nil { // ctx ends after the grace time
		_ = srv.Close()
	}
}

// limited closes the connections for which there is no slot.
type limited struct{ *secureListener }

func (l limited) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case l.slots <- struct{}{}:
			return &slotted{Conn: conn, free: sync.OnceFunc(func() { <-l.slots })}, nil
		default:
			l.stats.dropped.Add(1)
			_ = conn.Close()
		}
	}
}

// slotted is a connection that gives its slot back.
type slotted struct {
	net.Conn
	free func()
}

func (c *slotted) Close() error {
	c.free()
	return c.Conn.Close()
}

// serveDNS answers one request. ctx is the server's: a question goes on being
// looked up for others when its client leaves.
func (s *Server) serveDNS(ctx context.Context, w http.ResponseWriter, r *http.Request, st *stats) {
	refuse := func(code int, text string) {
		st.status(code)
		http.Error(w, text, code)
	}
	defer func() {
		if v := recover(); v != nil {
			s.metrics.panicked()
			s.log.Error("a DNS question made the server panic: please report it", "error", panicError{v, debug.Stack()})
			refuse(http.StatusInternalServerError, "internal error")
		}
	}()
	pkt, code, text := questionOf(w, r)
	if pkt == nil {
		if code == http.StatusMethodNotAllowed {
			w.Header().Set("Allow", "GET, HEAD, POST")
		}
		refuse(code, text)
		return
	}
	from, _ := netip.ParseAddrPort(r.RemoteAddr)
	resp := s.reply(ctx, r.Context(), st, from, pkt)
	switch {
	case resp == nil && r.Context().Err() != nil:
		refuse(http.StatusServiceUnavailable, "the client left")
		return
	case resp == nil:
		refuse(http.StatusBadRequest, "this is no DNS question")
		return
	}
	h := w.Header()
	h.Set("Content-Type", dnsMessage)
	h.Set("Content-Length", strconv.Itoa(len(resp)))
	if ttl, ok := freshFor(resp); ok {
		h.Set("Cache-Control", "max-age="+strconv.FormatUint(uint64(ttl), 10))
	} else {
		h.Set("Cache-Control", "no-store")
	}
	st.status(http.StatusOK)
	_, _ = w.Write(resp)
}

// questionOf takes the question out of a request, or says what is wrong.
func questionOf(w http.ResponseWriter, r *http.Request) (pkt []byte, code int, text string) {
	if r.URL.Path != httpsPath {
		return nil, http.StatusNotFound, "questions go to " + httpsPath
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		value := r.URL.Query()["dns"]
		if len(value) != 1 || value[0] == "" {
			return nil, http.StatusBadRequest, "the parameter dns must hold one question"
		}
		b, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(value[0], "="))
		if err != nil {
			return nil, http.StatusBadRequest, "the parameter dns must be base64url"
		}
		return b, 0, ""
	case http.MethodPost:
		if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != dnsMessage {
			return nil, http.StatusUnsupportedMediaType, "the body must be of type " + dnsMessage
		}
		b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, tcpMax))
		switch {
		case errors.As(err, new(*http.MaxBytesError)):
			return nil, http.StatusRequestEntityTooLarge, "a question has at most 65535 bytes"
		case err != nil || len(b) == 0:
			return nil, http.StatusBadRequest, "the body cannot be read"
		}
		return b, 0, ""
	}
	return nil, http.StatusMethodNotAllowed, "ask with GET or POST"
}

// reply answers a question and waits for upstreams if it must. It is nil for a
// question that deserves no answer, and when the client leaves.
func (s *Server) reply(ctx, client context.Context, st *stats, from netip.AddrPort, pkt []byte) []byte {
	start := time.Now()
	var q query
	q.client = from.Addr()
	resp, f, wait := s.immediate(&q, pkt, nil, true)
	if resp == nil {
		return nil
	}
	padded := q.edns && asksPadding(pkt, q.end)
	if wait {
		answer := make(chan []byte, 1)
		s.later(ctx, &job{
			query: q, finding: f, start: start, stats: st, from: from, tcp: true, pkt: pkt, resp: resp,
			send: func(b []byte) { answer <- append([]byte(nil), b...) },
		})
		select {
		case resp = <-answer:
		case <-client.Done():
			return nil
		}
		if padded {
			resp = pad(resp)
		}
		return resp
	}
	if padded {
		resp = pad(resp)
	}
	s.answered(st, from, &q, &f, f.rcode, len(pkt), resp, time.Since(start))
	return resp
}

// freshFor is how long caches may keep an answer (RFC 8484 §5.1, RFC 2308 §5):
// the least TTL of its answers, or the negative TTL of its SOA. A failure is
// not to be kept.
func freshFor(resp []byte) (ttl uint32, ok bool) {
	if len(resp) < headerLen {
		return 0, false
	}
	if rcode := resp[3] & 0xF; rcode != rcodeOK && rcode != rcodeNXDomain {
		return 0, false
	}
	off, ok := wiredns.SkipQuestions(resp)
	if !ok {
		return 0, false
	}
	answers, authority := int(binary.BigEndian.Uint16(resp[6:])), int(binary.BigEndian.Uint16(resp[8:]))
	ttl, found := ^uint32(0), false
	for i := range answers + authority {
		fixed, end, ok := wiredns.SkipRecord(resp, off)
		if !ok {
			return 0, false
		}
		typ, t := binary.BigEndian.Uint16(resp[fixed:]), binary.BigEndian.Uint32(resp[fixed+4:])
		switch {
		case i < answers:
			ttl, found = min(ttl, t), true
		case typ == typeSOA && end-fixed >= 14:
			ttl, found = min(ttl, t, binary.BigEndian.Uint32(resp[end-4:])), true
		}
		off = end
	}
	return ttl, found
}
