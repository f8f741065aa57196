package main

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	batch    = 32   // messages a call
	packet   = 1500 // bytes a message at most
	patience = 200 * time.Millisecond
)

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   [4]byte
}

// result is what one run of the generator saw.
type result struct {
	sent, answered, wrong, lost int
	elapsed                     time.Duration
	latencies                   []time.Duration // sorted; a sample
	example                     string          // of a wrong answer
}

func (r *result) at(p float64) time.Duration {
	if len(r.latencies) == 0 {
		return 0
	}
	return r.latencies[min(len(r.latencies)-1, int(p*float64(len(r.latencies))))]
}

// flow is one socket with what is under way on it. The ID of a query is its
// place in the table of times.
type flow struct {
	fd    int
	next  uint16
	under int
	last  time.Time // when something came
	when  []time.Time
	which []int32 // question of each ID; -1: answered

	out, in   [batch]mmsghdr
	outV, inV [batch]unix.Iovec
	outB, inB [batch][packet]byte
	pending   int // messages in out not taken by the kernel
}

func newFlow(to netip.AddrPort) (*flow, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<20)
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	f := &flow{fd: fd, when: make([]time.Time, 1<<16), which: make([]int32, 1<<16)}
	for i := range f.which {
		f.which[i] = -1
	}
	for i := range batch {
		f.outV[i].Base, f.inV[i].Base = &f.outB[i][0], &f.inB[i][0]
		f.inV[i].SetLen(packet)
		f.out[i].hdr.Iov, f.in[i].hdr.Iov = &f.outV[i], &f.inV[i]
		f.out[i].hdr.SetIovlen(1)
		f.in[i].hdr.SetIovlen(1)
	}
	return f, nil
}

// add prepares one message.
func (f *flow) add(qs []question, n int, now time.Time) {
	q := &qs[n]
	b := &f.outB[f.pending]
	copy(b[:], q.packet)
	b[0], b[1] = byte(f.next>>8), byte(f.next)
	f.outV[f.pending].SetLen(len(q.packet))
	f.when[f.next], f.which[f.next] = now, int32(n)
	f.next++
	f.pending++
	f.under++
}

func (f *flow) flush() error {
	for done := 0; done < f.pending; {
		n, _, e := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(f.fd), uintptr(unsafe.Pointer(&f.out[done])), uintptr(f.pending-done), 0, 0, 0)
		switch e {
		case 0:
			done += int(n)
		case unix.EAGAIN, unix.EINTR, unix.ENOBUFS, unix.ECONNREFUSED:
		default:
			return e
		}
	}
	f.pending = 0
	return nil
}

// receive takes what is there and says how many.
func (f *flow) receive(qs []question, echo bool, r *result) (int, error) {
	n, _, e := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(f.fd), uintptr(unsafe.Pointer(&f.in[0])), batch, unix.MSG_DONTWAIT, 0, 0)
	if e != 0 {
		if e == unix.EAGAIN || e == unix.EINTR || e == unix.ECONNREFUSED {
			return 0, nil
		}
		return 0, e
	}
	now := time.Now()
	f.last = now
	for i := range int(n) {
		b := f.inB[i][:f.in[i].len]
		if len(b) < 12 {
			r.wrong++
			continue
		}
		id := uint16(b[0])<<8 | uint16(b[1])
		k := f.which[id]
		if k < 0 {
			continue // counted as lost before
		}
		f.which[id] = -1
		f.under--
		r.answered++
		if r.answered&15 == 0 {
			r.latencies = append(r.latencies, now.Sub(f.when[id]))
		}
		if q := &qs[k]; !echo && (b[2]&0x80 == 0 || b[3]&0xF != q.rcode || (b[6]|b[7] != 0) != q.answers) {
			if r.wrong++; r.example == "" {
				r.example = fmt.Sprintf("%q: %x", q.packet[12:], b)
			}
		}
	}
	return int(n), nil
}

// load says how a server is asked.
type load struct {
	flows, window int
	rate          int // questions a second; 0: as fast as answers come, window under way
	span          time.Duration
	echo          bool // it sends back what it gets
}

// generate asks one server from the calling thread, which spins: it has a core
// for itself.
func generate(to netip.AddrPort, qs []question, load load) (*result, error) {
	flows, window, rate, span := load.flows, load.window, load.rate, load.span
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var r result
	var all []*flow
	for range flows {
		f, err := newFlow(to)
		if err != nil {
			return nil, err
		}
		defer unix.Close(f.fd)
		all = append(all, f)
	}
	each := max(1, window/flows)
	began := time.Now()
	end := began.Add(span)
	n := 0
	take := func() int { n++; return n % len(qs) }
	for now := began; now.Before(end); now = time.Now() {
		if rate > 0 {
			due := int(now.Sub(began).Seconds() * float64(rate))
			for r.sent < due {
				f := all[r.sent%flows]
				f.add(qs, take(), now)
				r.sent++
				if err := f.flush(); err != nil {
					return nil, err
				}
			}
		}
		for _, f := range all {
			if _, err := f.receive(qs, load.echo, &r); err != nil {
				return nil, err
			}
			if rate > 0 {
				continue
			}
			if f.under >= each && now.Sub(f.last) > patience && !f.last.IsZero() {
				r.lost += f.under
				f.under = 0
				for i := range f.which {
					f.which[i] = -1
				}
			}
			for f.under < each && f.pending < batch {
				f.add(qs, take(), now)
				r.sent++
			}
			if err := f.flush(); err != nil {
				return nil, err
			}
		}
	}
	r.elapsed = time.Since(began)
	if rate > 0 {
		for grace := time.Now().Add(patience); time.Now().Before(grace); {
			for _, f := range all {
				if _, err := f.receive(qs, load.echo, &r); err != nil {
					return nil, err
				}
			}
		}
		r.lost = r.sent - r.answered
	}
	slices.Sort(r.latencies)
	if r.answered == 0 {
		return nil, errors.New("no answer came")
	}
	return &r, nil
}

// pin keeps this process on one core.
func pin(cpu int) error {
	var set unix.CPUSet
	set.Set(cpu)
	return unix.SchedSetaffinity(0, &set)
}
