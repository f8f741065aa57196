package dns

import (
	"context"
	"encoding/binary"
	"net/netip"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Packets are received and sent many at a time, without package net: at
// saturation the kernel's work is all that is left, and when there is little
// to do a thread that sleeps in recvmmsg wakes up sooner and cheaper than a
// goroutine that waits for the poller.

const (
	batchSize = 64
	answerCap = 1280 // of one answer; udpMax fits
	crowded   = 16   // packets at once: there is no idle time
	oobCap    = 128  // of what the kernel says about a packet's destination
)

// mmsghdr is struct mmsghdr.
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
}

// rawSocket is a blocking UDP socket that the poller knows nothing of.
type rawSocket struct {
	mu     sync.RWMutex // held by senders, so that the number stays theirs
	fd     int
	closed bool
}

// detach takes the socket out of package net.
func (u *udpSocket) detach() error {
	rc, err := u.conn.SyscallConn()
	if err != nil {
		return err
	}
	fd := -1
	if cerr := rc.Control(func(p uintptr) { fd, err = unix.FcntlInt(p, unix.F_DUPFD_CLOEXEC, 0) }); cerr != nil {
		return cerr
	}
	if err != nil {
		return err
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		_ = unix.Close(fd)
		return err
	}
	_ = u.conn.Close()
	u.conn, u.raw = nil, &rawSocket{fd: fd}
	return nil
}

// stop wakes the thread that sleeps in recvmmsg: the kernel answers ENOTCONN,
// but shuts the socket down for reading all the same.
func (r *rawSocket) stop() {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if !r.closed {
		_ = unix.Shutdown(r.fd, unix.SHUT_RD)
	}
}

func (r *rawSocket) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		r.closed = true
		_ = unix.Close(r.fd)
	}
}

// batch is the memory of one worker. Every slot has its own buffers, so that
// headers are written once.
type batch struct {
	rx, tx [batchSize]mmsghdr
	rxv    [batchSize]unix.Iovec
	txv    [batchSize]unix.Iovec
	names  [batchSize]unix.RawSockaddrInet6 // large enough for both families
	in     [batchSize][udpRead]byte
	out    [batchSize][answerCap]byte
	oob    [batchSize][oobCap]byte

	query   query
	waiting [zones]uint64 // answers of this batch by zone
}

func newBatch(oob bool) *batch {
	b := new(batch)
	for i := range batchSize {
		b.rxv[i].Base = &b.in[i][0]
		b.rxv[i].SetLen(udpRead)
		h := &b.rx[i].hdr
		h.Name = (*byte)(unsafe.Pointer(&b.names[i]))
		h.Iov = &b.rxv[i]
		h.SetIovlen(1)
		if oob {
			h.Control = &b.oob[i][0]
		}
		b.tx[i].hdr.Iov = &b.txv[i]
		b.tx[i].hdr.SetIovlen(1)
	}
	return b
}

// receive waits for packets. The kernel has overwritten lengths the last time.
func (b *batch) receive(fd int, oob, busy bool, used int) (int, syscall.Errno) {
	for i := range used {
		b.rx[i].hdr.Namelen = unix.SizeofSockaddrInet6
		if oob {
			b.rx[i].hdr.SetControllen(oobCap)
		}
	}
	if busy { // without telling the scheduler: it does not wait
		n, _, e := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.rx[0])), batchSize, unix.MSG_DONTWAIT, 0, 0)
		if e != unix.EAGAIN {
			return int(n), e
		}
	}
	n, _, e := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.rx[0])), batchSize, unix.MSG_WAITFORONE, 0, 0)
	return int(n), e
}

// send sends the first n answers and gives the number of those that could not
// be sent.
func (b *batch) send(fd, n int) (lost int) {
	for at := 0; at < n; {
		k, _, e := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.tx[at])), uintptr(n-at), unix.MSG_DONTWAIT, 0, 0)
		if e == unix.EAGAIN { // the queue is full: now it may take long
			k, _, e = unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.tx[at])), uintptr(n-at), 0, 0, 0)
		}
		switch {
		case e == 0:
			at += int(k)
		case e != unix.EINTR:
			at++ // this one; the client asks again
			lost++
		}
	}
	return lost
}

