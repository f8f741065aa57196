package userspace

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// newNetwork watches all sockets with a few goroutines. A net.Listener would
// need a goroutine with its stack for each of ten thousand services; here an
// idle service costs a file descriptor and a map entry.
func newNetwork(log *slog.Logger) (network, error) {
	e := &engine{log: log}
	for range min(4, runtime.GOMAXPROCS(0)) {
		l, err := newLoop()
		if err != nil {
			e.close()
			return nil, err
		}
		e.loops = append(e.loops, l)
	}
	e.spare, _ = unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	return e, nil
}

type engine struct {
	log   *slog.Logger
	loops []*loop
	turn  atomic.Uint32

	spareMu sync.Mutex
	spare   int // a descriptor to give up when there are none left
	warned  time.Time
}

// loop is one epoll instance. The instance itself is watched by the Go
// runtime, so that waiting occupies no thread.
type loop struct {
	file *os.File
	fd   int
	buf  []byte

	mu    sync.RWMutex
	socks map[int32]*sock
}

// sock is a socket in a loop.
type sock struct {
	loop  *loop
	ready func()

	// mu is held shared around each system call, so that the number is not
	// closed, and perhaps given to another file, in the middle of one.
	mu      sync.RWMutex
	fd      int // -1: closed
	watched bool
}

var errClosed = errors.New("socket closed")

func newLoop() (*loop, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make an epoll instance: %w", err)
	}
	// Non-blocking, so that os.NewFile hands it to the runtime's poller.
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &loop{file: os.NewFile(uintptr(fd), "epoll"), fd: fd, buf: make([]byte, maxDatagram), socks: map[int32]*sock{}}, nil
}

func (e *engine) run(ctx context.Context) error {
	// The instances stay open until close: a socket may still be added to one.
	defer context.AfterFunc(ctx, func() {
		for _, l := range e.loops {
			_ = l.file.SetReadDeadline(time.Unix(1, 0))
		}
	})()
	var wg sync.WaitGroup
	errs := make([]error, len(e.loops))
	for i, l := range e.loops {
		wg.Go(func() { errs[i] = l.run() })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (l *loop) run() error {
	conn, err := l.file.SyscallConn()
	if err != nil {
		return err
	}
	events := make([]unix.EpollEvent, 256)
	n := 0
	wait := func(fd uintptr) bool {
		for {
			n, err = unix.EpollWait(int(fd), events, 0)
			if !errors.Is(err, unix.EINTR) {
				return n > 0 || err != nil
			}
		}
	}
	for {
		if ended := conn.Read(wait); ended != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("wait for sockets: %w", err)
		}
		for i := range events[:n] {
			l.mu.RLock()
			s := l.socks[events[i].Fd]
			l.mu.RUnlock()
			if s != nil {
				s.ready()
			}
		}
	}
}

func (e *engine) close() {
	for _, l := range e.loops {
		l.mu.Lock()
		left := make([]*sock, 0, len(l.socks))
		for _, s := range l.socks {
			left = append(left, s)
		}
		l.mu.Unlock()
		for _, s := range left {
			s.close()
		}
		l.file.Close()
	}
	e.spareMu.Lock()
	defer e.spareMu.Unlock()
	if e.spare > 0 {
		unix.Close(e.spare)
		e.spare = 0
	}
}

// socket prepares an entry for one of the loops.
func (e *engine) socket(fd int) *sock {
	return &sock{loop: e.loops[e.turn.Add(1)%uint32(len(e.loops))], fd: fd}
}

// enter puts the socket into its loop; it is not watched yet. Its ready must be
// set: an event of a closed socket with the same number may still be on its way.
func (s *sock) enter() {
	s.loop.mu.Lock()
	s.loop.socks[int32(s.fd)] = s
	s.loop.mu.Unlock()
}

// use calls f with the descriptor, unless the socket is closed.
func (s *sock) use(f func(fd int) error) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.fd < 0 {
		return errClosed
	}
	for {
		if err := f(s.fd); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// change calls f with the descriptor while nobody else uses it, and starts or
// stops watching.
func (s *sock) change(watch bool, f func(fd int) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return errClosed
	}
	if !watch {
		s.unwatch()
	}
	if f != nil {
		if err := f(s.fd); err != nil {
			return err
		}
	}
	if watch && !s.watched {
		ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(s.fd)}
		if err := unix.EpollCtl(s.loop.fd, unix.EPOLL_CTL_ADD, s.fd, &ev); err != nil {
			return fmt.Errorf("watch a socket: %w; if it is ENOSPC raise fs.epoll.max_user_watches", err)
		}
		s.watched = true
	}
	return nil
}

func (s *sock) unwatch() {
	if s.watched {
		unix.EpollCtl(s.loop.fd, unix.EPOLL_CTL_DEL, s.fd, nil)
		s.watched = false
	}
}

func (s *sock) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return
	}
	s.loop.mu.Lock()
	delete(s.loop.socks, int32(s.fd))
	s.loop.mu.Unlock()
	s.unwatch()
	unix.Close(s.fd)
	s.fd = -1
}
