package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"time"
)

const (
	udpRead   = 1536    // no question is longer; what is, is malformed
	udpBuffer = 4 << 20 // the kernel's queue, as far as it lets us
	maxErrors = 100     // in a row: the socket is broken
)

// udpSocket is a socket with one goroutine.
type udpSocket struct {
	conn *net.UDPConn // nil: raw is used
	raw  *rawSocket
	addr netip.AddrPort
	// oob: the socket has many addresses, and the kernel tells which one a
	// question came to, so that the answer can come from there.
	oob   bool
	stats *stats
}

// stop makes the socket's goroutine take no more questions. Answers can still
// be sent.
func (u *udpSocket) stop() {
	if u.raw != nil {
		u.raw.stop()
		return
	}
	_ = u.conn.SetReadDeadline(time.Unix(1, 0))
}

func (u *udpSocket) close() {
	if u.raw != nil {
		u.raw.close()
		return
	}
	_ = u.conn.Close()
}

func (s *Server) serveUDP(ctx context.Context, u *udpSocket, fail func(error)) {
	loop := s.loopUDP
	if u.raw != nil {
		loop = s.loopBatch
	}
	for {
		err := loop(ctx, u)
		switch {
		case s.closing.Load():
			return
		case errors.As(err, new(panicError)):
			s.metrics.panicked()
			s.log.Error("a DNS question made the server panic: please report it", "error", err)
		case err != nil:
			fail(fmt.Errorf("view/dns: read from %s: %w", u.addr, err))
			return
		}
	}
}

// panicError is a bug in the answering of one question. The next question must
// not suffer for it.
type panicError struct {
	value any
	stack []byte
}

func (p panicError) Error() string { return fmt.Sprintf("%v\n%s", p.value, p.stack) }

// caught is deferred by what must outlive a panic.
func caught(err *error) {
	if v := recover(); v != nil {
		*err = panicError{v, debug.Stack()}
	}
}

func (s *Server) loopUDP(ctx context.Context, u *udpSocket) (err error) {
	defer caught(&err)
	in := make([]byte, udpRead)
	out := make([]byte, 0, udpMax)
	var oob []byte
	if u.oob {
		oob = make([]byte, 128)
	}
	var q query
	for errs := 0; errs < maxErrors; {
		var n, oobn int
		var from netip.AddrPort
		if u.oob {
			n, oobn, _, from, err = u.conn.ReadMsgUDPAddrPort(in, oob)
		} else {
			n, from, err = u.conn.ReadFromUDPAddrPort(in)
		}
		if err != nil {
			if s.closing.Load() || errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
				return err
			}
			errs++
			continue
		}
		errs = 0
		start := time.Now()
		q.client = from.Addr()
		resp, f, wait := s.immediate(&q, in[:n], out, false)
		if resp == nil {
			continue
		}
		if wait {
			s.later(ctx, &job{
				query: q, finding: f, start: start, stats: u.stats, from: from,
				pkt: append([]byte(nil), in[:n]...), resp: append([]byte(nil), resp...),
				send: u.sender(oob[:oobn], from),
			})
			continue
		}
		if u.oob {
			_, _, err = u.conn.WriteMsgUDPAddrPort(resp, source(oob[:oobn]), from)
		} else {
			_, err = u.conn.WriteToUDPAddrPort(resp, from)
		}
		if err != nil {
			u.stats.dropped.Add(1) // the client asks again
		}
		s.answered(u.stats, from, &q, &f, f.rcode, n, resp, time.Since(start))
	}
	return err
}

// sender answers later, after the buffers were used for other questions.
func (u *udpSocket) sender(oob []byte, to netip.AddrPort) func([]byte) {
	if u.oob {
		oob = append([]byte(nil), source(oob)...)
	}
	return func(b []byte) {
		if _, _, err := u.conn.WriteMsgUDPAddrPort(b, oob, to); err != nil {
			u.stats.dropped.Add(1)
		}
	}
}

func is4(a netip.AddrPort) bool { return a.Addr().Is4() || a.Addr().Is4In6() }