// loopBatch answers until the socket is stopped or broken.
func (s *Server) loopBatch(ctx context.Context, u *udpSocket) (err error) {
	defer caught(&err)
	runtime.LockOSThread() // a thread of its own: no other goroutine delays it
	defer runtime.UnlockOSThread()
	b := newBatch(u.oob)
	fd := u.raw.fd
	used, busy := batchSize, false
	for errs := 0; errs < maxErrors; {
		n, e := b.receive(fd, u.oob, busy, used)
		if e != 0 {
			used = batchSize
			if s.closing.Load() {
				return nil
			}
			if e != unix.EINTR {
				errs++
				err = e
			}
			continue
		}
		errs = 0
		// Several at once: more are likely to be there when these are done.
		used, busy = n, n > 1
		start := time.Now()
		answers := 0
		for i := range n {
			if s.batched(ctx, u, b, i, answers, start) {
				answers++
			}
		}
		if lost := b.send(fd, answers); lost > 0 {
			u.stats.dropped.Add(uint64(lost))
		}
		u.stats.tookAll(&b.waiting, time.Since(start))
		if n >= crowded {
			// Nothing above ever waits, so that other goroutines, the one
			// that applies changes among them, would wait for preemption.
			runtime.Gosched()
		}
		if s.closing.Load() {
			return nil
		}
	}
	return err
}

// batched answers packet i as answer number k, and says whether there is one
// to be sent now.
func (s *Server) batched(ctx context.Context, u *udpSocket, b *batch, i, k int, start time.Time) bool {
	rx := &b.rx[i]
	pkt := b.in[i][:rx.n]
	q := &b.query
	from := client(&b.names[i], rx.hdr.Namelen)
	q.client = from.Addr()
	resp, f, wait := s.immediate(q, pkt, b.out[k][:0], false)
	if resp == nil {
		return false
	}
	var oob []byte
	if u.oob {
		oob = source(b.oob[i][:min(int(rx.hdr.Controllen), oobCap)])
	}
	if wait {
		s.later(ctx, &job{
			query: *q, finding: f, start: start, stats: u.stats, from: from,
			pkt: append([]byte(nil), pkt...), resp: append([]byte(nil), resp...),
			send: u.rawSender(oob, b.names[i], rx.hdr.Namelen),
		})
		return false
	}
	tx := &b.tx[k].hdr
	b.txv[k].Base = unsafe.SliceData(resp)
	b.txv[k].SetLen(len(resp))
	tx.Name, tx.Namelen = rx.hdr.Name, rx.hdr.Namelen
	if u.oob {
		tx.Control = unsafe.SliceData(oob)
		tx.SetControllen(len(oob))
	}
	s.counted(u.stats, from, q, &f, len(pkt), resp, start)
	b.waiting[f.zone]++
	return true
}

// client reads a socket address.
func client(name *unix.RawSockaddrInet6, n uint32) netip.AddrPort {
	port := (*[2]byte)(unsafe.Pointer(&name.Port))
	switch name.Family {
	case unix.AF_INET:
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
		return netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), binary.BigEndian.Uint16(port[:]))
	case unix.AF_INET6:
		a := netip.AddrFrom16(name.Addr)
		if name.Scope_id != 0 && n >= unix.SizeofSockaddrInet6 && !a.Is4In6() {
			a = a.WithZone(strconv.Itoa(int(name.Scope_id)))
		}
		return netip.AddrPortFrom(a, binary.BigEndian.Uint16(port[:]))
	}
	return netip.AddrPort{}
}

// rawSender answers later, after the buffers were used for other questions.
func (u *udpSocket) rawSender(oob []byte, name unix.RawSockaddrInet6, namelen uint32) func([]byte) {
	oob = append([]byte(nil), oob...)
	return func(resp []byte) {
		if len(resp) == 0 {
			return
		}
		u.raw.mu.RLock()
		defer u.raw.mu.RUnlock()
		var e syscall.Errno = unix.EBADF
		if !u.raw.closed {
			iov := unix.Iovec{Base: &resp[0]}
			iov.SetLen(len(resp))
			h := unix.Msghdr{Name: (*byte)(unsafe.Pointer(&name)), Namelen: namelen, Iov: &iov}
			h.SetIovlen(1)
			if len(oob) > 0 {
				h.Control = &oob[0]
				h.SetControllen(len(oob))
			}
			_, _, e = unix.Syscall(unix.SYS_SENDMSG, uintptr(u.raw.fd), uintptr(unsafe.Pointer(&h)), 0)
		}
		if e != 0 {
			u.stats.dropped.Add(1)
		}
	}
}
