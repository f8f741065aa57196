package runtimetest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fingerpost/fingerpost/node/runtime"
)

// Fake is a runtime without processes. A command runs until Exit ends it; the
// shell lines that tests use ("exit 3", "echo a; sleep 1000") do what they
// say, see script. The zero value is not usable, see NewFake.
type Fake struct {
	mu      sync.Mutex
	pods    map[string]*fakePod
	ended   chan runtime.ContainerID
	nextPID int
	missing map[string]bool

	onStart  func(runtime.ContainerConfig) error
	onExec   func(runtime.ContainerID, runtime.ExecConfig) (int, error)
	onAttach func(context.Context, runtime.ContainerID, runtime.Streams) error
	onRemove func(uid string) error
}

type fakePod struct {
	config     runtime.PodConfig
	created    time.Time
	containers map[runtime.ContainerID]*fakeContainer
}

type fakeContainer struct {
	runtime.Container
	config   runtime.ContainerConfig
	stubborn bool
	done     chan struct{}
}

// The roles that a Fake plays.
var (
	_ runtime.Runtime  = (*Fake)(nil)
	_ runtime.Notifier = (*Fake)(nil)
	_ runtime.Streamer = (*Fake)(nil)
)

// NewFake returns a runtime that has no pods.
func NewFake() *Fake {
	return &Fake{
		pods:    map[string]*fakePod{},
		ended:   make(chan runtime.ContainerID, 4096),
		nextPID: 100,
		missing: map[string]bool{},
	}
}

// Missing makes StartContainer fail with ErrCannotRun for a command.
func (f *Fake) Missing(command string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.missing[command] = true
}

// OnStart is asked before a container starts; its error is StartContainer's.
func (f *Fake) OnStart(fn func(runtime.ContainerConfig) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.onStart = fn
}

// OnExec answers Exec for running containers.
func (f *Fake) OnExec(fn func(runtime.ContainerID, runtime.ExecConfig) (int, error)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.onExec = fn
}

// OnAttach answers Attach for running containers.
func (f *Fake) OnAttach(fn func(context.Context, runtime.ContainerID, runtime.Streams) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.onAttach = fn
}

// OnRemove is asked before a pod is removed; its error is RemovePod's.
func (f *Fake) OnRemove(fn func(uid string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.onRemove = fn
}

// Stubborn makes a running container ignore its stop signal.
func (f *Fake) Stubborn(id runtime.ContainerID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.find(id); c != nil {
		c.stubborn = true
	}
}

// Exit ends a running container. A signal other than 0 makes the code
// 128+signal. It says whether there was one to end.
func (f *Fake) Exit(id runtime.ContainerID, code, signal int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.end(f.find(id), code, signal, false)
}

// OOM ends a running container as the kernel does that is out of memory.
func (f *Fake) OOM(id runtime.ContainerID) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.end(f.find(id), 0, 9, true)
}

// Config gives what a container was started with.
func (f *Fake) Config(id runtime.ContainerID) (runtime.ContainerConfig, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.find(id)
	if c == nil {
		return runtime.ContainerConfig{}, false
	}
	return c.config, true
}

func (f *Fake) find(id runtime.ContainerID) *fakeContainer {
	if p := f.pods[id.PodUID]; p != nil {
		return p.containers[id]
	}
	return nil
}

func (f *Fake) end(c *fakeContainer, code, signal int, oom bool) bool {
	if c == nil || !c.Running() {
		return false
	}
	if signal != 0 {
		code = 128 + signal
	}
	c.PID, c.Ended, c.ExitCode, c.Signal, c.OOM = 0, time.Now(), code, signal, oom
	close(c.done)
	select {
	case f.ended <- c.ID:
	default: // nobody reads: it is in List
	}
	return true
}

// List implements runtime.Runtime.
func (f *Fake) List(context.Context) ([]runtime.Pod, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var pods []runtime.Pod
	for _, uid := range slices.Sorted(maps.Keys(f.pods)) {
		p := f.pods[uid]
		pod := runtime.Pod{Config: p.config, Created: p.created}
		for _, id := range p.ids() {
			pod.Containers = append(pod.Containers, p.containers[id].Container)
		}
		pods = append(pods, pod)
	}
	return pods, nil
}

func (p *fakePod) ids() []runtime.ContainerID {
	return slices.SortedFunc(maps.Keys(p.containers), func(a, b runtime.ContainerID) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		return a.Attempt - b.Attempt
	})
}

// StartPod implements runtime.Runtime.
func (f *Fake) StartPod(_ context.Context, c runtime.PodConfig) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.pods[c.UID] == nil {
		f.pods[c.UID] = &fakePod{config: c, created: time.Now(), containers: map[runtime.ContainerID]*fakeContainer{}}
	}
	return nil
}

