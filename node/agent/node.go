package agent

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Rhythms of the node.
const (
	leaseSeconds   = 40
	leaseRenewal   = 10 * time.Second
	statusInterval = 5 * time.Minute
)

// node is the agent's Node object.
type node struct {
	a           *Agent
	capacity    corev1.ResourceList
	allocatable corev1.ResourceList
	ranges      []netip.Prefix // of an earlier agent, whose pods may still run

	mu  sync.Mutex
	obj *corev1.Node // as last seen

	lease *coordinationv1.Lease // as last written

	admission sync.Mutex
	guests    map[string]guest // admitted pods by UID
}

func newNode(a *Agent) *node {
	n := &node{a: a, guests: map[string]guest{}, capacity: maps.Clone(a.cfg.Capacity)}
	if n.capacity == nil {
		n.capacity = corev1.ResourceList{}
	}
	set := func(name corev1.ResourceName, value int64, format resource.Format) {
		if _, given := n.capacity[name]; !given && value > 0 {
			n.capacity[name] = *resource.NewQuantity(value, format)
		}
	}
	set(corev1.ResourceCPU, int64(runtime.NumCPU()), resource.DecimalSI)
	set(corev1.ResourceMemory, machineMemory(), resource.BinarySI)
	set(corev1.ResourcePods, a.cfg.MaxPods, resource.DecimalSI)
	set(corev1.ResourceEphemeralStorage, diskSize(a.cfg.Dir), resource.BinarySI)
	n.allocatable = corev1.ResourceList{}
	for name, q := range n.capacity {
		q = q.DeepCopy()
		q.Sub(a.cfg.Reserved[name])
		n.allocatable[name] = q
	}
	return n
}

func (n *node) hostIPs() []string {
	var list []string
	for _, a := range n.a.cfg.Addresses { // one of each family, as the API wants it
		if !slices.ContainsFunc(list, func(s string) bool { return strings.Contains(s, ":") == a.Is6() }) {
			list = append(list, a.String())
		}
	}
	return list
}

// object gives the Node object; it is not to be modified.
func (n *node) object() *corev1.Node {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.obj == nil {
		return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.a.cfg.NodeName, Labels: n.labels()}}
	}
	return n.obj
}

func (n *node) set(obj *corev1.Node) {
	obj.ManagedFields = nil
	n.mu.Lock()
	defer n.mu.Unlock()
	n.obj = obj
}

func (n *node) labels() map[string]string {
	l := map[string]string{
		corev1.LabelHostname: n.a.cfg.NodeName, corev1.LabelOSStable: runtime.GOOS, corev1.LabelArchStable: runtime.GOARCH,
	}
	if n.a.cfg.Zone != "" {
		l[corev1.LabelTopologyZone] = n.a.cfg.Zone
	}
	maps.Copy(l, n.a.cfg.Labels)
	return l
}

// begin gives the node's ranges: from the API, or if that is away and an
// earlier agent has kept them, from disk.
func (n *node) begin(ctx context.Context) (ranges []netip.Prefix, away bool, err error) {
	old := n.a.kept.node()
	if old == nil {
		ranges, err = n.register(ctx)
		return ranges, false, err
	}
	n.ranges = rangesOf(old)
	try, cancel := context.WithTimeout(ctx, apiPatience)
	defer cancel()
	if ranges, err = n.tryRegister(try); err == nil || ctx.Err() != nil {
		return ranges, false, err
	}
	n.a.cfg.Log.Warn("the API does not answer: the node goes on with the pods that it knows", "node", n.a.cfg.NodeName, "error", err)
	n.set(old)
	return n.ranges, true, nil
}

// comeBack registers the node when the API is back.
func (n *node) comeBack(ctx context.Context, had []netip.Prefix) {
	ranges, err := n.register(ctx)
	switch {
	case err != nil: // the end
	case n.a.cfg.Network != nil && !slices.Equal(ranges, had):
		n.a.cfg.Log.Error("the API gives this node another pod range than its pods have: stop the node, run 'fingerpost node reset' and start it again", "had", had, "has", ranges)
	default:
		n.a.cfg.Log.Info("the API is back: the node is registered", "node", n.a.cfg.NodeName)
	}
}

