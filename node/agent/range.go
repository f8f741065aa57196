package agent

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/fingerpost/fingerpost/node/network"
)

// claimAnnotation says which ranges a node is about to take.
const claimAnnotation = "fingerpost.dev/pod-cidrs-claim"

// claim takes a free part of each cluster range for this node. Nobody gives
// them out, so nodes settle it among themselves: each writes down what it
// wants, then reads what all others have and want, and gives way if anybody
// else wants the same. Of two that want the same at least one reads after the
// other has written, so never do both go on.
func (n *node) claim(ctx context.Context, obj *corev1.Node) (*corev1.Node, error) {
	nodes := n.a.cfg.Client.CoreV1().Nodes()
	for round := range 20 {
		list, err := nodes.List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, err
		}
		others := taken(list.Items, obj.Name)
		want := n.again(others)
		if round > 0 || want == nil {
			if want, err = pick(n.a.cfg.ClusterCIDRs, others, obj.Name, round); err != nil {
				return nil, err
			}
		}
		next := obj.DeepCopy()
		if next.Annotations == nil {
			next.Annotations = map[string]string{}
		}
		next.Annotations[claimAnnotation] = strings.Join(want, ",")
		if obj, err = nodes.Update(ctx, next, metav1.UpdateOptions{}); err != nil {
			return nil, err
		}
		if list, err = nodes.List(ctx, metav1.ListOptions{}); err != nil {
			return nil, err
		}
		others = taken(list.Items, obj.Name)
		if slices.ContainsFunc(want, func(w string) bool { return overlaps(netip.MustParsePrefix(w), others) }) {
			continue
		}
		next = obj.DeepCopy()
		delete(next.Annotations, claimAnnotation)
		next.Spec.PodCIDR, next.Spec.PodCIDRs = want[0], want
		return nodes.Update(ctx, next, metav1.UpdateOptions{})
	}
	return nil, fmt.Errorf("other nodes want the same pod range again and again: try again")
}

// again gives the ranges that the node had, if it can have them again: its pods
// have addresses of them. That is so after somebody deleted the Node object.
func (n *node) again(others []netip.Prefix) (want []string) {
	if len(n.ranges) != len(n.a.cfg.ClusterCIDRs) {
		return nil
	}
	for i, p := range n.ranges {
		if r := n.a.cfg.ClusterCIDRs[i]; !r.Contains(p.Addr()) || p.Bits() < r.Bits() || overlaps(p, others) {
			return nil
		}
		want = append(want, p.String())
	}
	return want
}

// taken gives the ranges that other nodes have or want.
func taken(nodes []corev1.Node, self string) []netip.Prefix {
	var out []netip.Prefix
	for i := range nodes {
		if nodes[i].Name == self {
			continue
		}
		out = append(out, rangesOf(&nodes[i])...)
		for t := range strings.SplitSeq(nodes[i].Annotations[claimAnnotation], ",") {
			if p, err := netip.ParsePrefix(t); err == nil {
				out = append(out, p)
			}
		}
	}
	return out
}

func overlaps(p netip.Prefix, list []netip.Prefix) bool {
	return slices.ContainsFunc(list, p.Overlaps)
}

// pick chooses a free part of each range: the first time the lowest, then by
// the node's name, so that two that met go different ways.
func pick(ranges, taken []netip.Prefix, name string, round int) ([]string, error) {
	var out []string
	for _, r := range ranges {
		r = r.Masked()
		bits := 24
		if r.Addr().Is6() {
			bits = 64
		}
		bits = max(bits, r.Bits())
		count := uint64(1) << min(bits-r.Bits(), 32)
		first := uint64(0)
		if round > 0 {
			h := fnv.New64a()
			fmt.Fprintf(h, "%s/%d", name, round)
			first = h.Sum64() % count
		}
		found := false
		for i := range min(count, 1<<16) {
			if p := part(r, bits, (first+i)%count); !overlaps(p, taken) {
				out, found = append(out, p.String()), true
				break
			}
		}
		if !found {
			return nil, fmt.Errorf("the pod range %s has no free /%d left: give the cluster a larger range or remove nodes", r, bits)
		}
	}
	return out, nil
}

// part gives the i-th part of a range.
func part(r netip.Prefix, bits int, i uint64) netip.Prefix {
	if r.Addr().Is4() {
		a := r.Addr().As4()
		binary.BigEndian.PutUint32(a[:], binary.BigEndian.Uint32(a[:])+uint32(i<<(32-bits)))
		return netip.PrefixFrom(netip.AddrFrom4(a), bits)
	}
	a := r.Addr().As16()
	if bits <= 64 {
		binary.BigEndian.PutUint64(a[:8], binary.BigEndian.Uint64(a[:8])+i<<(64-bits))
	} else {
		binary.BigEndian.PutUint64(a[8:], binary.BigEndian.Uint64(a[8:])+i<<(128-bits))
	}
	return netip.PrefixFrom(netip.AddrFrom16(a), bits)
}

