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
	udpRead   = 4096    // no question is longer; what is, is malformed
	udpBuffer = 4 << 20 // the kernel's queue, as far as it lets us
	maxErrors = 100     // in a row: the socket is broken
)

// udpSocket is a socket with one goroutine.
type udpSocket struct {
	conn *net.UDPConn
	// oob: the socket has many addresses, and the kernel tells which one a
	// question came to, so that the answer can come from there.
	oob   bool
	stats *stats
}

func (s *Server) serveUDP(ctx context.Context, u *udpSocket, fail func(error)) {
	for {
		err := s.loopUDP(ctx, u)
		switch {
		case s.closing.Load():
			return
		case errors.As(err, new(panicError)):
			s.metrics.panicked()
			s.log.Error("a DNS question made the server panic: please report it", "error", err)
		case err != nil:
			fail(fmt.Errorf("view/dns: read from %s: %w", u.conn.LocalAddr(), err))
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

func (s *Server) loopUDP(ctx context.Context, u *udpSocket) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = panicError{v, debug.Stack()}
		}
	}()
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
		resp, f := s.index.answer(&q, in[:n], out, false)
		if resp == nil {
			continue
		}
		if f.elsewhere && s.forwards() {
			s.later(ctx, &job{
				query: q, finding: f, start: start, stats: u.stats, v4: is4(from),
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
		u.stats.record(is4(from), q.qtype, f.zone, f.rcode, time.Since(start))
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
