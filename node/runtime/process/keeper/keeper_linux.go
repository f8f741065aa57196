package keeper

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	goruntime "runtime"
	"runtime/debug"
	"slices"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fingerpost/fingerpost/node/runtime"
)

// Initialising this variable is the keeper: it does not return in a process
// that is one.
var _ = enter()

func enter() struct{} {
	if len(os.Args) == 0 || os.Args[0] != Name {
		return struct{}{}
	}
	name := []byte("fp-keeper\x00")
	unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name[0])), 0, 0, 0) //nolint:errcheck // for people who look at ps
	code := 0
	if err := serve(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "keeper:", err)
		code = 1
	}
	os.Exit(code)
	return struct{}{}
}

// idle is how long a keeper without pods and clients waits for some.
const idle = 5 * time.Second

// Keeper has the containers of a directory.
type Keeper struct {
	dir      string
	log      *slog.Logger
	null     int
	cg       *cgroups
	starting chan struct{}

	forkMu   sync.Mutex
	children map[int]*child

	mu       sync.Mutex
	pods     map[string]*pod
	watchers map[*watcher]bool
	clients  int
	changed  chan struct{}
}

func serve(args []string) error {
	if len(args) != 2 {
		return errors.New("wants a directory and a cgroup")
	}
	// Small and mostly asleep: memory counts more than time here.
	debug.SetGCPercent(40)
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGPIPE, syscall.SIGTTOU)
	unix.Umask(0o022)
	dir := args[0]
	if err := os.Chdir(dir); err != nil {
		return err
	}
	lock, err := os.OpenFile("keeper.lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil // there is one already
	}
	lock.Truncate(0)                //nolint:errcheck // the number is for people
	fmt.Fprintln(lock, os.Getpid()) //nolint:errcheck
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	k := &Keeper{
		dir: dir, log: log, null: null, cg: newCgroups(args[1], log),
		starting: make(chan struct{}, max(4, 2*goruntime.NumCPU())),
		children: map[int]*child{}, pods: map[string]*pod{}, watchers: map[*watcher]bool{},
		changed: make(chan struct{}, 1),
	}
	go k.reap()
	k.load()
	if err := os.Remove(Socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: Socket})
	if err != nil {
		return err
	}
	go k.accept(l)
	k.waitIdle()
	os.Remove(Socket) //nolint:errcheck // the next one does
	return nil
}

func (k *Keeper) accept(l *net.UnixListener) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			k.log.Error("accept", "err", err)
			return
		}
		k.mu.Lock()
		k.clients++
		k.mu.Unlock()
		go func() {
			conn := &Conn{UnixConn: c}
			k.handle(conn)
			conn.Close() //nolint:errcheck
			k.mu.Lock()
			k.clients--
			k.mu.Unlock()
			k.poke()
		}()
	}
}

func (k *Keeper) poke() {
	select {
	case k.changed <- struct{}{}:
	default:
	}
}

// waitIdle returns when there was nothing to keep for a while.
func (k *Keeper) waitIdle() {
	timer := time.NewTimer(idle)
	for {
		k.mu.Lock()
		busy := len(k.pods) > 0 || k.clients > 0
		k.mu.Unlock()
		if busy {
			<-k.changed
			timer.Reset(idle)
			continue
		}
		select {
		case <-k.changed:
			timer.Reset(idle)
		case <-timer.C:
			k.mu.Lock()
			busy = len(k.pods) > 0 || k.clients > 0
			k.mu.Unlock()
			if !busy {
				return
			}
		}
	}
}

// handle serves one connection.
func (k *Keeper) handle(c *Conn) {
	var q Request
	fds, err := c.Receive(&q)
	if err != nil {
		return
	}
	for _, fd := range fds {
		unix.CloseOnExec(fd)
	}
	var r Reply
	switch q.Op {
	case OpList:
		r.Pods = k.list()
	case OpPod:
		err = k.startPod(&q, fds)
	case OpStart:
		mnt := -1
		if len(fds) > 0 {
			mnt = fds[0]
		}
		err = k.startContainer(&q, mnt)
	case OpStop:
		err = k.stop(&q, gone(c))
	case OpRemove:
		err = k.remove(q.UID)
	case OpQuit:
		err = k.quit()
	case OpExec:
		k.exec(c, &q, fds)
		return
	case OpAttach:
		k.attach(c, &q)
		return
	case OpWatch:
		k.watch(c)
		return
	default:
		err = fmt.Errorf("the keeper of this directory is of another version and does not know %q: remove its pods to replace it", q.Op)
	}
	closeAll(fds)
	r.fail(err)
	c.Send(&r) //nolint:errcheck // the client is gone
}

