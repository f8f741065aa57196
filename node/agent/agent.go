package agent

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/fingerpost/fingerpost/node/agent/object"
	"github.com/fingerpost/fingerpost/node/agent/podfile"
	"github.com/fingerpost/fingerpost/node/agent/prober"
	"github.com/fingerpost/fingerpost/node/agent/volume"
	"github.com/fingerpost/fingerpost/node/runtime"
)

// Agent runs the pods of a node.
type Agent struct {
	cfg     Config
	rt      runtime.Runtime
	stream  runtime.Streamer // nil: no exec
	network Network          // nil: the machine's
	objects *object.Store
	events  *events
	node    *node
	metrics metrics
	machine podfile.Resolv
	slots   chan struct{} // writes of statuses at a time
	rounds  *prober.Rounds
	kept    *kept
	seeing  sync.Mutex // pods are seen one after the other

	ready chan struct{} // closed when pods are run

	mu   sync.Mutex
	ctx  context.Context // of Run
	wg   sync.WaitGroup
	pods map[string]*pod // by UID
}

// New makes an agent; nothing happens before Run.
func New(cfg Config) (*Agent, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	a := &Agent{cfg: cfg, rt: cfg.Runtime, pods: map[string]*pod{}, slots: make(chan struct{}, 16), rounds: prober.NewRounds(), ready: make(chan struct{})}
	a.stream, _ = cfg.Runtime.(runtime.Streamer)
	a.metrics = newMetrics(a.Len)
	if err := a.metrics.register(cfg.Registerer); err != nil {
		return nil, fmt.Errorf("agent: metrics: %w", err)
	}
	a.node, a.kept = newNode(a), newKept(a)
	return a, nil
}

// Run registers the node and runs its pods until ctx ends. Containers go on
// after that; the next agent takes them over. If the API does not answer it goes
// on with what an earlier agent kept on disk, if there was one.
func (a *Agent) Run(ctx context.Context) error {
	if err := a.cfg.makeDirs(); err != nil {
		return err
	}
	if dir := a.cfg.volatileDir(); !a.cfg.SecretsOnDisk && os.Geteuid() == 0 && !volume.IsMount(dir) {
		if err := volume.MountMemory(dir, 0); err != nil {
			a.cfg.Log.Warn("secrets of pods are kept on disk", "error", err)
		} else if err := os.Chmod(dir, 0o711); err != nil {
			return fmt.Errorf("agent: %w", err)
		}
	}
	if text, err := os.ReadFile(a.cfg.ResolvConf); err == nil {
		a.machine = podfile.ParseResolv(string(text))
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a.ctx = ctx
	a.objects = object.Open(a.cfg.Client, a.cfg.keptObjects(), a.cfg.Log)
	defer a.objects.Close()
	a.events = newEvents(a.cfg)
	defer a.events.close()
	defer a.kept.flush()
	defer a.wg.Wait()
	defer cancel()

	ranges, away, err := a.node.begin(ctx)
	if err != nil {
		return err
	}
	if a.cfg.Network != nil {
		if a.network, err = a.cfg.Network(ranges); err != nil {
			return fmt.Errorf("agent: pod network: %w", err)
		}
		if err := a.network.Setup(); err != nil {
			return fmt.Errorf("agent: pod network: %w", err)
		}
	}
	found, err := a.rt.List(ctx)
	if err != nil {
		return fmt.Errorf("agent: list what runs: %w", err)
	}
	a.wg.Go(func() {
		if away {
			a.node.comeBack(ctx, ranges)
		}
		a.node.run(ctx)
	})
	a.wg.Go(func() { a.kept.run(ctx) })
	a.wg.Go(func() { a.watchEnds(ctx) })
	return a.followPods(ctx, found, away)
}

// watchEnds passes on ends of containers. Details come from List, once for all
// that ended together.
func (a *Agent) watchEnds(ctx context.Context) {
	n, ok := a.rt.(runtime.Notifier)
	if !ok {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				a.refresh(ctx, nil)
			}
		}
	}
	// What was told is in List; what was lost on the way, or vanished with a
	// broken runtime, is found by looking at all from time to time.
	tick := time.NewTicker(30 * time.Second)
	defer tick.Stop()
	for {
		uids := map[string]bool{}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			a.refresh(ctx, nil)
			continue
		case id := <-n.Ended():
			uids[id.PodUID] = true
		}
		for more := true; more; {
			select {
			case id := <-n.Ended():
				uids[id.PodUID] = true
			default:
				more = false
			}
		}
		a.refresh(ctx, uids)
	}
}

