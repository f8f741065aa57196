package keeper

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	goruntime "runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fingerpost/fingerpost/node/runtime"
	"github.com/fingerpost/fingerpost/node/runtime/process/stage"
)

// podState is what pod.json holds.
type podState struct {
	Config     runtime.PodConfig
	Created    time.Time
	PausePID   int
	PauseStart uint64
}

type pod struct {
	podState
	dir   string
	op    sync.Mutex // one change of a pod at a time
	netNS int        // descriptors; -1: the machine's
	utsNS int
	ipcNS int
	pidNS int
	pause *child // of this keeper

	containers []*container // under Keeper.mu
}

// names that can be directories.
var uidPattern = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{0,200}$`)

func (k *Keeper) podDir(uid string) string { return filepath.Join(k.dir, "pods", uid) }

// shmDir is what a pod shares as /dev/shm: memory of the machine's own, so
// that nothing need be mounted for it.
func (k *Keeper) shmDir(uid string) string {
	sum := sha256.Sum256([]byte(k.dir))
	return filepath.Join("/dev/shm", fmt.Sprintf("fingerpost-%x", sum[:6]), uid)
}

func (k *Keeper) startPod(q *Request, fds []int) error {
	if q.Pod == nil || !uidPattern.MatchString(q.Pod.UID) {
		return errors.New("start a pod: its UID must be of letters, digits and dashes")
	}
	k.mu.Lock()
	p := k.pods[q.Pod.UID]
	k.mu.Unlock()
	if p != nil {
		return nil
	}
	p = &pod{podState: podState{Config: *q.Pod, Created: time.Now()}, dir: k.podDir(q.Pod.UID), netNS: -1, utsNS: -1, ipcNS: -1, pidNS: -1}
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return fmt.Errorf("start pod %s: %w", p.Config.UID, err)
	}
	err := p.openNS(fds)
	if err == nil && p.Config.SharePID && !p.Config.HostPID {
		err = k.startPause(p)
	}
	if err == nil {
		err = makeShm(k.shmDir(p.Config.UID))
	}
	if err == nil {
		err = p.save()
	}
	if err != nil {
		k.abandon(p)
		return fmt.Errorf("start pod %s: %w", p.Config.UID, err)
	}
	k.mu.Lock()
	k.pods[p.Config.UID] = p
	k.mu.Unlock()
	k.poke()
	return nil
}

func (k *Keeper) abandon(p *pod) {
	if p.pause != nil {
		k.signal(p.pause, unix.SIGKILL)
		<-p.pause.done
	}
	p.closeNS()
	os.RemoveAll(k.shmDir(p.Config.UID)) //nolint:errcheck // the first error counts
	os.RemoveAll(p.dir)                  //nolint:errcheck
}

func makeShm(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o711); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return os.Chmod(dir, 0o1777|os.ModeSticky)
}

func (p *pod) save() error { return writeJSON(filepath.Join(p.dir, "pod.json"), &p.podState) }

func (p *pod) closeNS() {
	for _, fd := range []*int{&p.netNS, &p.utsNS, &p.ipcNS, &p.pidNS} {
		if *fd >= 0 {
			unix.Close(*fd) //nolint:errcheck
			*fd = -1
		}
	}
}

// openNS gets the namespaces of a pod: the network's is there, the others are
// made. They live as long as somebody has them open.
func (p *pod) openNS(fds []int) error {
	var err error
	if p.Config.NetNS != "" {
		if len(fds) > 0 {
			// As the client sees it, whose mounts may not be ours.
			p.netNS, err = unix.FcntlInt(uintptr(fds[0]), unix.F_DUPFD_CLOEXEC, 0)
		} else {
			p.netNS, err = unix.Open(p.Config.NetNS, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}
		if err != nil {
			return fmt.Errorf("network namespace %s: %w", p.Config.NetNS, err)
		}
	}
	flags := 0
	if p.Config.Hostname != "" {
		flags |= unix.CLONE_NEWUTS
	}
	if !p.Config.HostIPC {
		flags |= unix.CLONE_NEWIPC
	}
	if flags == 0 {
		return nil
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		goruntime.LockOSThread() // and never unlocked: the thread ends here
		if err = unix.Unshare(flags); err != nil {
			err = fmt.Errorf("make the pod's namespaces: %w", err)
			return
		}
		if flags&unix.CLONE_NEWUTS != 0 {
			if err = unix.Sethostname([]byte(p.Config.Hostname)); err != nil {
				err = fmt.Errorf("set the host name %q: %w", p.Config.Hostname, err)
				return
			}
			if p.utsNS, err = unix.Open("/proc/thread-self/ns/uts", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
				return
			}
		}
		if flags&unix.CLONE_NEWIPC != 0 {
			p.ipcNS, err = unix.Open("/proc/thread-self/ns/ipc", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}
	}()
	<-done
	return err
}

// startPause starts process 1 of a pod whose containers share one pid
// namespace.
func (k *Keeper) startPause(p *pod) error {
	l := newLaunch()
	l.spec = stage.Spec{Mode: stage.ModePause}
	l.newPID = true
	l.born = func(c *child) error {
		p.PausePID, p.PauseStart = c.pid, c.start
		return p.save()
	}
	c, _, err := k.run(l)
	p.pause = c
	if err != nil {
		return fmt.Errorf("start its process 1: %w", err)
	}
	p.pidNS, err = unix.Open(fmt.Sprintf("/proc/%d/ns/pid", c.pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	return err
}

// reopenNS finds the namespaces of a pod that another keeper started, in what
// runs of it. What is not there any more is made anew.
func (k *Keeper) reopenNS(p *pod) {
	for _, c := range p.containers {
		if !c.state.Running() || p.utsNS >= 0 || p.ipcNS >= 0 {
			continue
		}
		ns := func(name string) int {
			fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/%s", c.state.PID, name), unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return -1
			}
			return fd
		}
		if p.Config.NetNS != "" {
			p.netNS = ns("net")
		}
		if p.Config.Hostname != "" {
			p.utsNS = ns("uts")
		}
		if !p.Config.HostIPC {
			p.ipcNS = ns("ipc")
		}
	}
	if p.utsNS < 0 && p.ipcNS < 0 {
		if err := p.openNS(nil); err != nil {
			k.log.Error("namespaces of a pod are lost", "pod", p.Config.UID, "err", err)
		}
	}
	if !p.Config.SharePID || p.Config.HostPID {
		return
	}
	if sameProcess(p.PausePID, p.PauseStart) {
		if fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/pid", p.PausePID), unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
			p.pidNS = fd
			return
		}
	}
	if err := k.startPause(p); err != nil {
		k.log.Error("process 1 of a pod is lost", "pod", p.Config.UID, "err", err)
	}
}

// sameProcess says whether a process still runs.
func sameProcess(pid int, start uint64) bool {
	if pid == 0 {
		return false
	}
	now, err := startTime(pid)
	return err == nil && now == start
}

// writeJSON replaces a file at once. It is not synced: after a crash of the
// machine there are no containers it could tell of.
func writeJSON(path string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

func readJSON(path string, v any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, v)
}

// load finds what another keeper left.
func (k *Keeper) load() {
	entries, err := os.ReadDir(filepath.Join(k.dir, "pods"))
	if err != nil {
		return // none yet
	}
	for _, e := range entries {
		p := &pod{dir: k.podDir(e.Name()), netNS: -1, utsNS: -1, ipcNS: -1, pidNS: -1}
		if err := readJSON(filepath.Join(p.dir, "pod.json"), &p.podState); err != nil {
			// Killed while it was made: nothing of it was ever said to be there.
			k.log.Warn("half a pod is removed", "pod", e.Name(), "err", err)
			os.RemoveAll(p.dir) //nolint:errcheck
			continue
		}
		names, err := filepath.Glob(filepath.Join(p.dir, "c", "*", "config.json"))
		if err != nil {
			continue
		}
		for _, name := range names {
			c := &container{dir: filepath.Dir(name), pod: p, ended: make(chan struct{})}
			if strings.HasSuffix(c.dir, ".new") || readJSON(name, &c.config) != nil {
				continue
			}
			if err := readJSON(filepath.Join(c.dir, "state.json"), &c.state); err != nil {
				c.state.Container = c.initial()
			}
			p.containers = append(p.containers, c)
		}
		k.reopenNS(p)
		for _, c := range p.containers {
			k.adopt(c)
		}
		k.pods[p.Config.UID] = p
	}
}