// register makes the Node object what it should be and gives the node's ranges.
// It waits for the API.
func (n *node) register(ctx context.Context) ([]netip.Prefix, error) {
	wait := 100 * time.Millisecond
	told := ""
	for {
		ranges, err := n.tryRegister(ctx)
		if err == nil {
			return ranges, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if text := err.Error(); text != told {
			told = text
			n.a.cfg.Log.Warn("the node cannot be registered yet; it is tried again and again", "node", n.a.cfg.NodeName, "error", err)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(wait):
		}
		wait = min(wait*2, 10*time.Second)
	}
}

func (n *node) tryRegister(ctx context.Context) ([]netip.Prefix, error) {
	nodes := n.a.cfg.Client.CoreV1().Nodes()
	obj, err := nodes.Get(ctx, n.a.cfg.NodeName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		obj = &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.a.cfg.NodeName, Labels: n.labels()}, Spec: corev1.NodeSpec{Taints: n.a.cfg.Taints}}
		n.fill(&obj.Status, metav1.Now())
		obj, err = nodes.Create(ctx, obj, metav1.CreateOptions{})
	}
	if err != nil {
		return nil, err
	}
	next := obj.DeepCopy()
	if next.Labels == nil {
		next.Labels = map[string]string{}
	}
	maps.Copy(next.Labels, n.labels())
	if !maps.Equal(next.Labels, obj.Labels) {
		if obj, err = nodes.Update(ctx, next, metav1.UpdateOptions{}); err != nil {
			return nil, err
		}
	}
	if n.a.cfg.Network != nil && obj.Spec.PodCIDR == "" {
		if obj, err = n.claim(ctx, obj); err != nil {
			return nil, err
		}
	}
	n.set(obj)
	if err := n.writeStatus(ctx, true); err != nil {
		return nil, err
	}
	n.a.kept.keepNode(n.object())
	return rangesOf(obj), n.renew(ctx)
}

// rangesOf gives the pod ranges of a node.
func rangesOf(obj *corev1.Node) []netip.Prefix {
	texts := obj.Spec.PodCIDRs
	if len(texts) == 0 && obj.Spec.PodCIDR != "" {
		texts = []string{obj.Spec.PodCIDR}
	}
	var out []netip.Prefix
	for _, t := range texts {
		if p, err := netip.ParsePrefix(t); err == nil {
			out = append(out, p.Masked())
		}
	}
	return out
}

// fill writes the status as it is now.
func (n *node) fill(s *corev1.NodeStatus, now metav1.Time) {
	cfg := &n.a.cfg
	s.Capacity, s.Allocatable = n.capacity, n.allocatable
	s.Addresses = nil
	for _, a := range cfg.Addresses {
		s.Addresses = append(s.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a.String()})
	}
	s.Addresses = append(s.Addresses, corev1.NodeAddress{Type: corev1.NodeHostName, Address: cfg.NodeName})
	s.DaemonEndpoints.KubeletEndpoint.Port = cfg.StreamPort
	s.NodeInfo = machineInfo()
	s.NodeInfo.KubeletVersion, s.NodeInfo.ContainerRuntimeVersion = cfg.Version, "fingerpost://"+strings.TrimPrefix(cfg.Version, "v")
	s.NodeInfo.OperatingSystem, s.NodeInfo.Architecture = runtime.GOOS, runtime.GOARCH
	for _, c := range []corev1.NodeCondition{
		{Type: corev1.NodeMemoryPressure, Status: corev1.ConditionFalse, Reason: "KubeletHasSufficientMemory", Message: "kubelet has sufficient memory available"},
		{Type: corev1.NodeDiskPressure, Status: corev1.ConditionFalse, Reason: "KubeletHasNoDiskPressure", Message: "kubelet has no disk pressure"},
		{Type: corev1.NodePIDPressure, Status: corev1.ConditionFalse, Reason: "KubeletHasSufficientPID", Message: "kubelet has sufficient PID available"},
		{Type: corev1.NodeNetworkUnavailable, Status: corev1.ConditionFalse, Reason: "NetworkReady", Message: "the pod network is set up by this node"},
		{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady", Message: "kubelet is posting ready status"},
	} {
		c.LastHeartbeatTime, c.LastTransitionTime = now, now
		i := slices.IndexFunc(s.Conditions, func(o corev1.NodeCondition) bool { return o.Type == c.Type })
		if i < 0 {
			s.Conditions = append(s.Conditions, c)
			continue
		}
		if s.Conditions[i].Status == c.Status {
			c.LastTransitionTime = s.Conditions[i].LastTransitionTime
		}
		s.Conditions[i] = c
	}
}