// StartContainer implements runtime.Runtime.
func (f *Fake) StartContainer(_ context.Context, c runtime.ContainerConfig) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.pods[c.ID.PodUID]
	if p == nil {
		return fmt.Errorf("runtimetest: start %s: pod %s: %w", c.ID.Name, c.ID.PodUID, runtime.ErrNotFound)
	}
	if old := p.containers[c.ID]; old != nil {
		if old.Failure != "" { // asked again, it is the same
			return fmt.Errorf("runtimetest: start %s: %s: %w", c.ID.Name, old.Failure, runtime.ErrCannotRun)
		}
		return nil
	}
	if f.onStart != nil {
		if err := f.onStart(c); err != nil {
			return err
		}
	}
	ct := &fakeContainer{config: c, done: make(chan struct{})}
	ct.Container = runtime.Container{ID: c.ID, Image: c.Image, Labels: maps.Clone(c.Labels), LogPath: c.LogPath, Started: time.Now()}
	p.containers[c.ID] = ct
	if len(c.Args) == 0 || f.missing[c.Args[0]] {
		ct.Ended, ct.ExitCode, ct.Failure = time.Now(), 127, "no such file or directory"
		close(ct.done)
		return fmt.Errorf("runtimetest: start %s: %q: no such file or directory: %w", c.ID.Name, c.Args, runtime.ErrCannotRun)
	}
	f.nextPID++
	ct.PID = f.nextPID
	code, ends, stubborn := script(c.Args)
	ct.stubborn = stubborn
	if ends {
		f.end(ct, code, 0, false)
	}
	return nil
}

// script reads a shell line as tests write them.
func script(args []string) (code int, ends, stubborn bool) {
	if len(args) != 3 || args[1] != "-c" {
		return 0, false, false
	}
	for cmd := range strings.SplitSeq(args[2], ";") {
		cmd = strings.TrimSpace(cmd)
		switch {
		case strings.HasPrefix(cmd, "trap ''"):
			stubborn = true
		case strings.HasPrefix(cmd, "sleep"), strings.HasPrefix(cmd, "cat"):
			return 0, false, stubborn
		case strings.HasPrefix(cmd, "exit "):
			fmt.Sscan(cmd[5:], &code) // what is no number is exit 0
			return code, true, stubborn
		}
	}
	return 0, true, stubborn
}

// StopContainer implements runtime.Runtime.
func (f *Fake) StopContainer(ctx context.Context, id runtime.ContainerID, grace time.Duration) error {
	f.mu.Lock()
	c := f.find(id)
	if c == nil || !c.Running() {
		f.mu.Unlock()
		return nil
	}
	if grace > 0 && !c.stubborn {
		signal := 15
		if c.config.StopSignal == "SIGINT" {
			signal = 2
		}
		f.end(c, 0, signal, false)
		f.mu.Unlock()
		return nil
	}
	f.mu.Unlock()
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-c.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.end(c, 0, 9, false)
	return nil
}

// RemovePod implements runtime.Runtime.
func (f *Fake) RemovePod(_ context.Context, uid string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.pods[uid]
	if p == nil {
		return nil
	}
	if f.onRemove != nil {
		if err := f.onRemove(uid); err != nil {
			return err
		}
	}
	for _, id := range p.ids() {
		f.end(p.containers[id], 0, 9, false)
	}
	delete(f.pods, uid)
	return nil
}

// Ended implements runtime.Notifier.
func (f *Fake) Ended() <-chan runtime.ContainerID { return f.ended }

// Exec implements runtime.Streamer: what OnExec says, else what the shell line
// says.
func (f *Fake) Exec(ctx context.Context, id runtime.ContainerID, c runtime.ExecConfig) (int, error) {
	f.mu.Lock()
	ct, fn := f.find(id), f.onExec
	running := ct != nil && ct.Running()
	missing := len(c.Args) == 0 || f.missing[c.Args[0]]
	f.mu.Unlock()
	switch {
	case !running:
		return 0, fmt.Errorf("runtimetest: exec in %s: %w", id.Name, runtime.ErrNotFound)
	case missing:
		return 0, fmt.Errorf("runtimetest: exec in %s: %q: no such file or directory: %w", id.Name, c.Args, runtime.ErrCannotRun)
	case fn != nil:
		return fn(id, c)
	}
	code, ends, _ := script(c.Args)
	if !ends && len(c.Args) == 3 && c.Args[1] == "-c" {
		<-ctx.Done()
		return 137, ctx.Err()
	}
	return code, nil
}

// Attach implements runtime.Streamer: what OnAttach says, else it waits.
func (f *Fake) Attach(ctx context.Context, id runtime.ContainerID, s runtime.Streams) error {
	f.mu.Lock()
	ct, fn := f.find(id), f.onAttach
	running := ct != nil && ct.Running()
	f.mu.Unlock()
	if !running {
		return fmt.Errorf("runtimetest: attach to %s: %w", id.Name, runtime.ErrNotFound)
	}
	if fn != nil {
		return fn(ctx, id, s)
	}
	select {
	case <-ct.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Dump writes what there is, one line for a pod and one for each container.
func (f *Fake) Dump() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var b strings.Builder
	for _, uid := range slices.Sorted(maps.Keys(f.pods)) {
		p := f.pods[uid]
		fmt.Fprintf(&b, "pod %s %s/%s", uid, p.config.Namespace, p.config.Name)
		if p.config.NetNS != "" {
			fmt.Fprintf(&b, " netns=%s", p.config.NetNS)
		}
		b.WriteByte('\n')
		for _, id := range p.ids() {
			c := p.containers[id]
			fmt.Fprintf(&b, "  %s.%d %q", id.Name, id.Attempt, c.config.Args)
			switch {
			case c.Running():
				b.WriteString(" running\n")
			case c.Failure != "":
				fmt.Fprintf(&b, " failed %q\n", c.Failure)
			case c.OOM:
				b.WriteString(" oom\n")
			default:
				fmt.Fprintf(&b, " exit %d\n", c.ExitCode)
			}
		}
	}
	return b.String()
}
