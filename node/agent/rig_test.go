package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"sigs.k8s.io/yaml"

	"github.com/fingerpost/fingerpost/node/network"
	"github.com/fingerpost/fingerpost/node/runtime"
	"github.com/fingerpost/fingerpost/node/runtime/runtimetest"
)

// rig is an agent between a pretended API and a pretended runtime.
type rig struct {
	t      *testing.T
	api    *fake.Clientset
	rt     *runtimetest.Fake
	net    *fakeNetwork
	images *fakeImages
	cfg    Config
	agent  *Agent
	stop   context.CancelFunc
	done   chan error

	mu     sync.Mutex
	probes map[string]int // exit code of commands in containers
	told   []string       // events
}

type fakeImages struct {
	mu      sync.Mutex
	missing map[string]error
	asked   int
}

func (f *fakeImages) set(name string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.missing[name] = err
}

func (f *fakeImages) Resolve(_ context.Context, ref string, _ corev1.PullPolicy, _ [][]byte) (Image, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	if err := f.missing[ref]; err != nil {
		return Image{}, fmt.Errorf("image %s: %w", ref, err)
	}
	return Image{ID: "sha256:" + ref, Entrypoint: []string{"/run-" + ref}, Env: []string{"FROM=image"}}, nil
}

// fakeNetwork gives addresses one after the other.
type fakeNetwork struct {
	mu    sync.Mutex
	pods  map[string]netip.Addr
	next  netip.Addr
	ports map[string][]network.HostPort
	peers []network.Peer
	err   error
}

func (f *fakeNetwork) Setup() error    { return nil }
func (f *fakeNetwork) Teardown() error { f.pods = nil; return nil }
func (f *fakeNetwork) Attach(_ context.Context, uid string) (network.Attachment, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return network.Attachment{}, f.err
	}
	if !f.pods[uid].IsValid() {
		f.next = f.next.Next()
		f.pods[uid] = f.next
	}
	return network.Attachment{PodUID: uid, NetNS: "/ns/" + uid, Addrs: []netip.Addr{f.pods[uid]}}, nil
}
func (f *fakeNetwork) Detach(_ context.Context, uid string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.pods, uid)
	return nil
}
func (f *fakeNetwork) List() ([]network.Attachment, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []network.Attachment
	for uid, a := range f.pods {
		out = append(out, network.Attachment{PodUID: uid, Addrs: []netip.Addr{a}})
	}
	return out, nil
}
func (f *fakeNetwork) SetHostPorts(uid string, ports []network.HostPort) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(ports) == 0 {
		delete(f.ports, uid)
	} else {
		f.ports[uid] = ports
	}
	return nil
}
func (f *fakeNetwork) SetRoutes(peers []network.Peer) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.peers = peers
	return nil
}

func newRig(t *testing.T) *rig {
	r := &rig{
		t: t, api: fake.NewSimpleClientset(), rt: runtimetest.NewFake(), probes: map[string]int{},
		net:    &fakeNetwork{pods: map[string]netip.Addr{}, next: netip.MustParseAddr("10.244.0.1"), ports: map[string][]network.HostPort{}},
		images: &fakeImages{missing: map[string]error{}},
	}
	// In a bubble many events have the same time, and so the same name.
	r.api.PrependReactor("create", "events", func(action clienttesting.Action) (bool, kruntime.Object, error) {
		e := action.(clienttesting.CreateAction).GetObject().(*corev1.Event)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.told = append(r.told, fmt.Sprintf("%s %s %s %s", e.Type, e.Reason, e.InvolvedObject.FieldPath, e.Message))
		return true, e, nil
	})
	r.rt.OnExec(func(id runtime.ContainerID, _ runtime.ExecConfig) (int, error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.probes[id.Name], nil
	})
	r.cfg = Config{
		NodeName: "n1", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.10")}, Client: r.api, Runtime: r.rt, Images: r.images,
		Network: func([]netip.Prefix) (Network, error) { return r.net, nil }, Dir: t.TempDir(), SecretsOnDisk: true,
		ClusterDNS: []netip.Addr{netip.MustParseAddr("10.96.0.10")},
		Env:        func(string) ([]string, error) { return []string{"KUBERNETES_SERVICE_HOST=10.96.0.1"}, nil },
		Capacity: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse("2"), corev1.ResourceMemory: resource.MustParse("4Gi"), corev1.ResourceEphemeralStorage: resource.MustParse("10Gi"),
		},
		Log: slog.New(slog.DiscardHandler),
	}
	if os.Getenv("AGENT_LOG") != "" {
		r.cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	return r
}

