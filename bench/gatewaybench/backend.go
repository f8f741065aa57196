//go:build linux

package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
	"syscall"
)

// backend is an endpoint that costs as little as it can: one thread, epoll, and
// one read and one write for each request. It answers
//
//	GET  anything   1 KiB
//	GET  /big/N     N MiB
//	POST anything   the same 1 KiB, once the body is read
//	GET  /ws...     a WebSocket that sends back what it gets
type backend struct {
	poll    int
	listen  int
	conns   map[int32]*backendConn
	buf     []byte
	answer  []byte
	filling []byte
}

// backendConn is one connection.
type backendConn struct {
	fd      int
	rest    []byte // of a head or frame that is not complete
	body    int64  // bytes of a request's body to come; -1: chunked
	tail    []byte // the last bytes of a chunked body
	out     []byte // what did not fit the socket
	big     int64  // bytes of a large answer to send
	ws      bool
	closing bool // after the answer
}

// runBackend is the subcommand.
func runBackend(args []string) error {
	f := flag.NewFlagSet("backend", flag.ExitOnError)
	addr := f.String("listen", "127.0.0.1:0", "address")
	status := f.Int("status", 200, "status of the answers")
	if err := f.Parse(args); err != nil {
		return err
	}
	runtime.LockOSThread()
	runtime.GOMAXPROCS(1)
	b, err := newBackend(*addr, *status)
	if err != nil {
		return err
	}
	return b.run()
}

func newBackend(addr string, status int) (*backend, error) {
	a, err := net.ResolveTCPAddr("tcp4", addr)
	if err != nil {
		return nil, err
	}
	b := &backend{conns: map[int32]*backendConn{}, buf: make([]byte, 256<<10), filling: bytes.Repeat([]byte("x"), 256<<10)}
	b.answer = fmt.Appendf(nil, "HTTP/1.1 %d OK\r\nServer: backend\r\nContent-Type: text/plain\r\nContent-Length: 1024\r\n\r\n%s", status, b.filling[:1024])
	if b.listen, err = syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0); err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := syscall.SetsockoptInt(b.listen, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		return nil, os.NewSyscallError("setsockopt", err)
	}
	sa := &syscall.SockaddrInet4{Port: a.Port}
	copy(sa.Addr[:], a.IP.To4())
	if err := syscall.Bind(b.listen, sa); err != nil {
		return nil, os.NewSyscallError("bind", err)
	}
	if err := syscall.Listen(b.listen, 65535); err != nil {
		return nil, os.NewSyscallError("listen", err)
	}
	if b.poll, err = syscall.EpollCreate1(syscall.EPOLL_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	ev := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(b.listen)}
	return b, os.NewSyscallError("epoll_ctl", syscall.EpollCtl(b.poll, syscall.EPOLL_CTL_ADD, b.listen, &ev))
}

func (b *backend) run() error {
	events := make([]syscall.EpollEvent, 256)
	for {
		n, err := syscall.EpollWait(b.poll, events, -1)
		if err != nil && !errors.Is(err, syscall.EINTR) {
			return os.NewSyscallError("epoll_wait", err)
		}
		for i := range max(n, 0) {
			if events[i].Fd == int32(b.listen) {
				if err := b.accept(); err != nil {
					return b.close(err)
				}
				continue
			}
			if c := b.conns[events[i].Fd]; c != nil && !b.serve(c, events[i].Events) {
				delete(b.conns, int32(c.fd))
				_ = syscall.Close(c.fd)
			}
		}
	}
}

func (b *backend) close(err error) error {
	for _, c := range b.conns {
		_ = syscall.Close(c.fd)
	}
	_, _ = syscall.Close(b.listen), syscall.Close(b.poll)
	return err
}

func (b *backend) accept() error {
	for {
		fd, _, err := syscall.Accept4(b.listen, syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC)
		if errors.Is(err, syscall.EINVAL) { // it was shut down
			return os.NewSyscallError("accept4", err)
		}
		if err != nil {
			return nil // nobody is there, or not any more
		}
		_ = syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1)
		// Edge-triggered for both, so that it is registered once.
		const edge = 1 << 31
		ev := syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLOUT | syscall.EPOLLRDHUP | edge, Fd: int32(fd)}
		if err := syscall.EpollCtl(b.poll, syscall.EPOLL_CTL_ADD, fd, &ev); err != nil {
			_ = syscall.Close(fd)
			continue
		}
		b.conns[int32(fd)] = &backendConn{fd: fd}
	}
}

