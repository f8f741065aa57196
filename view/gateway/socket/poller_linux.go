package socket

import (
	"context"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

var errClosed = net.ErrClosed

func (d *desc) number() uintptr { return uintptr(d.fd) }

func (d *desc) recv(p []byte) (int, error) {
	n, errno := sysRead(uintptr(d.fd), p)
	if errno != 0 {
		return 0, errno
	}
	return n, nil
}

// Polled is a Conn of a Poller, in one piece of memory.
type Polled struct {
	Conn
	d      desc
	remote net.TCPAddr
	ip     [16]byte
}

// Accepted is a connection that was accepted.
type Accepted struct {
	fd      int
	reactor *reactor
	by      *reactor
	remote  syscall.RawSockaddrAny
}

// Open makes a connection of it: local is its local address, nil: to be asked.
func (k *Polled) Open(a *Accepted, local net.Addr) {
	switch a.remote.Addr.Family {
	case syscall.AF_INET:
		sa := (*syscall.RawSockaddrInet4)(unsafe.Pointer(&a.remote))
		k.remote.IP = append(k.ip[:0], sa.Addr[:]...)
		k.remote.Port = port(&sa.Port)
	case syscall.AF_INET6:
		sa := (*syscall.RawSockaddrInet6)(unsafe.Pointer(&a.remote))
		k.remote.IP = append(k.ip[:0], sa.Addr[:]...)
		k.remote.Port = port(&sa.Port)
		if v4 := k.remote.IP.To4(); v4 != nil {
			k.remote.IP = v4
		} else if sa.Scope_id != 0 {
			if i, err := net.InterfaceByIndex(int(sa.Scope_id)); err == nil {
				k.remote.Zone = i.Name
			}
		}
	}
	k.start(a.fd, a.reactor, local, &k.remote)
}

func port(p *uint16) int {
	b := (*[2]byte)(unsafe.Pointer(p))
	return int(b[0])<<8 | int(b[1])
}

func (k *Polled) start(fd int, r *reactor, local, remote net.Addr) {
	k.d.init(fd, r, local, remote)
	c := &k.Conn
	c.Conn, c.d, c.raw = &k.d, &k.d, (*access)(&k.d)
	c.readable, c.writable = c.tryRead, c.tryWrite
}

// Watch makes the Poller watch the connection before it waits, which it does by
// itself. h is told, nil: calls wait.
func (k *Polled) Watch(h Handler) {
	k.Conn.told = h != nil
	k.d.handle(h)
	k.d.watch()
	if h != nil {
		k.d.again() // an ordinary connection has nothing to be told of yet
	}
}

// Ready is Watch without that: the caller looks itself, on the goroutine that Near
// says it is on.
func (k *Polled) Ready(h Handler) {
	k.Conn.told = true
	k.d.handler = h
}

// Near says that the connection is told of by the goroutine that accepted it.
func (a *Accepted) Near() bool { return a.reactor == a.by }

// Leaves makes l be told when the peer leaves, nil: nobody.
func (c *Conn) Leaves(l Leaver) {
	c.d.mu.Lock()
	c.d.leaver = l
	if l != nil && c.d.left {
		l.PeerLeft()
	}
	c.d.mu.Unlock()
	if l != nil {
		c.Late()
	}
}

// Late watches a connection that is served without having been watched, if that
// takes a while: its peer may leave.
func (c *Conn) Late() {
	if !c.d.watched.Load() {
		c.d.reactor.late(c.d)
	}
}

// Tell makes h be told what comes, from the Poller's goroutine. The caller must not
// use the connection after it.
func (c *Conn) Tell(h Handler) {
	c.told = true
	c.d.handle(h)
}

// Wait ends that: calls wait from here on. The Handler calls it.
func (c *Conn) Wait() {
	c.d.handle(nil)
	c.told = false
}

// Hush makes nobody be told any more, and calls not wait: for who closes the
// connection.
func (c *Conn) Hush() { c.d.handle(nil) }

// Polled says that a Handler can be told.
func (c *Conn) Polled() bool { return c.d != nil }

// Near says that the same goroutine is told of both connections, of which this one
// is not used by anybody.
func (c *Conn) Near(other *Conn) bool { return c.d.reactor == other.d.reactor }

// Join makes the Poller's goroutine that watches other watch this connection too.
// Nobody uses it meanwhile.
func (c *Conn) Join(other *Conn) error {
	if c.d.reactor == other.d.reactor {
		return nil
	}
	return c.d.move(other.d.reactor)
}

// acceptor takes connections.
type acceptor struct {
	d      desc
	p      *Poller
	take   func(*Accepted)
	failed func(error) time.Duration
	waits  atomic.Bool // there was an error
	a      Accepted
}

// atOnce is how many connections are accepted before others have their turn.
const atOnce = 64

// Listen takes the connections of a listener from now on, which is closed: the
// descriptor lives on until Close of what is given. take is called on a Poller's
// goroutine, which waits for it; what it does not Open and Watch it must Refuse.
// failed is told of errors and says when to try again.
func (p *Poller) Listen(l *net.TCPListener, take func(*Accepted), failed func(error) time.Duration) (interface{ Close() error }, error) {
	raw, err := l.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	if err := raw.Control(func(of uintptr) {
		n, _, errno := syscall.Syscall(syscall.SYS_FCNTL, of, syscall.F_DUPFD_CLOEXEC, 0)
		if err = nil; errno != 0 {
			err = os.NewSyscallError("fcntl", errno)
		}
		fd = int(n)
		// It is inherited by what is accepted.
		_ = syscall.SetsockoptInt(int(of), syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1)
	}); err != nil {
		return nil, err
	}
	if err != nil {
		return nil, err
	}
	s := &acceptor{p: p, take: take, failed: failed}
	s.d.init(fd, p.reactors[0], l.Addr(), nil)
	s.d.handler = s
	if err := l.Close(); err != nil {
		_ = syscall.Close(fd)
		return nil, err
	}
	s.d.watched.Store(true)
	if err := s.d.reactor.add(&s.d); err != nil {
		_ = syscall.Close(fd)
		return nil, err
	}
	s.again() // clients may be there already
	return &s.d, nil
}

// Readable accepts what is there.
func (s *acceptor) Readable(bool) {
	if s.waits.Load() {
		return // also if more clients come
	}
	for range atOnce {
		if !s.d.use() {
			return
		}
		size := uint32(unsafe.Sizeof(s.a.remote))
		n, _, errno := syscall.RawSyscall6(syscall.SYS_ACCEPT4, uintptr(s.d.fd), uintptr(unsafe.Pointer(&s.a.remote)), uintptr(unsafe.Pointer(&size)), syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0, 0)
		s.d.unuse()
		switch errno {
		case 0:
			s.a.fd, s.a.reactor, s.a.by = int(n), s.p.pick(), s.d.reactor
			s.take(&s.a)
		case syscall.EAGAIN, syscall.EINVAL, syscall.EBADF:
			return
		case syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM:
			s.waits.Store(true)
			time.AfterFunc(s.failed(os.NewSyscallError("accept4", errno)), func() {
				s.waits.Store(false)
				s.again()
			})
			return
		default: // of one connection: it is gone
		}
	}
	s.again()
}

func (s *acceptor) again() { s.d.reactor.post(&s.d) }

// Refuse closes it.
func (a *Accepted) Refuse() { _ = syscall.Close(a.fd) }

// Dial opens a connection, whose calls wait.
func (p *Poller) Dial(ctx context.Context, to netip.AddrPort) (*Conn, error) {
	for try := 0; ; try++ {
		c, err := p.dial(ctx, to)
		if err != nil {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(to), Err: err}
		}
		// A port of ours that nobody listens on may connect to itself.
		if a, ok := c.LocalAddr().(*net.TCPAddr); !ok || a.AddrPort() != to {
			return c, nil
		}
		_ = c.Close()
		if try == 2 {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(to), Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
		}
	}
}