func (r *Reply) fail(err error) {
	if err == nil {
		return
	}
	r.Error = err.Error()
	var se *stageError
	switch {
	case errors.As(err, &se) && se.cannot:
		r.Kind = KindCannotRun
	case errors.Is(err, runtime.ErrNotFound):
		r.Kind = KindNotFound
	}
}

// gone is closed when the client hangs up.
func gone(c *Conn) <-chan struct{} {
	hangup, _ := listen(c)
	return hangup
}

// listen hears what a client sends after its request: nothing, or one byte
// that says that its input has ended.
func listen(c *Conn) (hangup, input <-chan struct{}) {
	h, in := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(h)
		var b [1]byte
		for said := false; ; said = true {
			if _, err := c.UnixConn.Read(b[:]); err != nil {
				return
			}
			if !said {
				close(in)
			}
		}
	}()
	return h, in
}

func (k *Keeper) list() []runtime.Pod {
	k.mu.Lock()
	defer k.mu.Unlock()
	pods := []runtime.Pod{}
	for _, p := range k.pods {
		out := runtime.Pod{Config: p.Config, Created: p.Created}
		for _, c := range p.containers {
			out.Containers = append(out.Containers, c.state.Container)
		}
		pods = append(pods, out)
	}
	return pods
}

// watcher gets every end of a container.
type watcher struct {
	mu    sync.Mutex
	queue []runtime.ContainerID
	wake  chan struct{}
}

func (w *watcher) add(id runtime.ContainerID) {
	w.mu.Lock()
	w.queue = append(w.queue, id)
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (k *Keeper) watch(c *Conn) {
	w := &watcher{wake: make(chan struct{}, 1)}
	k.mu.Lock()
	k.watchers[w] = true
	for _, p := range k.pods {
		for _, ct := range p.containers {
			if !ct.state.Ended.IsZero() {
				w.queue = append(w.queue, ct.state.ID) // perhaps nobody was told
			}
		}
	}
	k.mu.Unlock()
	defer func() {
		k.mu.Lock()
		delete(k.watchers, w)
		k.mu.Unlock()
	}()
	hangup := gone(c)
	for {
		w.mu.Lock()
		queue := w.queue
		w.queue = nil
		w.mu.Unlock()
		for i := range queue {
			if err := c.Send(&Reply{ID: &queue[i]}); err != nil {
				return
			}
		}
		select {
		case <-w.wake:
		case <-hangup:
			return
		}
	}
}

// remove kills and removes a pod with everything it has.
func (k *Keeper) remove(uid string) error {
	k.mu.Lock()
	p := k.pods[uid]
	k.mu.Unlock()
	if p == nil {
		return nil
	}
	p.op.Lock()
	defer p.op.Unlock()
	k.mu.Lock()
	containers := slices.Clone(p.containers)
	k.mu.Unlock()
	for _, c := range containers {
		k.kill(c)
	}
	if p.pause != nil {
		k.signal(p.pause, syscall.SIGKILL)
		<-p.pause.done
		p.pause = nil
	} else if p.PausePID != 0 && sameProcess(p.PausePID, p.PauseStart) {
		syscall.Kill(p.PausePID, syscall.SIGKILL) //nolint:errcheck // found again below
	}
	for _, c := range containers {
		select {
		case <-c.ended:
		case <-time.After(10 * time.Second):
			return fmt.Errorf("remove pod %s: container %s does not end after SIGKILL (process %d waits for a device or a file server)", uid, c.state.ID.Name, c.state.PID)
		}
	}
	p.closeNS()
	k.cg.removePod(uid)
	for _, c := range containers {
		removeLogs(c.config.LogPath, c.config.LogMaxFiles)
	}
	if err := os.RemoveAll(k.shmDir(uid)); err != nil {
		return fmt.Errorf("remove pod %s: %w", uid, err)
	}
	if err := os.RemoveAll(p.dir); err != nil {
		return fmt.Errorf("remove pod %s: %w", uid, err)
	}
	k.mu.Lock()
	delete(k.pods, uid)
	last := len(k.pods) == 0
	k.mu.Unlock()
	if last {
		k.cg.removeRoot()
		os.Remove(filepath.Dir(k.shmDir(uid))) //nolint:errcheck // not ours alone
	}
	k.poke()
	return nil
}

func (k *Keeper) quit() error {
	k.mu.Lock()
	var uids []string
	for uid := range k.pods {
		uids = append(uids, uid)
	}
	k.mu.Unlock()
	var errs []error
	for _, uid := range uids {
		errs = append(errs, k.remove(uid))
	}
	return errors.Join(errs...)
}
