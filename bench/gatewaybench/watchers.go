//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// watchers are clients that never want to lose anything: 48 kept connections
// and 16 kept TLS connections with one request after the other, 64 WebSockets,
// and new TLS connections all the time.
type watchers struct {
	at     place
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu    sync.Mutex
	count counts
	certs map[string]bool
	said  map[string]int
}

// counts is what they saw.
type counts struct {
	began                                                                       time.Time
	took                                                                        time.Duration
	requests, failed, cut, closed, messages, sockets, fresh, freshFailed, certs int64
	slow                                                                        [2000]int64 // by 50 µs
}

func (c *counts) rate() float64 { return float64(c.requests) / c.took.Seconds() }

func (c *counts) p99() float64 {
	var sum int64
	for i, n := range c.slow {
		if sum += n; sum*100 >= c.requests*99 {
			return float64(i+1) * 0.05
		}
	}
	return float64(len(c.slow)) * 0.05
}

func newWatchers(at place) *watchers {
	return &watchers{at: at, certs: map[string]bool{}, said: map[string]int{}, count: counts{began: time.Now()}}
}

func (w *watchers) run(ctx context.Context) {
	ctx, w.cancel = context.WithCancel(ctx)
	for i := range 64 {
		w.wg.Go(func() { w.ask(ctx, i >= 48) })
		w.wg.Go(func() { w.talk(ctx) })
	}
	w.wg.Go(func() { w.greet(ctx) })
}

func (w *watchers) stop() {
	w.cancel()
	w.wg.Wait()
}

// take gives the counts so far and begins anew.
func (w *watchers) take() counts {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.count
	c.took, c.certs = time.Since(c.began), int64(len(w.certs))
	w.count = counts{began: time.Now()}
	return c
}

// examples are the first words of each kind of failure.
func (w *watchers) examples() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for s, n := range w.said {
		out = append(out, fmt.Sprintf("%d × %s", n, s))
	}
	return out
}

func (w *watchers) note(f func(*counts), what string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f(&w.count)
	if err != nil && len(w.said) < 50 {
		w.said[fmt.Sprintf("%s: %.120s", what, kindOf(err))]++
	}
}

// kindOf leaves addresses out, so that equal errors are equal.
func kindOf(err error) string {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Op + ": " + op.Err.Error()
	}
	return err.Error()
}

func (w *watchers) dial(secure bool) (net.Conn, error) {
	if !secure {
		return net.DialTimeout("tcp", w.at.http, 10*time.Second)
	}
	d := &net.Dialer{Timeout: 10 * time.Second}
	return tls.DialWithDialer(d, "tcp", w.at.https, &tls.Config{
		ServerName: "bench.example.com", InsecureSkipVerify: true, //nolint:gosec // self-signed
	})
}

// answerError is an answer that is not the wanted one.
type answerError struct{ text string }

func (e answerError) Error() string { return e.text }

// exchange makes a request on a connection. any says whether something of an
// answer came, last whether it says that the connection ends with it.
func exchange(c net.Conn, r *bufio.Reader) (any, last bool, err error) {
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Write(plainRequest); err != nil {
		return false, false, err
	}
	line, err := r.ReadSlice('\n')
	if err != nil {
		return len(line) > 0, false, err
	}
	if !bytes.HasPrefix(line, []byte("HTTP/1.1 200")) {
		return true, false, answerError{string(bytes.TrimSpace(line))}
	}
	length := 0
	for {
		if line, err = r.ReadSlice('\n'); err != nil {
			return true, false, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(": "))
		switch {
		case bytes.EqualFold(name, []byte("content-length")):
			if length, err = strconv.Atoi(string(value)); err != nil {
				return true, false, err
			}
		case bytes.EqualFold(name, []byte("connection")):
			last = bytes.EqualFold(value, []byte("close"))
		}
	}
	n, err := r.Discard(length)
	if err == nil && n != 1024 {
		err = answerError{fmt.Sprintf("%d bytes", n)}
	}
	return true, last, err
}

// ask makes requests on a connection that it wants to keep.
func (w *watchers) ask(ctx context.Context, secure bool) {
	for ctx.Err() == nil {
		c, err := w.dial(secure)
		if err != nil {
			w.note(func(c *counts) { c.failed++ }, "connect", err)
			_ = sleep(ctx, 10*time.Millisecond)
			continue
		}
		r := bufio.NewReader(c)
		for n := 0; ; n++ {
			began := time.Now()
			any, last, err := exchange(c, r)
			if ctx.Err() != nil {
				break
			}
			if err == nil {
				slot := min(int(time.Since(began)/(50*time.Microsecond)), len(w.count.slow)-1)
				w.note(func(c *counts) { c.requests++; c.slow[slot]++ }, "", nil)
				if last {
					w.note(func(c *counts) { c.closed++ }, "closed", errors.New("connection: close"))
					break
				}
				continue
			}
			var wrong answerError
			switch {
			case errors.As(err, &wrong):
				w.note(func(c *counts) { c.failed++ }, "answer", err)
			case n > 0 && !any:
				w.note(func(c *counts) { c.cut++; c.closed++ }, "cut", err)
			default:
				w.note(func(c *counts) { c.failed++; c.closed++ }, "broken", err)
			}
			break
		}
		_ = c.Close()
	}
}

// talk keeps a WebSocket.
func (w *watchers) talk(ctx context.Context) {
	d := websocket.Dialer{HandshakeTimeout: 10 * time.Second}
	for ctx.Err() == nil {
		c, resp, err := d.DialContext(ctx, "ws://"+w.at.http+"/ws", map[string][]string{"Host": {"bench.example.com"}})
		if err != nil {
			if ctx.Err() == nil {
				w.note(func(c *counts) { c.failed++ }, "websocket: connect", err)
			}
			_ = sleep(ctx, 10*time.Millisecond)
			continue
		}
		_ = resp.Body.Close()
		for n := 0; ; n++ {
			text := "message " + strconv.Itoa(n)
			_ = c.SetWriteDeadline(time.Now().Add(10 * time.Second))
			err := c.WriteMessage(websocket.TextMessage, []byte(text))
			if err == nil {
				var got []byte
				_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
				if _, got, err = c.ReadMessage(); err == nil && string(got) != text {
					err = answerError{fmt.Sprintf("sent %q, got %q", text, got)}
				}
			}
			if ctx.Err() != nil {
				break
			}
			if err != nil {
				w.note(func(c *counts) { c.sockets++ }, "websocket", err)
				break
			}
			w.note(func(c *counts) { c.messages++ }, "", nil)
			if sleep(ctx, 100*time.Millisecond) != nil {
				break
			}
		}
		_ = c.Close()
	}
}

// greet makes new TLS connections and looks at their certificates.
func (w *watchers) greet(ctx context.Context) {
	for ctx.Err() == nil {
		err := w.greetOnce()
		w.note(func(c *counts) {
			c.fresh++
			if err != nil {
				c.freshFailed++
			}
		}, "new TLS connection", err)
		_ = sleep(ctx, 20*time.Millisecond)
	}
}

func (w *watchers) greetOnce() error {
	c, err := w.dial(true)
	if err != nil {
		return err
	}
	defer c.Close()
	cert := c.(*tls.Conn).ConnectionState().PeerCertificates[0]
	w.mu.Lock()
	w.certs[cert.Subject.CommonName] = true
	w.mu.Unlock()
	_, _, err = exchange(c, bufio.NewReader(c))
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}
