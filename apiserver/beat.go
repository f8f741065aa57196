package apiserver

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fingerpost/fingerpost/apiserver/heartbeat"
)

// beatConns serves the HTTP/1.1 connections over which heartbeats come, once the
// first has come the usual way: it reads plain heartbeats itself and answers
// them as the renewer does, for half of what net/http costs. A request that is
// anything else goes to net/http with its connection, as if it had never been
// taken away.
type beatConns struct {
	renewer *renewer
	back    chan net.Conn // connections on their way back to net/http
	date    atomic.Pointer[beatDate]

	mu      sync.Mutex
	conns   map[*beatConn]struct{}
	stopped bool
	wg      sync.WaitGroup
}

// beatDate is the text of a Date header.
type beatDate struct {
	second int64
	text   string
}

const (
	// maxBeat is the longest head and body that is read here.
	maxBeat = 16 << 10
	// maxReturns is how often a connection is taken: one that mixes heartbeats
	// with other requests is net/http's.
	maxReturns = 2
	// As upstream's server has it: how long a connection may be idle, and how
	// long a head may take.
	beatIdle = 90 * time.Second
	headTime = 32 * time.Second
	// deadlineStep is how late the end of an idle connection may be noticed, so
	// that the deadline does not change with each heartbeat.
	deadlineStep = 15 * time.Second
)

func newBeatConns(r *renewer) *beatConns {
	return &beatConns{renewer: r, back: make(chan net.Conn), conns: map[*beatConn]struct{}{}}
}

// run serves what comes back with h until ctx ends, then ends all connections,
// each after the heartbeat that is under way.
func (b *beatConns) run(ctx context.Context, h http.Handler) {
	s := &http.Server{
		MaxHeaderBytes: 1 << 20, IdleTimeout: beatIdle, ReadHeaderTimeout: headTime,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, returnedKey{}, c)
		},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if c, ok := r.Context().Value(returnedKey{}).(*returned); ok {
				r.TLS = c.state
			}
			h.ServeHTTP(w, r)
		}),
	}
	l := &backListener{b.back, make(chan struct{})}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.Serve(l)
	}()
	<-ctx.Done()
	b.mu.Lock()
	b.stopped = true
	for c := range b.conns {
		_ = c.conn.SetReadDeadline(time.Now())
		_ = c.conn.SetWriteDeadline(time.Now().Add(time.Second))
	}
	b.mu.Unlock()
	b.wg.Wait()
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopRequests)
	defer cancel()
	if s.Shutdown(stopping) != nil {
		_ = s.Close()
	}
	<-served
}

// take answers a request that was found to be a good heartbeat, and serves its
// connection from here on. False: the connection is not one that can be taken,
// and nothing was answered.
func (b *beatConns) take(w http.ResponseWriter, req *http.Request, until time.Time, ns string, ttl time.Duration) bool {
	if req.ProtoMajor != 1 || req.ProtoMinor != 1 || req.TLS == nil || req.Close || req.ContentLength < 0 || req.Header.Get("Expect") != "" || until.IsZero() {
		return false
	}
	from, _ := req.Context().Value(returnedKey{}).(*returned)
	if from != nil && from.times >= maxReturns {
		return false
	}
	hijacker, ok := w.(http.Hijacker)
	if !ok {
		return false
	}
	b.mu.Lock()
	if b.stopped {
		b.mu.Unlock()
		return false
	}
	b.wg.Add(1)
	b.mu.Unlock()
	conn, buf, err := hijacker.Hijack()
	if err != nil {
		b.wg.Done()
		return false
	}
	c := &beatConn{
		beats: b, remote: req.RemoteAddr, state: req.TLS, cert: credential(&http.Request{TLS: req.TLS}),
		credential: credential(req), ns: ns, until: until,
	}
	if from != nil {
		c.conn, c.times = from.Conn, from.times
		c.in = append(c.in, from.before...)
	} else {
		c.conn = conn
	}
	// What net/http has read already.
	ahead, _ := buf.Reader.Peek(buf.Reader.Buffered())
	c.in = append(append(make([]byte, 0, 4<<10), ahead...), c.in...)
	go func() {
		defer b.wg.Done()
		c.serve(ttl)
	}()
	return true
}

// now gives the text of a Date header.
func (b *beatConns) now(t time.Time) string {
	second := t.Unix()
	d := b.date.Load()
	if d == nil || d.second != second {
		d = &beatDate{second, t.UTC().Format(http.TimeFormat)}
		b.date.Store(d)
	}
	return d.text
}

// beatConn is a connection over which heartbeats come.
type beatConn struct {
	beats  *beatConns
	conn   net.Conn
	remote string
	state  *tls.ConnectionState
	times  int // how often it was given back

	cert    string // the client's certificate, "" if none
	partial bool   // a head or body is under way

	// Heartbeats with this credential in this namespace are allowed until then.
	credential, ns string
	until          time.Time

	head     heartbeat.Head
	in, out  []byte        // read and not answered yet; the last answer
	ttl      time.Duration // that text says
	text     []byte        // the rest of an answer, after the date
	deadline time.Time     // for reading
}