func (r *rig) start() {
	r.t.Helper()
	a, err := New(r.cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.agent, r.stop, r.done = a, cancel, make(chan error, 1)
	go func() { r.done <- a.Run(ctx) }()
	synctest.Wait()
}

func (r *rig) end() {
	r.t.Helper()
	r.stop()
	if err := <-r.done; !errors.Is(err, context.Canceled) {
		r.t.Errorf("the agent ended with %v", err)
	}
	synctest.Wait()
}

// wait lets time pass.
func (r *rig) wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (r *rig) pod(text string) *corev1.Pod {
	r.t.Helper()
	p := &corev1.Pod{}
	if err := yaml.UnmarshalStrict([]byte(text), p); err != nil {
		r.t.Fatalf("%v in\n%s", err, text)
	}
	if p.Namespace == "" {
		p.Namespace = "default"
	}
	if p.Name == "" {
		p.Name = "web"
	}
	if p.UID == "" {
		p.UID = "uid-" + metav1.Object(p).GetUID()
		p.UID += "web"
	}
	if p.Spec.NodeName == "" {
		p.Spec.NodeName = "n1"
	}
	if p.Spec.RestartPolicy == "" {
		p.Spec.RestartPolicy = corev1.RestartPolicyAlways
	}
	p.Status.Phase = corev1.PodPending
	return p
}

func (r *rig) create(p *corev1.Pod) {
	r.t.Helper()
	if _, err := r.api.CoreV1().Pods(p.Namespace).Create(r.t.Context(), p, metav1.CreateOptions{}); err != nil {
		r.t.Fatal(err)
	}
	synctest.Wait()
}

func (r *rig) get(name string) *corev1.Pod {
	p, err := r.api.CoreV1().Pods("default").Get(r.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		return nil
	}
	return p
}

// delete asks for a pod's end as the API does.
func (r *rig) delete(name string, grace int64) {
	r.t.Helper()
	p := r.get(name).DeepCopy()
	at := metav1.NewTime(time.Now().Add(time.Duration(grace) * time.Second))
	p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &at, &grace
	if _, err := r.api.CoreV1().Pods(p.Namespace).Update(r.t.Context(), p, metav1.UpdateOptions{}); err != nil {
		r.t.Fatal(err)
	}
	synctest.Wait()
}

// line tells a pod's status in one line.
func line(p *corev1.Pod) string {
	if p == nil {
		return "gone"
	}
	var b strings.Builder
	b.WriteString(string(p.Status.Phase))
	if p.Status.Reason != "" {
		b.WriteString(" " + p.Status.Reason)
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
			b.WriteString(" ready")
		}
	}
	for _, s := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		fmt.Fprintf(&b, "; %s ", s.Name)
		switch {
		case s.State.Running != nil:
			b.WriteString("running")
		case s.State.Terminated != nil:
			fmt.Fprintf(&b, "%s %d", s.State.Terminated.Reason, s.State.Terminated.ExitCode)
		case s.State.Waiting != nil:
			b.WriteString(s.State.Waiting.Reason)
		}
		if s.Ready {
			b.WriteString(" ready")
		}
		if s.RestartCount > 0 {
			fmt.Fprintf(&b, " x%d", s.RestartCount)
		}
	}
	return b.String()
}

// events gives what was told, each sort once.
func (r *rig) events() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	slices.Sort(r.told)
	return slices.Compact(slices.Clone(r.told))
}

func (r *rig) id(container string) runtime.ContainerID {
	id, err := r.agent.Container("default", "web", container)
	if err != nil {
		r.t.Fatal(err)
	}
	return id
}