// renew renews the node's lease, or makes it.
func (n *node) renew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, leaseRenewal)
	defer cancel()
	leases := n.a.cfg.Client.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	now, seconds, name := metav1.NewMicroTime(time.Now()), int32(leaseSeconds), n.a.cfg.NodeName
	lease, err := n.lease, error(nil)
	if lease == nil {
		lease, err = leases.Get(ctx, name, metav1.GetOptions{})
	}
	if apierrors.IsNotFound(err) {
		lease = &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: corev1.NamespaceNodeLease}}
		if obj := n.object(); obj.UID != "" {
			lease.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: name, UID: obj.UID}}
		}
		lease.Spec = coordinationv1.LeaseSpec{HolderIdentity: &name, LeaseDurationSeconds: &seconds, RenewTime: &now}
		_, err = leases.Create(ctx, lease, metav1.CreateOptions{})
		return err
	}
	if err != nil {
		return err
	}
	lease = lease.DeepCopy()
	lease.Spec.HolderIdentity, lease.Spec.LeaseDurationSeconds, lease.Spec.RenewTime = &name, &seconds, &now
	// Without a second look first: nobody else writes it.
	if n.lease, err = leases.Update(ctx, lease, metav1.UpdateOptions{}); err != nil {
		n.lease = nil
	}
	return err
}

// follow watches the nodes: this one's labels count for admission, the others'
// ranges are routed.
func (n *node) follow(ctx context.Context) {
	nodes := n.a.cfg.Client.CoreV1().Nodes()
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (kruntime.Object, error) { return nodes.List(ctx, o) },
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return nodes.Watch(ctx, o)
		},
	}
	changed := make(chan struct{}, 1)
	poke := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	see := func(obj any) {
		if o, ok := obj.(*corev1.Node); ok && o.Name == n.a.cfg.NodeName {
			if v := parseVersion(o.ResourceVersion); v >= parseVersion(n.object().ResourceVersion) {
				n.mu.Lock()
				n.obj = o
				n.mu.Unlock()
			}
			return
		}
		poke()
	}
	store, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.ToListWatcherWithWatchListSemantics(lw, n.a.cfg.Client),
		ObjectType:    &corev1.Node{},
		Transform: func(obj any) (any, error) {
			if o, ok := obj.(*corev1.Node); ok {
				o.ManagedFields = nil
				if o.Name != n.a.cfg.NodeName { // addresses and ranges are what we want of others
					o.Status = corev1.NodeStatus{Addresses: o.Status.Addresses}
					o.Labels, o.Annotations = nil, nil
				}
			}
			return obj, nil
		},
		Handler: cache.ResourceEventHandlerFuncs{AddFunc: see, UpdateFunc: func(_, obj any) { see(obj) }, DeleteFunc: func(any) { poke() }},
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		informer.RunWithContext(ctx)
	}()
	defer func() { <-done }()
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		return
	}
	var last []network.Peer
	retry := time.NewTimer(0)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-retry.C:
		}
		if n.a.network == nil {
			continue
		}
		peers := peersOf(store.List(), n.a.cfg.NodeName)
		if last != nil && slices.EqualFunc(peers, last, samePeer) {
			continue
		}
		if err := n.a.network.SetRoutes(peers); err != nil {
			n.a.cfg.Log.Warn("routes to other nodes", "error", err)
			last = nil
			retry.Reset(30 * time.Second)
			continue
		}
		last = peers
	}
}

func samePeer(a, b network.Peer) bool {
	return a.Node == b.Node && a.Via == b.Via && slices.Equal(a.PodCIDRs, b.PodCIDRs)
}

// peersOf gives the ways to the pods of other nodes: one for each family.
func peersOf(nodes []any, self string) []network.Peer {
	peers := []network.Peer{}
	for _, item := range nodes {
		o, ok := item.(*corev1.Node)
		if !ok || o.Name == self {
			continue
		}
		seen := map[bool]bool{}
		for _, address := range o.Status.Addresses {
			via, err := netip.ParseAddr(address.Address)
			if address.Type != corev1.NodeInternalIP || err != nil || seen[via.Is6()] {
				continue
			}
			seen[via.Is6()] = true
			var ranges []netip.Prefix
			for _, r := range rangesOf(o) {
				if r.Addr().Is6() == via.Is6() {
					ranges = append(ranges, r)
				}
			}
			if len(ranges) > 0 {
				peers = append(peers, network.Peer{Node: o.Name, PodCIDRs: ranges, Via: via})
			}
		}
	}
	slices.SortFunc(peers, func(a, b network.Peer) int {
		if c := strings.Compare(a.Node, b.Node); c != 0 {
			return c
		}
		return a.Via.Compare(b.Via)
	})
	return peers
}
