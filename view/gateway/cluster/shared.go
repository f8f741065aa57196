package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"github.com/fingerpost/fingerpost/view/gateway/stream"
)

// sharedConn is a connection of HTTP/2.
type sharedConn struct {
	codec HTTP2
	used  atomic.Int64 // the last time
}

// opening is a connection that one exchange opens and others wait for.
type opening struct {
	done chan struct{}
	err  error // before done is closed
}

// agreed is the protocol that TLS agreed on.
func agreed(conn net.Conn) string {
	if t, ok := conn.(interface{ ConnectionState() tls.ConnectionState }); ok {
		return t.ConnectionState().NegotiatedProtocol
	}
	return ""
}

// connectShared begins an exchange on a connection that others use too. A new
// one is opened by one exchange, and the others wait for it.
func (e *Endpoint) connectShared(ctx context.Context, within time.Duration) (stream.Upstream, error) {
	var expired <-chan time.Time
	var end time.Time
	for {
		e.mu.Lock()
		for i := len(e.shared) - 1; i >= 0; i-- {
			s := e.shared[i]
			if s.codec.Gone() {
				e.shared = slices.Delete(e.shared, i, i+1)
				e.open--
				continue
			}
			if s.codec.Full() {
				continue
			}
			e.mu.Unlock()
			up, err := s.codec.Open()
			if err == nil {
				s.used.Store(int64(e.cluster.set.now()))
				return up, nil
			}
			// It filled up or went away since; look again, it says so now.
			if !s.codec.Full() && !s.codec.Gone() {
				return nil, err
			}
			e.mu.Lock()
			i = min(i, len(e.shared))
		}
		wait := e.opening
		if wait == nil {
			o := &opening{done: make(chan struct{})}
			e.opening = o
			e.mu.Unlock()
			if !end.IsZero() {
				within = max(time.Until(end), 1)
			}
			up, err := e.openShared(ctx, within)
			// If it was this exchange that gave up, others may have more time.
			if ctx.Err() == nil && !errors.Is(err, context.DeadlineExceeded) {
				o.err = err
			}
			e.mu.Lock()
			e.opening = nil
			e.mu.Unlock()
			close(o.done)
			return up, err
		}
		e.mu.Unlock()
		if expired == nil && within > 0 {
			end = time.Now().Add(within)
			t := time.NewTimer(within)
			defer t.Stop()
			expired = t.C
		}
		select {
		case <-wait.done:
			if wait.err != nil {
				return nil, wait.err
			}
		case <-expired:
			return nil, context.DeadlineExceeded
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// openShared opens a connection for an exchange.
func (e *Endpoint) openShared(ctx context.Context, within time.Duration) (stream.Upstream, error) {
	conn, err := e.dial(ctx, within)
	if err != nil {
		return nil, err
	}
	if p := agreed(conn); e.cluster.tls != nil && p != "h2" {
		if slices.Contains(e.cluster.tls.Protocols, "http/1.1") {
			// It spoke HTTP/2 before and does not any more.
			e.mu.Lock()
			e.speaks2 = false
			e.mu.Unlock()
			s := newSlot(e, conn)
			s.codec = e.cluster.set.cfg.HTTP1(conn, s)
			return s.codec.Open(false), nil
		}
		conn.Close()
		e.forget()
		return nil, errors.New("cluster: connect to " + e.addr.String() + ": the endpoint does not speak HTTP/2")
	}
	return e.share(conn)
}

// share makes a connection one of HTTP/2 and begins an exchange on it.
func (e *Endpoint) share(conn net.Conn) (stream.Upstream, error) {
	if e.cluster.set.cfg.HTTP2 == nil {
		conn.Close()
		e.forget()
		return nil, errors.New("cluster: connect to " + e.addr.String() + ": Config.HTTP2 is not set")
	}
	codec, err := e.cluster.set.cfg.HTTP2(conn)
	if err != nil {
		conn.Close()
		e.forget()
		e.unreachable(err)
		return nil, err
	}
	s := &sharedConn{codec: codec}
	s.used.Store(int64(e.cluster.set.now()))
	up, err := codec.Open()
	e.mu.Lock()
	removed := e.removed || err != nil
	if removed {
		e.open--
	} else {
		e.speaks2 = e.cluster.tls != nil
		e.shared = append(e.shared, s)
	}
	e.mu.Unlock()
	if removed {
		codec.Drain()
	}
	return up, err
}

// sweepShared takes out the connections that nobody used for a while. e.mu is
// held.
func (e *Endpoint) sweepShared(now time.Duration) (out []*sharedConn) {
	e.shared = slices.DeleteFunc(e.shared, func(s *sharedConn) bool {
		if !s.codec.Gone() && now-time.Duration(s.used.Load()) < e.cluster.set.cfg.IdleTimeout {
			return false
		}
		out = append(out, s)
		return true
	})
	e.open -= len(out)
	return out
}
