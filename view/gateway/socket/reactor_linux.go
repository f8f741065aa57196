package socket

import (
	"errors"
	"net"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// Poller watches descriptors with a few goroutines, one for each core, that call
// handlers when something came: what a handler can do without waiting costs no
// switch of goroutines, and is done in the order in which it came. The runtime's
// own poller wakes those first that came last.
type Poller struct {
	reactors []*reactor
	next     atomic.Uint32
	running  sync.WaitGroup
}

// reactor is one goroutine of a Poller. Its epoll descriptor is watched by the
// runtime, so that it waits as any goroutine does.
type reactor struct {
	ep   int
	file *os.File
	raw  syscall.RawConn
	kick int // an eventfd

	mu     sync.Mutex
	byFD   []*desc
	posted []*desc // to be looked at, though the kernel says nothing
	parked bool
	tardy  []*desc // not watched yet
	timing bool    // a timer runs for them
	closed bool
	gone   bool // the descriptors are closed

	events [128]syscall.EpollEvent
	found  [128]*desc
	taken  []*desc
	n      int
	try    func(fd uintptr) bool
	woke   atomic.Bool // a goroutine was made ready, and wants its turn
}

// NewPoller starts the goroutines.
func NewPoller() (*Poller, error) {
	p := &Poller{}
	for range runtime.GOMAXPROCS(0) {
		r, err := newReactor()
		if err != nil {
			p.Close()
			return nil, err
		}
		p.reactors = append(p.reactors, r)
		p.running.Go(r.run)
	}
	return p, nil
}

// Close ends the goroutines, and closes the connections that are open still: nobody
// would be told of them any more.
func (p *Poller) Close() {
	if p == nil {
		return
	}
	for _, r := range p.reactors {
		r.mu.Lock()
		r.closed = true
		r.tell()
		r.mu.Unlock()
	}
	p.running.Wait()
	for _, r := range p.reactors {
		r.mu.Lock()
		all := slices.Clone(r.byFD)
		r.mu.Unlock()
		for _, d := range all {
			if d != nil {
				_ = d.Close()
			}
		}
	}
}

func (p *Poller) pick() *reactor {
	if len(p.reactors) == 1 {
		return p.reactors[0]
	}
	return p.reactors[int(p.next.Add(1))%len(p.reactors)]
}

func newReactor() (*reactor, error) {
	ep, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := syscall.SetNonblock(ep, true); err != nil {
		_ = syscall.Close(ep)
		return nil, os.NewSyscallError("fcntl", err)
	}
	r := &reactor{ep: ep, file: os.NewFile(uintptr(ep), "epoll")}
	kick, _, errno := syscall.RawSyscall(syscall.SYS_EVENTFD2, 0, syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if errno != 0 {
		_ = r.file.Close()
		return nil, os.NewSyscallError("eventfd", errno)
	}
	r.kick = int(kick)
	r.try = func(uintptr) bool { return r.poll() > 0 }
	if r.raw, err = r.file.SyscallConn(); err == nil {
		err = r.control(syscall.EPOLL_CTL_ADD, r.kick, syscall.EPOLLIN)
	}
	// A file that the runtime cannot watch would make the goroutine spin.
	if err == nil {
		err = r.file.SetReadDeadline(noTime)
	}
	if err != nil {
		_, _ = syscall.Close(r.kick), r.file.Close()
		return nil, err
	}
	return r, nil
}

const edges = syscall.EPOLLIN | syscall.EPOLLOUT | syscall.EPOLLRDHUP | 1<<31 // EPOLLET

func (r *reactor) control(op, fd int, events uint32) error {
	ev := syscall.EpollEvent{Events: events, Fd: int32(fd)}
	_, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_CTL, uintptr(r.ep), uintptr(op), uintptr(fd), uintptr(unsafe.Pointer(&ev)), 0, 0)
	if errno != 0 {
		return os.NewSyscallError("epoll_ctl", errno)
	}
	return nil
}

// poll asks what came, without waiting.
func (r *reactor) poll() int {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(r.ep), uintptr(unsafe.Pointer(&r.events[0])), uintptr(len(r.events)), 0, 0, 0)
	if errno != 0 {
		n = 0
	}
	r.n = int(n)
	return r.n
}

