package userspace

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fingerpost/fingerpost/internal/kernel"
)

// open makes a socket bound to an address.
func open(at netip.AddrPort, kind int) (fd int, err error) {
	family := unix.AF_INET
	if at.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err = unix.Socket(family, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("make a socket: %w", err)
	}
	if err := bind(fd, at, kind); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func bind(fd int, at netip.AddrPort, kind int) error {
	if kind == unix.SOCK_STREAM {
		// What is set here is inherited by the accepted connections. Without
		// SO_REUSEADDR a restart would wait for the connections in TIME_WAIT.
		for _, o := range []struct{ level, name, value int }{
			{unix.SOL_SOCKET, unix.SO_REUSEADDR, 1},
			{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
			{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
			{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, keepAliveIdle},
			{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, keepAliveInterval},
			{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, keepAliveCount},
		} {
			if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
				return fmt.Errorf("prepare a socket: %w", err)
			}
		}
	}
	err := unix.Bind(fd, sockaddr(at))
	if errors.Is(err, unix.EADDRNOTAVAIL) && at.Addr().Is6() && kernel.IsLocalAddress(at.Addr()) {
		// A range made local counts for IPv4; IPv6 wants to be asked.
		if err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, 1); err == nil {
			err = unix.Bind(fd, sockaddr(at))
		}
	}
	return err
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port))
	}
	return netip.AddrPort{}
}

// tcpServer is a listening socket, or, refusing, one that is only bound.
type tcpServer struct {
	*sock
	e      *engine
	accept acceptFunc
}

func (e *engine) listen(at netip.AddrPort, accept acceptFunc) (server, error) {
	fd, err := open(at, unix.SOCK_STREAM)
	if err != nil {
		return nil, err
	}
	s := &tcpServer{e.socket(fd), e, accept}
	s.ready = s.acceptAll
	s.enter()
	// Only listening finds out about another listener that also set
	// SO_REUSEADDR, and makes the address ours beyond doubt.
	err = s.change(false, func(fd int) error { return unix.Listen(fd, backlog) })
	if err == nil {
		err = s.setOpen(false)
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// setOpen listens, or goes back to a bound socket that does not: the kernel
// answers clients with a reset, and the address stays taken, because without
// SO_REUSEADDR on this side nobody can share it.
func (s *tcpServer) setOpen(open bool) error {
	return s.change(open, func(fd int) error {
		if open {
			if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
				return err
			}
			return unix.Listen(fd, backlog)
		}
		if err := unix.Shutdown(fd, unix.SHUT_RDWR); err != nil && !errors.Is(err, unix.ENOTCONN) {
			return err
		}
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 0)
	})
}

// acceptAll takes the clients that wait, up to a number that keeps the other
// sockets of the loop from waiting long.
func (s *tcpServer) acceptAll() {
	for range 64 {
		var conn int
		// A blocking descriptor: net.FileConn works on a copy and makes that
		// one non-blocking, and this one never enters the runtime's poller.
		err := s.use(func(fd int) (err error) {
			conn, _, err = unix.Accept4(fd, unix.SOCK_CLOEXEC)
			return err
		})
		switch {
		case err == nil:
			s.accept(func() (*net.TCPConn, error) { return tcpConn(conn) })
		case errors.Is(err, unix.ECONNABORTED):
		case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
			if !s.e.shed(s.sock) {
				return
			}
		default:
			return // EAGAIN: no more; or closed, or refusing by now
		}
	}
}

func tcpConn(fd int) (*net.TCPConn, error) {
	f := os.NewFile(uintptr(fd), "")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// shed resets one waiting client when there is no descriptor left to accept
// it: otherwise the socket would stay ready, and the client would wait for
// nothing.
func (e *engine) shed(s *sock) bool {
	e.spareMu.Lock()
	defer e.spareMu.Unlock()
	if e.spare <= 0 {
		return false
	}
	unix.Close(e.spare)
	err := s.use(func(fd int) error {
		conn, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
		if err == nil {
			unix.SetsockoptLinger(conn, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
			unix.Close(conn)
		}
		return err
	})
	e.spare, _ = unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if now := time.Now(); now.Sub(e.warned) > 10*time.Second {
		e.warned = now
		e.log.Error("connections are refused: no file descriptor left; raise the limit of open files (ulimit -n, LimitNOFILE=)")
	}
	return err == nil
}

// udpServer is a bound socket; refusing, it is connected to itself.
type udpServer struct {
	*sock
	at      netip.AddrPort
	receive packetFunc
}

func (e *engine) packets(at netip.AddrPort, receive packetFunc) (packetServer, error) {
	fd, err := open(at, unix.SOCK_DGRAM)
	if err != nil {
		return nil, err
	}
	s := &udpServer{e.socket(fd), at, receive}
	s.ready = func() { s.receiveAll(s.receive, nil) }
	s.enter()
	if err := s.setOpen(false); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// setOpen lets datagrams in. Refusing, the socket is connected to its own
// address: it keeps the port but matches no client's datagram, so the kernel
// answers those with "port unreachable" as if nobody were there.
func (s *udpServer) setOpen(open bool) error {
	return s.change(open, func(fd int) error {
		if !open {
			return unix.Connect(fd, sockaddr(s.at))
		}
		if s.at.Addr().Is6() {
			return s.renew(fd)
		}
		none := unix.RawSockaddrInet6{Family: unix.AF_UNSPEC}
		_, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&none)), unsafe.Sizeof(none))
		if errno != 0 {
			return errno
		}
		return nil
	})
}

// renew puts a new socket in the place of one that was connected. The kernel
// forgets the peer of an IPv4 socket only: one of IPv6 stays deaf to everybody
// else after it was disconnected.
func (s *udpServer) renew(fd int) error {
	fresh, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("make a socket: %w", err)
	}
	err = unix.Dup3(fresh, fd, unix.O_CLOEXEC) // frees the port
	unix.Close(fresh)
	if err != nil {
		return fmt.Errorf("replace a socket: %w", err)
	}
	return bind(fd, s.at, unix.SOCK_DGRAM)
}

func (s *udpServer) send(p []byte, to netip.AddrPort) error {
	return s.use(func(fd int) error { return unix.Sendto(fd, p, unix.MSG_DONTWAIT, sockaddr(to)) })
}

// receiveAll reads the datagrams that wait, up to a number that keeps the
// other sockets of the loop from waiting long.
func (s *sock) receiveAll(receive packetFunc, failed func(error)) {
	for range 64 {
		var n int
		var from unix.Sockaddr
		err := s.use(func(fd int) (err error) {
			n, from, err = unix.Recvfrom(fd, s.loop.buf, unix.MSG_DONTWAIT)
			return err
		})
		switch {
		case err == nil:
			receive(s.loop.buf[:n], addrPort(from))
		case errors.Is(err, unix.EAGAIN), errors.Is(err, errClosed):
			return
		case failed != nil:
			failed(err)
			return
		}
	}
}

// udpClient is a socket connected to one backend.
type udpClient struct{ *sock }

func (e *engine) connect(to netip.AddrPort, receive packetFunc, failed func(error)) (packetConn, error) {
	family := unix.AF_INET
	if to.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Connect(fd, sockaddr(to)); err != nil {
		unix.Close(fd)
		return nil, err
	}
	s := udpClient{e.socket(fd)}
	s.ready = func() { s.receiveAll(receive, failed) }
	s.enter()
	if err := s.change(true, nil); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s udpClient) send(p []byte) error {
	return s.use(func(fd int) error { return unix.Sendto(fd, p, unix.MSG_DONTWAIT, nil) })
}