// refresh looks what became of the containers of some pods, or of all.
func (a *Agent) refresh(ctx context.Context, uids map[string]bool) {
	asked := time.Now()
	list, err := a.rt.List(ctx)
	if err != nil {
		if ctx.Err() == nil {
			a.cfg.Log.Error("list containers", "error", err)
		}
		return
	}
	runs := make(map[string][]runtime.Container, len(list))
	for i := range list {
		runs[list[i].Config.UID] = list[i].Containers
	}
	for _, p := range a.all() {
		if uids == nil || uids[p.uid] {
			p.observe(runs[p.uid], asked)
		}
	}
}

func (a *Agent) byUID(uid string) *pod {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.pods[uid]
}

func (a *Agent) all() []*pod {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := make([]*pod, 0, len(a.pods))
	for _, p := range a.pods {
		list = append(list, p)
	}
	return list
}

func (a *Agent) byName(namespace, name string) *pod {
	var best *pod
	for _, p := range a.all() {
		if p.namespace == namespace && p.name == name && (best == nil || !p.isGone()) {
			best = p
		}
	}
	return best
}

// Len counts the pods.
func (a *Agent) Len() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.pods)
}

// Ready is closed when the agent has taken over what ran and runs pods.
func (a *Agent) Ready() <-chan struct{} { return a.ready }

// Pods gives the pods as they are on this node, with their newest status.
func (a *Agent) Pods() []*corev1.Pod {
	var list []*corev1.Pod
	for _, p := range a.all() {
		list = append(list, p.current())
	}
	return list
}

// Container gives the newest run of a container; an empty name is the first.
func (a *Agent) Container(namespace, name, container string) (runtime.ContainerID, error) {
	p := a.byName(namespace, name)
	if p == nil {
		return runtime.ContainerID{}, fmt.Errorf("pod %s/%s is not on this node: %w", namespace, name, runtime.ErrNotFound)
	}
	return p.container(container, false)
}

// LogPath gives the log of the newest run of a container, or of the last that
// ended before it.
func (a *Agent) LogPath(namespace, name, container string, previous bool) (string, error) {
	p := a.byName(namespace, name)
	if p == nil {
		return "", fmt.Errorf("pod %s/%s is not on this node: %w", namespace, name, runtime.ErrNotFound)
	}
	id, err := p.container(container, previous)
	if err != nil {
		return "", err
	}
	path := a.cfg.logPath(id.PodUID, id.Name, id.Attempt)
	// While the runtime forgets a pod that is over, its logs are elsewhere.
	kept := filepath.Join(a.cfg.podDir(id.PodUID), "logs.kept", id.Name, filepath.Base(path))
	for _, p := range []string{path, kept, path} {
		if _, err := os.Stat(p); err == nil {
			return p, nil
		}
	}
	if previous {
		return "", fmt.Errorf("container %q in pod %q has no log: %w", id.Name, name, runtime.ErrNotFound)
	}
	return path, nil // there is no file until something is written
}

// PodIP gives the first address of a pod.
func (a *Agent) PodIP(namespace, name string) (netip.Addr, error) {
	if p := a.byName(namespace, name); p != nil {
		if ips := p.addresses(); len(ips) > 0 {
			return netip.ParseAddr(ips[0])
		}
	}
	return netip.Addr{}, fmt.Errorf("pod %s/%s has no address on this node: %w", namespace, name, runtime.ErrNotFound)
}

// Streamer reaches into containers; nil if the runtime cannot.
func (a *Agent) Streamer() runtime.Streamer { return a.stream }

// NetNS gives the path of a pod's network namespace.
func (a *Agent) NetNS(uid string) (string, error) {
	select {
	case <-a.ready: // the network is there by then, or never
	default:
		return "", fmt.Errorf("the node is starting: %w", runtime.ErrNotFound)
	}
	if a.network == nil {
		return "", fmt.Errorf("pods of this node have no network of their own: %w", runtime.ErrNotFound)
	}
	list, err := a.network.List()
	if err != nil {
		return "", err
	}
	for _, at := range list {
		if at.PodUID == uid {
			return at.NetNS, nil
		}
	}
	return "", fmt.Errorf("the pod has no network: %w", runtime.ErrNotFound)
}
