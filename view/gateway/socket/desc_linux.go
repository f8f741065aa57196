package socket

import (
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// noTime is no deadline.
var noTime time.Time

// desc is a descriptor that a Poller watches. It is a net.Conn; as an access it is
// a syscall.RawConn.
type desc struct {
	fd     int
	refs   atomic.Int32 // calls under way, and one until Close
	local  net.Addr
	remote net.Addr

	watched atomic.Bool // the kernel was told

	mu      sync.Mutex
	reactor *reactor
	handler Handler // nil: goroutines wait
	leaver  Leaver  // of these
	closed  bool
	left    bool // the peer will not send any more
	r, w    side
}

// side is one direction of a desc.
type side struct {
	ready   bool // the kernel told of something, and nobody has looked since
	waiting bool // a goroutine waits on wake
	wake    chan struct{}
	timer   *time.Timer
	at      time.Time // when timer means something
	expired atomic.Bool
}

// Handler is told by a Poller's goroutine that a connection may have something
// to read, is closed, or that its time is over. left: the peer sends nothing more.
// It must not wait.
type Handler interface{ Readable(left bool) }

// Leaver is told that a peer sends nothing more, while no Handler is. It must not use
// the connection.
type Leaver interface{ PeerLeft() }

// access is a desc as a syscall.RawConn.
type access desc

func (d *desc) init(fd int, r *reactor, local, remote net.Addr) {
	d.fd, d.reactor, d.local, d.remote = fd, r, local, remote
	d.refs.Store(1)
}

// use keeps the descriptor from being closed during a call.
func (d *desc) use() bool {
	for {
		n := d.refs.Load()
		if n <= 0 {
			return false
		}
		if d.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (d *desc) unuse() {
	if d.refs.Add(-1) == 0 {
		d.mu.Lock()
		r := d.reactor
		d.mu.Unlock()
		r.forget(d, false) // before the number can be another one's
		_ = syscall.Close(d.fd)
	}
}

// watch makes the kernel tell of the descriptor, if it does not yet. It tells at once
// what is there already.
func (d *desc) watch() {
	if d.watched.Load() || !d.use() {
		return
	}
	d.mu.Lock()
	if !d.closed && d.watched.CompareAndSwap(false, true) {
		if d.reactor.add(d) != nil {
			// No memory for it, or the end: whoever waits must not do so for ever.
			d.watched.Store(false)
			d.mu.Unlock()
			d.unuse()
			_ = d.Close()
			return
		}
	}
	d.mu.Unlock()
	d.unuse()
}

// again makes the handler look.
func (d *desc) again() {
	d.mu.Lock()
	r := d.reactor
	d.mu.Unlock()
	r.post(d)
}

// event takes what the kernel told r.
func (d *desc) event(r *reactor, mask uint32) {
	d.mu.Lock()
	if d.reactor != r || d.closed {
		d.mu.Unlock()
		return // it has moved, and is told there
	}
	if mask&(syscall.EPOLLOUT|syscall.EPOLLHUP|syscall.EPOLLERR) != 0 {
		d.rouse(&d.w)
	}
	if mask&(syscall.EPOLLIN|syscall.EPOLLRDHUP|syscall.EPOLLHUP|syscall.EPOLLERR) == 0 {
		d.mu.Unlock()
		return
	}
	if mask&(syscall.EPOLLRDHUP|syscall.EPOLLHUP|syscall.EPOLLERR) != 0 {
		d.left = true
	}
	h, left := d.handler, d.left
	if h == nil {
		d.rouse(&d.r)
		if left && d.leaver != nil {
			d.leaver.PeerLeft()
		}
	}
	d.mu.Unlock()
	if h != nil {
		h.Readable(left)
	}
}

// told is as an event, from within.
func (d *desc) told(r *reactor) {
	d.mu.Lock()
	h, left := d.handler, d.left || d.closed
	if d.reactor != r {
		h = nil
	}
	d.mu.Unlock()
	if h != nil {
		h.Readable(left)
	}
}

// rouse wakes who waits. d.mu is held.
func (d *desc) rouse(s *side) {
	s.ready = true
	if s.waiting {
		s.waiting = false
		d.reactor.woke.Store(true)
		s.wake <- struct{}{}
	}
}

// do calls try until it is done, and waits for the kernel in between.
func (d *desc) do(s *side, try func(uintptr) bool) error {
	if !d.use() {
		return net.ErrClosed
	}
	defer d.unuse()
	for {
		d.mu.Lock()
		closed := d.closed
		s.ready = false
		d.mu.Unlock()
		switch {
		case closed:
			return net.ErrClosed
		case s.expired.Load():
			return os.ErrDeadlineExceeded
		case try(uintptr(d.fd)):
			return nil
		}
		if err := d.await(s); err != nil {
			return err
		}
	}
}

func (d *desc) await(s *side) error {
	for {
		d.mu.Lock()
		switch {
		case d.closed:
			d.mu.Unlock()
			return net.ErrClosed
		case s.expired.Load():
			d.mu.Unlock()
			return os.ErrDeadlineExceeded
		case s.ready:
			d.mu.Unlock()
			return nil
		}
		s.waiting = true
		if s.wake == nil {
			s.wake = make(chan struct{}, 1)
		}
		d.mu.Unlock()
		<-s.wake
	}
}

// limit sets a deadline.
func (d *desc) limit(s *side, t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s.at = t
	s.expired.Store(false)
	if t.IsZero() || d.closed {
		if s.timer != nil {
			s.timer.Stop()
		}
		return
	}
	left := time.Until(t)
	if left <= 0 {
		d.expire(s)
		return
	}
	if s.timer == nil {
		s.timer = time.AfterFunc(left, func() { d.fire(s) })
	} else {
		s.timer.Reset(left)
	}
}

func (d *desc) fire(s *side) {
	d.mu.Lock()
	defer d.mu.Unlock()
	// It may have been moved while this began.
	if !d.closed && !s.at.IsZero() && time.Until(s.at) <= 0 {
		d.expire(s)
	}
}

// expire ends the time of a direction. d.mu is held.
func (d *desc) expire(s *side) {
	s.expired.Store(true)
	if s.waiting {
		s.waiting = false
		s.wake <- struct{}{}
	}
	if s == &d.r && d.handler != nil {
		d.reactor.post(d)
	}
}

// Close wakes all who wait, and closes the descriptor when no call uses it.
func (d *desc) Close() error {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return net.ErrClosed
	}
	d.closed = true
	for _, s := range []*side{&d.r, &d.w} {
		if s.timer != nil {
			s.timer.Stop()
		}
		if s.waiting {
			s.waiting = false
			s.wake <- struct{}{}
		}
	}
	if d.handler != nil {
		d.reactor.post(d)
	}
	d.mu.Unlock()
	d.unuse()
	return nil
}

// handle makes h be told, nil: nobody.
func (d *desc) handle(h Handler) {
	d.mu.Lock()
	d.handler = h
	if h != nil && (d.r.ready || d.closed || d.r.expired.Load()) {
		d.r.ready = false
		d.reactor.post(d)
	}
	d.mu.Unlock()
}

// move makes another reactor watch the descriptor, which nobody uses.
func (d *desc) move(to *reactor) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	from := d.reactor
	if from == to || d.closed {
		return nil
	}
	if !d.use() {
		return net.ErrClosed
	}
	from.forget(d, true)
	d.reactor = to
	var err error
	if d.watched.Load() {
		err = to.add(d)
	}
	d.refs.Add(-1) // not the last one: Close needs d.mu
	return err
}

// news says that something came that nobody has looked at.
func (d *desc) news() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.r.ready
}

