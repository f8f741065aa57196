package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/fingerpost/fingerpost/view/gateway/socket"
)

// listener is one address.
type listener struct {
	cfg   Listener
	l     net.Listener
	addr  net.Addr
	local net.Addr // of all connections; nil: each has to be asked
	taken interface{ Close() error }
	wait  time.Duration // after an error
}

// Listen opens the addresses; Run does it too. Until Run clients wait.
func (e *Engine) Listen() error {
	e.listenMu.Lock()
	defer e.listenMu.Unlock()
	if len(e.listeners) > 0 {
		return nil
	}
	// Keep-alive probes of TCP would cost four system calls for each connection;
	// the time-outs here are shorter than what they find.
	lc := net.ListenConfig{KeepAlive: -1, Control: deferAccept}
	lc.SetMultipathTCP(false) // its connections cost more, whoever uses it
	for _, c := range e.cfg.Listeners {
		l, err := lc.Listen(context.Background(), "tcp", c.Addr)
		if err != nil {
			for _, x := range e.listeners {
				x.close()
			}
			e.listeners = nil
			if errors.Is(err, syscall.EADDRINUSE) {
				return fmt.Errorf("gateway: listen on %s: something else listens there: stop it, or choose another port: %w", c.Addr, err)
			}
			return fmt.Errorf("gateway: listen on %s: %w", c.Addr, err)
		}
		x := &listener{cfg: c, l: l, addr: l.Addr()}
		if a, ok := x.addr.(*net.TCPAddr); ok && !a.IP.IsUnspecified() {
			x.local = a
		}
		e.listeners = append(e.listeners, x)
	}
	return nil
}

func (l *listener) close() {
	if l.taken != nil {
		_ = l.taken.Close()
		return
	}
	_ = l.l.Close()
}

// proxied says that a connection from there begins with a PROXY header.
func (l *listener) proxied(a net.Addr) bool {
	if len(l.cfg.Proxied) == 0 {
		return false
	}
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return false
	}
	ip, _ := netip.AddrFromSlice(t.IP)
	ip = ip.Unmap()
	for _, p := range l.cfg.Proxied {
		if p.Contains(ip) {
			return true
		}
	}
	return false
}

// poll lets the Poller accept; false: there is none.
func (e *Engine) poll(l *listener) bool {
	t, ok := l.l.(*net.TCPListener)
	if e.poller == nil || !ok {
		return false
	}
	taken, err := e.poller.Listen(t, func(a *socket.Accepted) { e.take(l, a) }, func(err error) time.Duration { return e.failed(l, err) })
	if err != nil {
		e.log.Debug("connections are accepted by a goroutine", "err", err)
		return false
	}
	l.taken = taken
	return true
}

// failed says when to accept again.
func (e *Engine) failed(l *listener, err error) time.Duration {
	// No descriptors, most likely: idle connections give some back.
	n := e.conns.shed(64)
	l.wait = min(max(2*l.wait, 5*time.Millisecond), time.Second)
	e.log.Warn("a connection cannot be accepted; raise the limit of open files if this goes on", "err", err, "idle connections closed", n, "again in", l.wait)
	return l.wait
}

// take serves a connection, on the Poller's goroutine.
func (e *Engine) take(l *listener, a *socket.Accepted) {
	l.wait = 0
	k := &client{e: e, l: l}
	if !e.conns.add(k, e.cfg.Limits.Connections) {
		a.Refuse()
		return
	}
	k.raw.Open(a, l.local)
	k.c = &k.raw.Conn
	k.peer.Remote, k.peer.Local = k.c.RemoteAddr(), k.c.LocalAddr()
	if l.cfg.TLS || len(l.cfg.Proxied) > 0 && l.proxied(k.peer.Remote) {
		e.crew.run(k.serve)
		return
	}
	_ = k.c.SetReadDeadline(e.clock.now().Add(e.cfg.Timeouts.Head))
	if !a.Near() {
		k.raw.Watch(k)
		return
	}
	k.raw.Ready(k)
	k.Readable(false) // its first bytes are there, most likely
}

// accept takes connections until the listener is closed.
func (e *Engine) accept(l *listener) {
	for {
		c, err := l.l.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			time.Sleep(e.failed(l, err))
			continue
		}
		l.wait = 0
		k := &client{e: e, l: l}
		if !e.conns.add(k, e.cfg.Limits.Connections) {
			_ = c.Close()
			continue
		}
		k.open(c)
		e.crew.run(k.serve)
	}
}
