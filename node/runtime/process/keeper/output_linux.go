package keeper

import (
	"errors"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// output is what a container prints: to its log, and to those who attached.
type output struct {
	k        *Keeper
	log      *logFile
	pumps    []*pump
	done     sync.WaitGroup
	mu       sync.Mutex
	master   int // of its terminal; -1: none
	attached map[*attachment]bool
	closed   bool
}

// pump moves one stream.
type pump struct {
	out    *output
	stream string
	file   *os.File
	line   lineCutter
}

// attachment is where somebody gets a copy of the output: pipes that are
// written without waiting.
type attachment struct {
	stdout, stderr int // -1: not wanted
}

func (k *Keeper) newOutput(c *container) *output {
	return &output{
		k: k, master: -1, attached: map[*attachment]bool{},
		log: &logFile{path: c.config.LogPath, max: c.config.LogMaxSize, files: c.config.LogMaxFiles, warn: k.log},
	}
}

func (o *output) pipe(stream string, fd int) {
	p := &pump{out: o, stream: stream, file: os.NewFile(uintptr(fd), stream)}
	p.line.stream = stream
	o.pumps = append(o.pumps, p)
}

// terminal takes our end of the container's terminal.
func (o *output) terminal(fd int) {
	unix.SetNonblock(fd, true) //nolint:errcheck // it works for every terminal
	o.mu.Lock()
	o.master, _ = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	o.mu.Unlock()
	o.pipe("stdout", fd)
}

func (o *output) start() {
	for _, p := range o.pumps {
		o.done.Go(p.run)
	}
}

func (o *output) close() {
	for _, p := range o.pumps {
		p.file.Close() //nolint:errcheck
	}
}

// finish waits for what is left to read, writes it, and lets go of everybody.
func (o *output) finish() {
	all := make(chan struct{})
	go func() { o.done.Wait(); close(all) }()
	select {
	case <-all:
	case <-time.After(time.Second):
		// A process outside of the container has the pipe open.
		for _, p := range o.pumps {
			p.file.SetReadDeadline(time.Now()) //nolint:errcheck
		}
		<-all
	}
	o.close()
	o.log.close()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	if o.master >= 0 {
		unix.Close(o.master) //nolint:errcheck
		o.master = -1
	}
	for a := range o.attached {
		a.close()
	}
	clear(o.attached)
}

func (a *attachment) close() {
	for _, fd := range []*int{&a.stdout, &a.stderr} {
		if *fd >= 0 {
			unix.Close(*fd) //nolint:errcheck
			*fd = -1
		}
	}
}

// buffers are shared: a stream that is silent has none.
var buffers = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// run reads until the end of the stream.
func (p *pump) run() {
	raw, err := p.file.SyscallConn()
	if err != nil {
		return
	}
	for {
		end := false
		err := raw.Read(func(fd uintptr) bool {
			buf := buffers.Get().(*[]byte)
			defer buffers.Put(buf)
			n, err := unix.Read(int(fd), *buf)
			switch {
			case errors.Is(err, syscall.EAGAIN):
				return false
			case errors.Is(err, syscall.EINTR):
				return true
			case err != nil || n == 0: // EIO: nobody has the terminal open
				end = true
				return true
			}
			p.take((*buf)[:n])
			return true
		})
		if err != nil || end {
			break
		}
	}
	p.out.log.write(p.line.rest(time.Now()))
}

func (p *pump) take(data []byte) {
	p.out.log.write(p.line.cut(data, time.Now()))
	p.out.mu.Lock()
	defer p.out.mu.Unlock()
	for a := range p.out.attached {
		fd := a.stdout
		if p.stream == "stderr" {
			fd = a.stderr
		}
		if fd >= 0 {
			// What does not fit is lost to this reader: the container does
			// not wait for it.
			unix.Write(fd, data) //nolint:errcheck // one that is gone is taken out when it hangs up
		}
	}
}