// Read is of net.Conn, as are the following.
func (d *desc) Read(p []byte) (n int, err error) {
	failed := d.do(&d.r, func(fd uintptr) bool {
		k, errno := sysRead(fd, p)
		for errno == syscall.EINTR {
			k, errno = sysRead(fd, p)
		}
		switch {
		case errno == syscall.EAGAIN:
			return false
		case errno != 0:
			n, err = 0, errno
		case k == 0 && len(p) > 0:
			n, err = 0, io.EOF
		default:
			n, err = k, nil
		}
		return true
	})
	if failed != nil {
		return 0, failed
	}
	return n, err
}

func (d *desc) Write(p []byte) (n int, err error) {
	failed := d.do(&d.w, func(fd uintptr) bool {
		for n < len(p) {
			k, errno := sysWrite(fd, p[n:])
			switch errno {
			case 0:
				n += k
			case syscall.EINTR:
			case syscall.EAGAIN:
				return false
			default:
				err = errno
				return true
			}
		}
		return true
	})
	if failed != nil {
		err = failed
	}
	return n, err
}

func (d *desc) LocalAddr() net.Addr {
	if d.local != nil {
		return d.local
	}
	var sa syscall.Sockaddr
	_ = (*access)(d).Control(func(fd uintptr) { sa, _ = syscall.Getsockname(int(fd)) })
	switch a := sa.(type) {
	case *syscall.SockaddrInet4:
		return &net.TCPAddr{IP: a.Addr[:], Port: a.Port}
	case *syscall.SockaddrInet6:
		return &net.TCPAddr{IP: a.Addr[:], Port: a.Port}
	}
	return &net.TCPAddr{}
}

func (d *desc) RemoteAddr() net.Addr { return d.remote }

func (d *desc) SetReadDeadline(t time.Time) error {
	d.limit(&d.r, t)
	return nil
}

func (d *desc) SetWriteDeadline(t time.Time) error {
	d.limit(&d.w, t)
	return nil
}

func (d *desc) SetDeadline(t time.Time) error {
	d.limit(&d.r, t)
	d.limit(&d.w, t)
	return nil
}

// CloseWrite ends the writing direction.
func (d *desc) CloseWrite() error {
	return d.control(func(fd int) error { return syscall.Shutdown(fd, syscall.SHUT_WR) })
}

// SetLinger is as that of net.TCPConn.
func (d *desc) SetLinger(sec int) error {
	l := syscall.Linger{Onoff: 1, Linger: int32(sec)}
	if sec < 0 {
		l = syscall.Linger{}
	}
	return d.control(func(fd int) error { return syscall.SetsockoptLinger(fd, syscall.SOL_SOCKET, syscall.SO_LINGER, &l) })
}

// SyscallConn gives the descriptor.
func (d *desc) SyscallConn() (syscall.RawConn, error) { return (*access)(d), nil }

func (d *desc) control(f func(fd int) error) (err error) {
	if failed := (*access)(d).Control(func(fd uintptr) { err = f(int(fd)) }); failed != nil {
		return failed
	}
	return err
}

func (a *access) Control(f func(fd uintptr)) error {
	d := (*desc)(a)
	if !d.use() {
		return net.ErrClosed
	}
	f(uintptr(d.fd))
	d.unuse()
	return nil
}

func (a *access) Read(f func(fd uintptr) bool) error  { return (*desc)(a).do(&a.r, f) }
func (a *access) Write(f func(fd uintptr) bool) error { return (*desc)(a).do(&a.w, f) }