// writeStatus writes the status if it differs in more than its heartbeats, or
// if it must.
func (n *node) writeStatus(ctx context.Context, must bool) error {
	nodes := n.a.cfg.Client.CoreV1().Nodes()
	old := n.object()
	next := old.DeepCopy()
	n.fill(&next.Status, metav1.Now())
	if !must && sameStatus(&old.Status, &next.Status) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	got, err := nodes.UpdateStatus(ctx, next, metav1.UpdateOptions{})
	if apierrors.IsConflict(err) {
		if got, err = nodes.Get(ctx, n.a.cfg.NodeName, metav1.GetOptions{}); err != nil {
			return err
		}
		n.fill(&got.Status, metav1.Now())
		got, err = nodes.UpdateStatus(ctx, got, metav1.UpdateOptions{})
	}
	if err == nil {
		n.set(got)
	}
	return err
}

func sameStatus(a, b *corev1.NodeStatus) bool {
	plain := func(s *corev1.NodeStatus) corev1.NodeStatus {
		c := *s
		c.Conditions = slices.Clone(s.Conditions)
		for i := range c.Conditions {
			c.Conditions[i].LastHeartbeatTime = metav1.Time{}
		}
		return c
	}
	return equality.Semantic.DeepEqual(plain(a), plain(b))
}

// run renews the lease, keeps the status and follows the other nodes.
func (n *node) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { n.follow(ctx) })
	renewal := time.NewTicker(leaseRenewal)
	defer renewal.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-renewal.C:
		}
		if err := n.renew(ctx); err != nil && ctx.Err() == nil {
			n.a.cfg.Log.Warn("renew the node's lease", "error", err)
			continue
		}
		must := time.Since(last) >= statusInterval
		err := n.writeStatus(ctx, must)
		switch {
		case apierrors.IsNotFound(err): // somebody deleted the object
			_, err = n.tryRegister(ctx)
		case err == nil && must:
			last = time.Now()
		}
		if err != nil && ctx.Err() == nil {
			n.a.cfg.Log.Warn("write the node's status", "error", err)
		}
	}
}

func machineName() string {
	name, _ := os.Hostname()
	return name
}

func textOf(path string) string {
	text, _ := os.ReadFile(path)
	return strings.TrimSpace(string(text))
}

func machineInfo() corev1.NodeSystemInfo {
	info := corev1.NodeSystemInfo{
		MachineID: textOf("/etc/machine-id"), SystemUUID: textOf("/etc/machine-id"), BootID: textOf("/proc/sys/kernel/random/boot_id"),
		KernelVersion: textOf("/proc/sys/kernel/osrelease"), OSImage: runtime.GOOS,
	}
	for line := range strings.Lines(textOf("/etc/os-release")) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "PRETTY_NAME="); ok {
			info.OSImage = strings.Trim(v, `"`)
		}
	}
	if info.MachineID == "" {
		info.MachineID, info.SystemUUID = machineName(), machineName()
	}
	return info
}

func machineMemory() int64 {
	for line := range strings.Lines(textOf("/proc/meminfo")) {
		var kib int64
		if _, err := fmt.Sscanf(line, "MemTotal: %d kB", &kib); err == nil {
			return kib << 10
		}
	}
	return 0
}
