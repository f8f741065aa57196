package prober

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fingerpost/fingerpost/health/probe"
)

// exchange is a quick question that was asked. It has a descriptor until it is
// told.
type exchange struct {
	*Quick
	t     *task
	began time.Time
	fd    int
	sent  bool
	got   []byte
}

// begin asks: it connects and, as to this machine that is done at once, sends
// the request. Without an error and an exchange there is no quick way.
func (q *Quick) begin() (*exchange, error) {
	family, sa := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(q.addr.Port()), Addr: q.addr.Addr().As16()})
	if q.addr.Addr().Is4() {
		family, sa = unix.AF_INET, &unix.SockaddrInet4{Port: int(q.addr.Port()), Addr: q.addr.Addr().As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil
	}
	x := &exchange{Quick: q, fd: fd, began: time.Now()}
	if err := unix.Connect(fd, sa); err != nil && err != unix.EINPROGRESS && err != unix.EINTR {
		_ = unix.Close(fd)
		return nil, q.during("dial", os.NewSyscallError("connect", err))
	}
	if err := x.send(); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return x, nil
}

// send sends the request, if that can be done.
func (x *exchange) send() error {
	if x.sent || x.req == nil {
		return nil
	}
	n, err := unix.SendmsgN(x.fd, x.text, nil, nil, unix.MSG_NOSIGNAL)
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
		return nil
	case err != nil:
		return x.during("dial", os.NewSyscallError("connect", err))
	case n < len(x.text):
		return x.during("write", io.ErrShortWrite) // a buffer that small does not hold a request
	}
	x.sent = true
	return nil
}

// look tells the answer if it is there.
func (x *exchange) look(s *scratch) (told bool) {
	ctx := x.t.group.ctx
	if x.req == nil {
		err := x.made()
		if err == unix.EALREADY {
			return false
		}
		x.tell(x.connection(ctx, err))
		return true
	}
	if err := x.send(); err != nil {
		x.tell(x.failed(ctx, err))
		return true
	}
	if !x.sent {
		return false
	}
	for {
		n, err := unix.Read(x.fd, s.buf)
		if err == unix.EAGAIN || err == unix.EINTR {
			return false
		}
		if err != nil {
			x.tell(x.failed(ctx, x.during("read", os.NewSyscallError("read", err))))
			return true
		}
		got := s.buf[:n]
		if len(x.got) > 0 {
			x.got = append(x.got, got...)
			got = x.got
		}
		// What is not all there may end with the connection, which is told next.
		if x.judged(ctx, s, got, n == 0) {
			return true
		}
	}
}

// judged tells the answer if it is all there, and else keeps what there is.
func (x *exchange) judged(ctx context.Context, s *scratch, got []byte, all bool) bool {
	r, next, done := x.judge(ctx, s, got, all)
	switch {
	case !done:
		if len(x.got) == 0 {
			x.got = bytes.Clone(got)
		}
		return false
	case next == nil:
		x.tell(r)
		return true
	}
	x.close()
	go func() {
		ctx, cancel := context.WithDeadline(ctx, x.began.Add(x.t.Timeout))
		defer cancel()
		x.t.answered(x.began, x.http.follow(ctx, next, maxRedirects-1))
	}()
	return true
}

// made asks how the connection is.
func (x *exchange) made() error {
	// Whether it is made is known best to who wants to make it again.
	var sa unix.Sockaddr = &unix.SockaddrInet6{Port: int(x.addr.Port()), Addr: x.addr.Addr().As16()}
	if x.addr.Addr().Is4() {
		sa = &unix.SockaddrInet4{Port: int(x.addr.Port()), Addr: x.addr.Addr().As4()}
	}
	switch err := unix.Connect(x.fd, sa); err {
	case unix.EISCONN:
		return nil
	case unix.EINTR:
		return unix.EALREADY
	default:
		return err
	}
}

func (x *exchange) connection(ctx context.Context, err error) probe.Result {
	if err != nil {
		return x.failed(ctx, x.during("dial", os.NewSyscallError("connect", err)))
	}
	return x.connected()
}

func (x *exchange) close() { _ = unix.Close(x.fd) }

// tell tells the answer. Bad news may have much to be done about it.
func (x *exchange) tell(r probe.Result) {
	x.close()
	if r.OK {
		x.t.answered(x.began, r)
		return
	}
	go x.t.answered(x.began, r)
}

// wait waits for the answer, in a goroutine of its own.
func (x *exchange) wait() {
	f := os.NewFile(uintptr(x.fd), "probe")
	if f == nil {
		x.close()
		return
	}
	ctx, cancel := context.WithDeadline(x.t.group.ctx, x.began.Add(x.t.Timeout))
	defer cancel()
	_ = f.SetDeadline(x.began.Add(x.t.Timeout))
	stop := context.AfterFunc(ctx, func() { _ = f.SetDeadline(time.Unix(1, 0)) })
	r := x.await(ctx, f)
	stop()
	_ = f.Close()
	x.t.answered(x.began, r)
}

// await is the rest of an exchange that takes its time.
func (x *exchange) await(ctx context.Context, f *os.File) probe.Result {
	if x.req == nil {
		err := error(unix.EALREADY)
		raw, rawErr := f.SyscallConn()
		if rawErr == nil {
			rawErr = raw.Write(func(uintptr) bool {
				err = x.made()
				return err != unix.EALREADY
			})
		}
		if rawErr != nil {
			return x.failed(ctx, rawErr)
		}
		return x.connection(ctx, err)
	}
	if !x.sent {
		if _, err := f.Write(x.text); err != nil {
			return x.failed(ctx, x.plain("dial", "connect", err))
		}
	}
	res, err := answer(bufio.NewReader(io.LimitReader(io.MultiReader(bytes.NewReader(x.got), f), maxAnswer)), x.req)
	if err != nil {
		return x.failed(ctx, x.plain("read", "read", err))
	}
	r, next := judge(x.url, res)
	if next == nil {
		return r
	}
	_ = f.Close()
	return x.http.follow(ctx, next, maxRedirects-1)
}

// plain writes an error of a file as one of a connection.
func (x *exchange) plain(step, call string, err error) error {
	var number syscall.Errno
	if errors.As(err, &number) {
		return x.during(step, os.NewSyscallError(call, number))
	}
	return err
}
