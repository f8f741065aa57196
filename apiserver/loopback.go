package apiserver

import (
	"context"
	"io"
	"net/http"
	"sync"
)

// handlerTransport calls the API server's handler without a socket: the
// server is its own busiest client (informers, controllers, admission), and
// TLS, TCP and HTTP framing to itself would cost it more than the work.
type handlerTransport struct {
	mu      sync.RWMutex
	handler http.Handler
	ready   chan struct{} // closed by set
}

func newHandlerTransport() *handlerTransport {
	return &handlerTransport{ready: make(chan struct{})}
}

func (t *handlerTransport) set(h http.Handler) {
	t.mu.Lock()
	t.handler = h
	t.mu.Unlock()
	close(t.ready)
}

// RoundTrip serves the request in a goroutine and returns once the handler
// has written its header; the body streams through a pipe.
func (t *handlerTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	select {
	case <-t.ready:
	case <-req.Context().Done():
		return nil, req.Context().Err()
	}
	t.mu.RLock()
	h := t.handler
	t.mu.RUnlock()

	ctx, cancel := context.WithCancel(req.Context())
	in := req.Clone(ctx)
	in.RequestURI = req.URL.RequestURI()
	in.RemoteAddr = "127.0.0.1:0"
	in.Proto, in.ProtoMajor, in.ProtoMinor = "HTTP/2.0", 2, 0
	if in.Body == nil {
		in.Body = http.NoBody
	}
	pr, pw := io.Pipe()
	w := &pipeWriter{header: http.Header{}, pw: pw, started: make(chan struct{})}
	go func() {
		defer func() {
			if p := recover(); p != nil { // http.ErrAbortHandler: the stream was cut
				w.WriteHeader(http.StatusInternalServerError)
				_ = w.flush()
				_ = pw.CloseWithError(io.ErrUnexpectedEOF)
			}
		}()
		h.ServeHTTP(w, in)
		w.WriteHeader(http.StatusOK)
		_ = w.flush()
		_ = pw.Close()
	}()
	select {
	case <-w.started:
	case <-req.Context().Done():
		cancel()
		_ = pr.CloseWithError(req.Context().Err())
		return nil, req.Context().Err()
	}
	return &http.Response{
		StatusCode: w.code, Status: http.StatusText(w.code),
		Proto: "HTTP/2.0", ProtoMajor: 2,
		Header: w.sent, Body: &pipeBody{pr, cancel}, ContentLength: -1, Request: req,
	}, nil
}

// pipeBody ends the handler's request when the client is done with the body.
type pipeBody struct {
	*io.PipeReader
	cancel context.CancelFunc
}

func (b *pipeBody) Close() error {
	b.cancel()
	return b.PipeReader.Close()
}

// bufferSize gathers small writes; a watch flushes after each event.
const bufferSize = 16 << 10

// pipeWriter is the handler's side. The handler is one goroutine, but
// time-out filters may write from another, hence the lock.
type pipeWriter struct {
	mu      sync.Mutex
	header  http.Header
	sent    http.Header
	code    int
	started chan struct{}
	buf     []byte
	pw      *io.PipeWriter
}

func (w *pipeWriter) Header() http.Header { return w.header }

func (w *pipeWriter) WriteHeader(code int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.writeHeader(code)
}

func (w *pipeWriter) writeHeader(code int) {
	if w.code != 0 || code >= 100 && code < 200 {
		return
	}
	w.code, w.sent = code, w.header.Clone()
	close(w.started)
}

func (w *pipeWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.writeHeader(http.StatusOK)
	if len(w.buf)+len(p) > bufferSize {
		if err := w.flushLocked(); err != nil {
			return 0, err
		}
		if len(p) >= bufferSize {
			return w.pw.Write(p)
		}
	}
	w.buf = append(w.buf, p...)
	return len(p), nil
}

func (w *pipeWriter) flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.flushLocked()
}

func (w *pipeWriter) flushLocked() error {
	if len(w.buf) == 0 {
		return nil
	}
	_, err := w.pw.Write(w.buf)
	w.buf = w.buf[:0]
	return err
}

// Flush sends what is gathered (http.Flusher).
func (w *pipeWriter) Flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.writeHeader(http.StatusOK)
	_ = w.flushLocked()
}

// CloseNotify is asked for by the filters that wrap response writers; the end
// of the request's context is what they use.
func (w *pipeWriter) CloseNotify() <-chan bool { return make(chan bool) }
