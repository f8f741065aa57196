package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"syscall"
	"time"
)

// listener is one address.
type listener struct {
	cfg Listener
	l   net.Listener
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
		e.listeners = append(e.listeners, &listener{cfg: c, l: l})
	}
	return nil
}

func (l *listener) close() { _ = l.l.Close() }

// acceptors is how many goroutines accept: one for each core, a few at most.
func (l *listener) acceptors() int { return min(4, runtime.GOMAXPROCS(0)) }

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

// accept takes connections until the listener is closed.
func (e *Engine) accept(l *listener) {
	wait := time.Duration(0)
	for {
		c, err := l.l.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			// No descriptors, most likely: idle connections give some back.
			n := e.conns.shed(64)
			wait = min(max(2*wait, 5*time.Millisecond), time.Second)
			e.log.Warn("a connection cannot be accepted; raise the limit of open files if this goes on", "err", err, "idle connections closed", n, "again in", wait)
			time.Sleep(wait)
			continue
		}
		wait = 0
		k := &client{e: e, l: l}
		if !e.conns.add(k, e.cfg.Limits.Connections) {
			_ = c.Close()
			continue
		}
		k.open(c)
		e.crew.serve(k)
	}
}
