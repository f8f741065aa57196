package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/fingerpost/fingerpost/view/gateway/cert"
	"github.com/fingerpost/fingerpost/view/gateway/h1"
	"github.com/fingerpost/fingerpost/view/gateway/h2"
	"github.com/fingerpost/fingerpost/view/gateway/socket"
	"github.com/fingerpost/fingerpost/view/gateway/stream"
	"github.com/fingerpost/fingerpost/wire/proxyproto"
)

// client is a connection of a client, from accept to close.
type client struct {
	e    *Engine
	l    *listener
	c    *socket.Conn
	raw  socket.Polled // c, if a Poller accepted it
	http h1.Conn       // what one points to
	peer stream.Peer
	one  atomic.Pointer[h1.Conn] // once it is known that it speaks HTTP/1
	stop atomic.Pointer[func()]  // of other protocols: drains
	end  atomic.Bool             // quit was called
}

func (k *client) open(c net.Conn) {
	k.c = socket.New(c)
	k.peer.Remote, k.peer.Local = c.RemoteAddr(), c.LocalAddr()
}

// idle says that it waits for a request, and since when.
func (k *client) idle() (since int64, ok bool) {
	if c := k.one.Load(); c != nil {
		return c.Idle()
	}
	return 0, false
}

// quit ends it after what is under way.
func (k *client) quit() {
	k.end.Store(true)
	if c := k.one.Load(); c != nil {
		c.Quit()
	} else if f := k.stop.Load(); f != nil {
		(*f)()
	} else {
		_ = k.c.SetReadDeadline(time.Unix(1, 0)) // it has not said anything yet
	}
}

// kill ends it now.
func (k *client) kill() {
	if t, ok := k.c.Conn.(interface{ SetLinger(int) error }); ok {
		_ = t.SetLinger(0)
	}
	_ = k.c.Close()
}

// Readable takes the first bytes of a connection that a Poller tells of, and then
// what it tells the connection.
func (k *client) Readable(left bool) {
	if c := k.one.Load(); c != nil {
		c.Readable(left)
		return
	}
	b, n, err := k.c.Take(socket.Small)
	switch {
	case err != nil:
		k.c.Wait()
		k.close()
	case b == nil:
	case string(b.B[:min(n, 4)]) == preface[:min(n, 4)]:
		first := append([]byte(nil), b.B[:n]...)
		b.Put()
		k.c.Wait()
		k.e.crew.run(func() { k.plain(first) })
	default:
		k.http1(k.c, nil)
		k.one.Load().First(b, n, left)
	}
}

// serve finds out what the client speaks.
func (k *client) serve() {
	t := &k.e.cfg.Timeouts
	conn := net.Conn(k.c)
	var first []byte
	if len(k.l.cfg.Proxied) > 0 && k.l.proxied(k.peer.Remote) {
		_ = k.c.SetReadDeadline(time.Now().Add(t.Handshake))
		rest, err := k.proxied()
		if err != nil {
			k.e.log.Debug("a proxy's connection has no valid PROXY header", "from", k.c.RemoteAddr().String(), "err", err)
			k.close()
			return
		}
		first = rest
	}
	if k.l.cfg.TLS {
		k.secure(first)
		return
	}
	if len(first) == 0 {
		_ = k.c.SetReadDeadline(time.Now().Add(t.Head))
		if k.end.Load() {
			k.close()
			return
		}
		b, n, err := k.c.ReadBuffer(socket.Small)
		if err != nil {
			k.close()
			return
		}
		if string(b.B[:min(n, 4)]) != preface[:min(n, 4)] {
			k.http1(conn, b.B[:n])
			b.Put()
			k.run()
			return
		}
		first = append(first, b.B[:n]...)
		b.Put()
	}
	k.plain(first)
}

// plain finds out which version of HTTP follows the first bytes, without TLS.
func (k *client) plain(first []byte) {
	conn := net.Conn(k.c)
	// "PRI " is no method of HTTP/1; enough must be there to tell.
	for len(first) < len(preface) && string(first) == preface[:len(first)] {
		b, n, err := k.c.ReadBuffer(socket.Small)
		if err != nil {
			k.close()
			return
		}
		first = append(first, b.B[:n]...)
		b.Put()
	}
	if len(first) >= len(preface) && string(first[:len(preface)]) == preface {
		k.http2(&ahead{Conn: conn, b: first})
		return
	}
	k.http1(conn, first)
	k.run()
}

// preface is how HTTP/2 begins.
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

func (k *client) close() {
	_ = k.c.Close()
	k.e.conns.remove(k)
}

func (k *client) handle(d stream.Downstream) { k.e.serve(&k.peer, d) }

// Exchange is of h1.Owner.
func (k *client) Exchange(c *h1.Conn) bool { return k.e.serve(&k.peer, c) }

// Ended is of h1.Owner.
func (k *client) Ended(*h1.Conn) { k.e.conns.remove(k) }