// serve answers the first heartbeat, which is good, and those that follow until
// the connection ends or is given back.
func (c *beatConn) serve(first time.Duration) {
	b := c.beats
	b.mu.Lock()
	if b.stopped {
		b.mu.Unlock()
		_ = c.conn.Close()
		return
	}
	b.conns[c] = struct{}{}
	b.mu.Unlock()
	goOn := c.good(first) == nil && c.loop()
	b.mu.Lock()
	delete(b.conns, c)
	stopped := b.stopped
	b.mu.Unlock()
	if !goOn || stopped {
		_ = c.conn.Close()
		return
	}
	_ = c.conn.SetDeadline(time.Time{})
	b.back <- &returned{Conn: c.conn, before: c.in, state: c.state, times: c.times + 1}
}

// loop reads and answers heartbeats; true: what came is something else.
func (c *beatConn) loop() bool {
	for {
		switch v := c.head.Read(c.in); {
		case v == heartbeat.Other || len(c.in) >= maxBeat:
			return true
		case v == heartbeat.More || len(c.in) < c.head.Size+c.head.Body:
			if !c.fill() {
				return false
			}
			continue
		}
		if c.answer(c.in[c.head.Size:c.head.Size+c.head.Body]) != nil {
			return false
		}
		c.in = append(c.in[:0], c.in[c.head.Size+c.head.Body:]...)
	}
}

// fill reads what there is.
func (c *beatConn) fill() bool {
	now := time.Now()
	switch {
	case len(c.in) > 0 && !c.partial:
		c.partial, c.deadline = true, now.Add(headTime)
	case len(c.in) == 0 && c.deadline.Sub(now) < beatIdle:
		c.deadline = now.Add(beatIdle + deadlineStep)
	default:
		now = time.Time{}
	}
	if !now.IsZero() && !c.beats.extend(c) {
		return false
	}
	if len(c.in) == cap(c.in) {
		c.in = append(c.in, 0)[:len(c.in)]
	}
	n, err := c.conn.Read(c.in[len(c.in):cap(c.in)])
	c.in = c.in[:len(c.in)+n]
	return n > 0 || err == nil
}

// extend moves the deadline of a connection, unless it is to end.
func (b *beatConns) extend(c *beatConn) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.stopped && c.conn.SetReadDeadline(c.deadline) == nil
}

// answer answers the heartbeat whose head was read.
func (c *beatConn) answer(body []byte) error {
	c.partial = false
	r := c.beats.renewer
	key := c.head.Credential
	if key == "" {
		key = c.cert
	}
	if key != c.credential || c.head.Namespace != c.ns || !r.now().Before(c.until) {
		req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(c.in[:c.head.Size])))
		if err != nil {
			return err // net/http would not have taken it either
		}
		req.TLS, req.RemoteAddr = c.state, c.remote
		w := &beatAnswer{}
		until, ok := r.allow(w, req, c.head.Namespace, c.head.Name)
		c.credential, c.ns, c.until = key, c.head.Namespace, until
		if !ok {
			return c.write(w)
		}
	}
	ttl, no := r.renew(c.head.Namespace, c.head.Name, c.head.Query, body)
	if no != nil {
		w := &beatAnswer{}
		no.write(w)
		return c.write(w)
	}
	return c.good(ttl)
}

// good answers a heartbeat that was taken.
func (c *beatConn) good(ttl time.Duration) error {
	if c.text == nil || c.ttl != ttl {
		body := renewed(ttl)
		c.ttl = ttl
		c.text = append(append(append(c.text[:0], "\r\nContent-Length: "...), strconv.Itoa(len(body))...), "\r\n\r\n"...)
		c.text = append(c.text, body...)
	}
	c.out = append(c.out[:0], "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nDate: "...)
	c.out = append(append(c.out, c.beats.now(time.Now())...), c.text...)
	_, err := c.conn.Write(c.out)
	return err
}

// write sends an answer that the renewer gave.
func (c *beatConn) write(w *beatAnswer) error {
	c.out = append(c.out[:0], "HTTP/1.1 "+strconv.Itoa(w.code)+" "+http.StatusText(w.code)+"\r\nContent-Type: "+w.Header().Get("Content-Type")+"\r\nDate: "...)
	c.out = append(c.out, c.beats.now(time.Now())...)
	c.out = append(c.out, "\r\nContent-Length: "+strconv.Itoa(w.body.Len())+"\r\n\r\n"...)
	_, err := c.conn.Write(append(c.out, w.body.Bytes()...))
	return err
}

// beatAnswer keeps an answer (http.ResponseWriter).
type beatAnswer struct {
	header http.Header
	code   int
	body   bytes.Buffer
}

func (w *beatAnswer) Header() http.Header {
	if w.header == nil {
		w.header = http.Header{}
	}
	return w.header
}

func (w *beatAnswer) WriteHeader(code int)        { w.code = code }
func (w *beatAnswer) Write(p []byte) (int, error) { return w.body.Write(p) }

// returned is a connection that goes back to net/http, with what was read of
// it. net/http does not see that it is a TLS connection; run tells it.
type returned struct {
	net.Conn
	before []byte
	state  *tls.ConnectionState
	times  int
}

type returnedKey struct{}

// Read gives what was read before, then what comes.
func (r *returned) Read(p []byte) (int, error) {
	if len(r.before) > 0 {
		n := copy(p, r.before)
		r.before = r.before[n:]
		return n, nil
	}
	return r.Conn.Read(p)
}

// backListener accepts the connections that go back.
type backListener struct {
	conns  <-chan net.Conn
	closed chan struct{}
}

var errBackClosed = errors.New("apiserver: the server stops")

func (l *backListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, errBackClosed
	}
}

func (l *backListener) Close() error {
	close(l.closed) // once: by http.Server
	return nil
}

func (l *backListener) Addr() net.Addr { return &net.TCPAddr{} }