func (p *Poller) dial(ctx context.Context, to netip.AddrPort) (*Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	family, sa := syscall.AF_INET6, syscall.Sockaddr(&syscall.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()})
	if a := to.Addr().Unmap(); a.Is4() {
		family, sa = syscall.AF_INET, &syscall.SockaddrInet4{Port: int(to.Port()), Addr: a.As4()}
	}
	fd, err := syscall.Socket(family, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, syscall.IPPROTO_TCP)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	k := &Polled{}
	k.start(fd, p.pick(), nil, net.TCPAddrFromAddrPort(to))
	c := &k.Conn
	_ = syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1)
	switch err := syscall.Connect(fd, sa); err {
	case nil, syscall.EINPROGRESS, syscall.EINTR, syscall.EALREADY, syscall.EISCONN:
	default:
		_ = c.Close()
		return nil, os.NewSyscallError("connect", err)
	}
	k.d.watch()
	if deadline, ok := ctx.Deadline(); ok {
		_ = k.d.SetWriteDeadline(deadline)
	}
	stop := context.AfterFunc(ctx, func() { _ = k.d.SetWriteDeadline(time.Unix(1, 0)) })
	var failed error
	err = k.Conn.raw.Write(func(uintptr) bool {
		// Without an error and a peer it is under way still.
		n, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_ERROR)
		switch {
		case err != nil:
			failed = os.NewSyscallError("getsockopt", err)
		case n != 0:
			failed = os.NewSyscallError("connect", syscall.Errno(n))
		default:
			_, err := syscall.Getpeername(fd)
			return err == nil
		}
		return true
	})
	if err == nil {
		err = failed
	}
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	_ = k.d.SetWriteDeadline(noTime)
	return c, nil
}
