package userspace

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"
)

// portable is the network for systems without epoll: a goroutine per open
// socket. A socket that refuses is closed, so another program can take its
// address meanwhile; the next opening then fails and is tried again.
type portable struct {
	wg sync.WaitGroup

	mu     sync.Mutex
	closed bool
	open   map[closer]struct{}
}

type closer interface{ close() }

func newPortable() *portable { return &portable{open: map[closer]struct{}{}} }

func (n *portable) run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

func (n *portable) close() {
	n.mu.Lock()
	n.closed = true
	left := make([]closer, 0, len(n.open))
	for s := range n.open {
		left = append(left, s)
	}
	n.mu.Unlock()
	for _, s := range left {
		s.close()
	}
	n.wg.Wait()
}

// serve notes an open socket and starts its goroutine, unless it is too late.
func (n *portable) serve(s closer, f func()) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return net.ErrClosed
	}
	n.open[s] = struct{}{}
	n.wg.Go(f)
	return nil
}

func (n *portable) forget(s closer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.open, s)
}

type portableTCP struct {
	n      *portable
	at     netip.AddrPort
	accept acceptFunc

	mu sync.Mutex
	l  *net.TCPListener
}

func (n *portable) listen(at netip.AddrPort, accept acceptFunc) (server, error) {
	s := &portableTCP{n: n, at: at, accept: accept}
	// Find out now whether the address can be had.
	if err := s.setOpen(true); err != nil {
		return nil, err
	}
	return s, s.setOpen(false)
}

func (s *portableTCP) setOpen(open bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case open && s.l == nil:
		l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(s.at))
		if err != nil {
			return err
		}
		if err := s.n.serve(s, func() { acceptUntilClosed(l, s.accept) }); err != nil {
			l.Close()
			return err
		}
		s.l = l
	case !open && s.l != nil:
		s.l.Close()
		s.l = nil
		s.n.forget(s)
	}
	return nil
}

func acceptUntilClosed(l *net.TCPListener, accept acceptFunc) {
	for {
		c, err := l.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond) // no descriptor left: some will be given back
			continue
		}
		accept(func() (*net.TCPConn, error) { return c, nil })
	}
}

func (s *portableTCP) close() { _ = s.setOpen(false) }

type portableUDP struct {
	n       *portable
	at      netip.AddrPort
	receive packetFunc

	mu sync.RWMutex
	c  *net.UDPConn
}

func (n *portable) packets(at netip.AddrPort, receive packetFunc) (packetServer, error) {
	s := &portableUDP{n: n, at: at, receive: receive}
	if err := s.setOpen(true); err != nil {
		return nil, err
	}
	return s, s.setOpen(false)
}

func (s *portableUDP) setOpen(open bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case open && s.c == nil:
		c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(s.at))
		if err != nil {
			return err
		}
		if err := s.n.serve(s, func() { readPackets(c, s.receive, nil) }); err != nil {
			c.Close()
			return err
		}
		s.c = c
	case !open && s.c != nil:
		s.c.Close()
		s.c = nil
		s.n.forget(s)
	}
	return nil
}

func (s *portableUDP) send(p []byte, to netip.AddrPort) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.c == nil {
		return net.ErrClosed
	}
	_, err := s.c.WriteToUDPAddrPort(p, to)
	return err
}

func (s *portableUDP) close() { _ = s.setOpen(false) }

// readPackets reads until the socket is closed. An error of a datagram sent
// earlier goes to failed, or is passed over.
func readPackets(c *net.UDPConn, receive packetFunc, failed func(error)) {
	buf := make([]byte, maxDatagram)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		switch {
		case err == nil:
			receive(buf[:n], netip.AddrPortFrom(from.Addr().Unmap(), from.Port()))
		case errors.Is(err, net.ErrClosed):
			return
		case failed != nil:
			failed(err)
			return
		}
	}
}

type portableClient struct {
	n *portable
	c *net.UDPConn
}

func (n *portable) connect(to netip.AddrPort, receive packetFunc, failed func(error)) (packetConn, error) {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		return nil, err
	}
	s := &portableClient{n, c}
	if err := n.serve(s, func() { readPackets(c, receive, failed) }); err != nil {
		c.Close()
		return nil, err
	}
	return s, nil
}

func (s *portableClient) send(p []byte) error {
	_, err := s.c.Write(p)
	return err
}

func (s *portableClient) close() {
	s.c.Close()
	s.n.forget(s)
}