// serve does what can be done now; false: the connection is over.
func (b *backend) serve(c *backendConn, events uint32) bool {
	if events&syscall.EPOLLOUT != 0 && !b.send(c) {
		return false
	}
	if events&(syscall.EPOLLIN|syscall.EPOLLRDHUP|syscall.EPOLLHUP|syscall.EPOLLERR) == 0 {
		return true
	}
	for {
		n, err := syscall.Read(c.fd, b.buf)
		switch {
		case errors.Is(err, syscall.EAGAIN):
			return true
		case err != nil || n == 0:
			return false
		}
		data := b.buf[:n]
		if len(c.rest) > 0 {
			data = append(c.rest, data...)
			c.rest = nil
		}
		if !b.take(c, data) || !b.send(c) {
			return false
		}
		if n < len(b.buf) { // the socket is empty, and says so when it is not
			return events&(syscall.EPOLLRDHUP|syscall.EPOLLHUP|syscall.EPOLLERR) == 0
		}
	}
}

// take handles what was read.
func (b *backend) take(c *backendConn, data []byte) bool {
	for len(data) > 0 {
		switch {
		case c.ws:
			n, ok := c.echo(data)
			if !ok {
				return false
			}
			if n == 0 {
				c.rest = bytes.Clone(data)
				return true
			}
			data = data[n:]
		case c.body > 0:
			n := min(int64(len(data)), c.body)
			c.body -= n
			data = data[n:]
			if c.body == 0 {
				c.out = append(c.out, b.answer...)
			}
		case c.body < 0:
			// The bodies that are sent here hold no such bytes themselves.
			c.tail = append(c.tail, data[max(0, len(data)-5):]...)
			c.tail = c.tail[max(0, len(c.tail)-5):]
			data = nil
			if bytes.Equal(c.tail, []byte("0\r\n\r\n")) {
				c.body, c.tail = 0, nil
				c.out = append(c.out, b.answer...)
			}
		default:
			end := bytes.Index(data, []byte("\r\n\r\n"))
			if end < 0 {
				c.rest = bytes.Clone(data)
				return len(data) < 64<<10
			}
			if !b.head(c, data[:end]) {
				return false
			}
			data = data[end+4:]
		}
	}
	return true
}

// head handles the head of a request.
func (b *backend) head(c *backendConn, h []byte) bool {
	c.closing = bytes.Contains(h, []byte("onnection: close"))
	switch {
	case bytes.HasPrefix(h, []byte("POST")):
		l := bytes.ToLower(h)
		if i := bytes.Index(l, []byte("content-length: ")); i >= 0 {
			v, _, _ := bytes.Cut(l[i+16:], []byte("\r"))
			n, err := strconv.ParseInt(string(v), 10, 64)
			if err != nil {
				return false
			}
			c.body = n
		} else if bytes.Contains(l, []byte("chunked")) {
			c.body = -1
		}
		if c.body != 0 {
			return true
		}
	case bytes.HasPrefix(h, []byte("GET /ws")):
		c.ws = true
		return c.upgrade(h)
	case bytes.HasPrefix(h, []byte("GET /big/")):
		v, _, _ := bytes.Cut(h[len("GET /big/"):], []byte(" "))
		n, err := strconv.ParseInt(string(v), 10, 64)
		if err != nil {
			return false
		}
		c.big = n << 20
		c.out = fmt.Appendf(c.out, "HTTP/1.1 200 OK\r\nServer: backend\r\nContent-Length: %d\r\n\r\n", c.big)
		return true
	}
	c.out = append(c.out, b.answer...)
	return true
}

// send writes what the socket takes.
func (b *backend) send(c *backendConn) bool {
	for len(c.out) > 0 || c.big > 0 {
		p := c.out
		if len(p) == 0 {
			p = b.filling[:min(c.big, int64(len(b.filling)))]
		}
		n, err := syscall.Write(c.fd, p)
		if errors.Is(err, syscall.EAGAIN) {
			return true
		}
		if err != nil {
			return false
		}
		if len(c.out) > 0 {
			if c.out = c.out[n:]; len(c.out) == 0 {
				c.out = nil
			}
		} else {
			c.big -= int64(n)
		}
	}
	return !c.closing
}