// http1 makes the connection one of HTTP/1; first was read from it already.
func (k *client) http1(conn net.Conn, first []byte) {
	c := &k.http
	k.e.http1.Init(c, conn, first, k)
	k.one.Store(c)
	if k.end.Load() {
		c.Quit()
	}
}

func (k *client) run() { k.one.Load().Serve() }

// http2 serves a connection of HTTP/2.
func (k *client) http2(conn net.Conn) {
	ctx, cancel := context.WithCancel(context.Background())
	stop := func() { cancel() }
	k.stop.Store(&stop)
	if k.end.Load() {
		cancel()
	}
	_ = k.c.SetDeadline(time.Time{})
	cfg := k.e.http2
	if err := h2.Serve(ctx, conn, &k.peer, cfg, k.handle); err != nil && !errors.Is(err, stream.ErrClosed) {
		k.e.log.Debug("a connection of HTTP/2 ended", "from", k.peer.Remote.String(), "err", err)
	}
	cancel()
	_ = conn.Close()
	k.e.conns.remove(k)
}

// proxied reads a PROXY header and gives what came after it.
func (k *client) proxied() ([]byte, error) {
	var got []byte
	for {
		b, n, err := k.c.ReadBuffer(socket.Small)
		if err != nil {
			return nil, err
		}
		got = append(got, b.B[:n]...)
		b.Put()
		used, h, err := proxyproto.Parse(got)
		if err != nil {
			return nil, err
		}
		if used > 0 {
			if h.Source.IsValid() && !h.Local {
				k.peer.Remote = net.TCPAddrFromAddrPort(h.Source)
			}
			if h.Destination.IsValid() && !h.Local {
				k.peer.Local = net.TCPAddrFromAddrPort(h.Destination)
			}
			return got[used:], nil
		}
		if len(got) > 16+proxyproto.MaxLength {
			return nil, proxyproto.ErrTooLong
		}
	}
}

// secure ends TLS, or passes it on.
func (k *client) secure(first []byte) {
	conn := net.Conn(k.c)
	deadline := time.Now().Add(k.e.cfg.Timeouts.Handshake)
	_ = k.c.SetDeadline(deadline)
	if s := k.e.state.Load(); s.carried {
		var name string
		var err error
		if first, name, err = k.sniff(first); err != nil {
			k.close()
			return
		}
		if h := s.table.HostOf(name); name != "" && h != nil && h.Passthrough != nil {
			k.pass(h, name, first)
			return
		}
	}
	if len(first) > 0 {
		conn = &ahead{Conn: k.c, b: first}
	}
	t := tls.Server(conn, k.e.tls)
	if err := t.Handshake(); err != nil {
		k.e.failedHandshake(k, err)
		_ = t.Close()
		k.e.conns.remove(k)
		return
	}
	k.e.metrics.Handshakes.Add(1)
	_ = k.c.SetDeadline(time.Time{})
	cs := t.ConnectionState()
	if cs.Version == tls.VersionTLS13 {
		k.c.Acknowledge() // the client spoke last, and its request may wait for that
	}
	p := &k.peer
	p.TLS, p.ServerName, p.Protocol = true, strings.ToLower(cs.ServerName), cs.NegotiatedProtocol
	if h := k.e.state.Load().table.HostOf(p.ServerName); h != nil && h.ClientCert != nil {
		p.Client = cert.Identify(&cs, h.ClientCert, k.e.cfg.Now())
	}
	// The handshake's stack is large, and the connection may live long.
	if p.Protocol == "h2" {
		go k.http2(t)
		return
	}
	if k.http1(t, nil); k.http.Socket() != nil {
		k.run() // until it waits, which is at once
		return
	}
	go k.run()
}

// sniff reads as much of a ClientHello as names the host.
func (k *client) sniff(got []byte) (all []byte, name string, err error) {
	for {
		if len(got) > 0 {
			name, _, more, err := cert.Sniff(got)
			if err != nil || !more {
				return got, name, nil // what it is not, the handshake will say
			}
		}
		b, n, err := k.c.ReadBuffer(socket.Small)
		if err != nil {
			return nil, "", err
		}
		got = append(got, b.B[:n]...)
		b.Put()
	}
}

// ahead is a connection of which something was read already.
type ahead struct {
	net.Conn
	b []byte
}

func (a *ahead) Read(p []byte) (int, error) {
	if len(a.b) > 0 {
		n := copy(p, a.b)
		if a.b = a.b[n:]; len(a.b) == 0 {
			a.b = nil
		}
		return n, nil
	}
	return a.Conn.Read(p)
}

// NetConn gives the connection below.
func (a *ahead) NetConn() net.Conn { return a.Conn }

func (a *ahead) CloseWrite() error {
	if k, ok := a.Conn.(interface{ CloseWrite() error }); ok {
		return k.CloseWrite()
	}
	return errors.ErrUnsupported
}
