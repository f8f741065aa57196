package dns

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"sync"
	"time"
)

// writeTimeout is how long a client may take to read an answer.
const writeTimeout = 5 * time.Second

func (s *Server) serveTCP(ctx context.Context, l net.Listener, fail func(error)) {
	st := s.metrics.stats("dns://"+l.Addr().String(), "tcp")
	s.accept(ctx, l, s.slots, st, fail, func(conn net.Conn) { s.converse(ctx, conn, st, false) })
}

// accept hands every connection for which there is a slot to a goroutine of
// its own. It returns when the listener is closed and all of them ended.
func (s *Server) accept(ctx context.Context, l net.Listener, slots chan struct{}, st *stats, fail func(error), serve func(net.Conn)) {
	var conns sync.WaitGroup
	defer conns.Wait()
	for errs := 0; ; {
		conn, err := l.Accept()
		if err != nil {
			if s.closing.Load() || errors.Is(err, net.ErrClosed) {
				return
			}
			if errs++; errs == maxErrors {
				fail(fmt.Errorf("view/dns: accept on %s: %w", l.Addr(), err))
				return
			}
			select { // too many open files, most likely: let some be closed
			case <-time.After(10 * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		}
		errs = 0
		select {
		case slots <- struct{}{}:
		default:
			st.dropped.Add(1)
			_ = conn.Close()
			continue
		}
		conns.Go(func() {
			defer func() { <-slots }()
			serve(conn)
		})
	}
}

// tcpConn is one connection. Answers that come from upstreams are written out
// of order, by other goroutines.
type tcpConn struct {
	net.Conn
	mu    sync.Mutex // guards w
	w     *bufio.Writer
	stats *stats
}

// flush sends what write held back.
func (c *tcpConn) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.w.Buffered() > 0 {
		_ = c.SetWriteDeadline(time.Now().Add(writeTimeout))
		_ = c.w.Flush()
	}
}

// write sends an answer; with flush false it may wait for the next one.
func (c *tcpConn) write(resp []byte, flush bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.SetWriteDeadline(time.Now().Add(writeTimeout))
	var length [2]byte
	binary.BigEndian.PutUint16(length[:], uint16(len(resp)))
	_, err := c.w.Write(length[:])
	if err == nil {
		_, err = c.w.Write(resp)
	}
	if err == nil && flush {
		err = c.w.Flush()
	}
	if err != nil {
		c.stats.dropped.Add(1)
		_ = c.Close() // half an answer cannot be taken back
	}
}

// converse answers the questions of a connection until it is idle for too
// long, breaks, or the server stops. If it is encrypted, answers are padded for
// those who pad questions.
func (s *Server) converse(ctx context.Context, conn net.Conn, st *stats, encrypted bool) {
	c := &tcpConn{Conn: conn, w: bufio.NewWriterSize(conn, 2048), stats: st}
	s.mu.Lock()
	s.conns[conn] = struct{}{}
	s.mu.Unlock()
	var waiting sync.WaitGroup
	defer func() {
		if v := recover(); v != nil {
			s.metrics.panicked()
			s.log.Error("a DNS question made the server panic: please report it", "error", panicError{v, debug.Stack()})
		}
		waiting.Wait()
		c.flush()
		_ = conn.Close()
		s.mu.Lock()
		delete(s.conns, conn)
		s.mu.Unlock()
	}()
	r := bufio.NewReaderSize(conn, 2048)
	in, out := make([]byte, 512), make([]byte, 0, udpMax)
	from := conn.RemoteAddr().(*net.TCPAddr).AddrPort()
	var q query
	for {
		if r.Buffered() == 0 { // answers to pipelined questions go out together
			c.flush()
		}
		// One deadline for the whole question: a client that sends it byte by
		// byte gains nothing.
		_ = conn.SetReadDeadline(time.Now().Add(s.cfg.IdleTimeout))
		if s.closing.Load() {
			return
		}
		var length [2]byte
		if _, err := io.ReadFull(r, length[:]); err != nil {
			return
		}
		n := int(binary.BigEndian.Uint16(length[:]))
		if n < headerLen {
			return
		}
		if n > cap(in) {
			in = make([]byte, n)
		}
		if _, err := io.ReadFull(r, in[:n]); err != nil {
			return
		}
		start := time.Now()
		q.client = from.Addr()
		resp, f, wait := s.immediate(&q, in[:n], out, true)
		if resp == nil {
			return
		}
		padded := encrypted && q.edns && asksPadding(in[:n], q.end)
		if wait {
			waiting.Add(1)
			s.later(ctx, &job{
				query: q, finding: f, start: start, stats: st, from: from, tcp: true,
				pkt: append([]byte(nil), in[:n]...), resp: append([]byte(nil), resp...),
				send: func(b []byte) {
					if padded {
						b = pad(b)
					}
					c.write(b, true)
				}, done: waiting.Done,
			})
			continue
		}
		if padded {
			resp = pad(resp)
		}
		c.write(resp, false)
		s.answered(st, from, &q, &f, f.rcode, n, resp, time.Since(start))
	}
}