func (r *reactor) run() {
	for {
		if r.poll() == 0 && !r.sleep() {
			break
		}
		r.round()
		// Those who were woken would wait until the scheduler takes the core away.
		if r.woke.Load() {
			r.woke.Store(false)
			runtime.Gosched()
		}
	}
	r.mu.Lock() // nobody uses the descriptors any more, as closed is set
	defer r.mu.Unlock()
	_ = r.file.Close()
	_ = syscall.Close(r.kick)
	r.gone = true
}

// sleep waits until there is something to do; false: the end.
func (r *reactor) sleep() bool {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return false
	}
	if len(r.posted) > 0 {
		r.mu.Unlock()
		return true
	}
	r.parked = true
	r.mu.Unlock()
	err := r.raw.Read(r.try)
	r.mu.Lock()
	r.parked = false
	r.mu.Unlock()
	return err == nil
}

// round does what is to be done for the events of one poll.
func (r *reactor) round() {
	n := r.n
	kicked := false
	r.mu.Lock()
	for i := range n {
		fd := int(r.events[i].Fd)
		if fd == r.kick {
			kicked = true
		} else if fd < len(r.byFD) {
			r.found[i] = r.byFD[fd]
		}
	}
	r.posted, r.taken = r.taken[:0], r.posted
	r.mu.Unlock()
	if kicked {
		var b [8]byte
		_, _, _ = syscall.RawSyscall(syscall.SYS_READ, uintptr(r.kick), uintptr(unsafe.Pointer(&b[0])), 8)
	}
	for i := range n {
		if d := r.found[i]; d != nil {
			r.found[i] = nil
			d.event(r, r.events[i].Events)
		}
	}
	for i, d := range r.taken {
		r.taken[i] = nil
		d.told(r)
	}
}

// tell wakes the goroutine, if it waits. r.mu is held.
func (r *reactor) tell() {
	if r.parked && !r.gone {
		one := uint64(1)
		_, _, _ = syscall.RawSyscall(syscall.SYS_WRITE, uintptr(r.kick), uintptr(unsafe.Pointer(&one)), 8)
	}
}

// post makes the goroutine look at a descriptor.
func (r *reactor) post(d *desc) {
	r.mu.Lock()
	r.posted = append(r.posted, d)
	if len(r.posted) == 1 {
		r.tell()
	}
	r.mu.Unlock()
}

var errEnded = errors.New("socket: the poller was closed")

// add begins to watch a descriptor.
func (r *reactor) add(d *desc) error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return errEnded
	}
	for d.fd >= len(r.byFD) {
		r.byFD = append(r.byFD, make([]*desc, max(64, len(r.byFD)))...)
	}
	err := r.control(syscall.EPOLL_CTL_ADD, d.fd, edges)
	if err == nil {
		r.byFD[d.fd] = d
	}
	r.mu.Unlock()
	return err
}

// patience is after which time a connection that is served is watched, too.
const patience = 50 * time.Millisecond

// late remembers a descriptor that will have to be watched.
func (r *reactor) late(d *desc) {
	r.mu.Lock()
	r.tardy = append(r.tardy, d)
	if !r.timing {
		r.timing = true
		time.AfterFunc(patience, r.overtake)
	}
	r.mu.Unlock()
}

func (r *reactor) overtake() {
	r.mu.Lock()
	all := r.tardy
	r.tardy, r.timing = nil, false
	r.mu.Unlock()
	for _, d := range all {
		d.watch()
	}
}

// forget ends that; if the descriptor is not about to be closed, the kernel must
// be told.
func (r *reactor) forget(d *desc, tell bool) {
	r.mu.Lock()
	if d.fd < len(r.byFD) && r.byFD[d.fd] == d {
		r.byFD[d.fd] = nil
		if tell && !r.gone {
			_ = r.control(syscall.EPOLL_CTL_DEL, d.fd, 0)
		}
	}
	r.mu.Unlock()
}

var _ net.Conn = (*desc)(nil)
