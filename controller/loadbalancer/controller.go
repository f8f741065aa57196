package loadbalancer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
	"github.com/fingerpost/fingerpost/api/v1alpha1/client"
)

// Config of the controller.
type Config struct {
	Client kubernetes.Interface
	Own    *client.Client
	// Informers give Services, EndpointSlices and Nodes. Not started here.
	Informers informers.SharedInformerFactory
	Events    record.EventRecorder // nil: none are recorded
	Log       *slog.Logger         // nil: no log
	// Silence of a node until its addresses move; default 20 s.
	Silence time.Duration
	Now     func() time.Time // nil: time.Now
}

// Controller gives addresses and owners.
type Controller struct {
	c        Config
	services corelisters.ServiceLister
	nodes    corelisters.NodeLister
	slices   discoverylisters.EndpointSliceLister
	synced   []cache.InformerSynced
	wake     chan struct{}
	said     map[string]string // what each Service was told last
	given    map[string]bool   // Services by UID that have an address from here
	beats    map[string]beat   // by node
}

// beat is what is known of a node's Lease.
type beat struct{ renewed, moved time.Time }

const (
	// every is how often everything is looked at when nothing happens: pools
	// and heartbeats are not watched.
	every = 2 * time.Second
	// gather is how long changes that come together may wait for each other.
	gather = 20 * time.Millisecond

	leaseNamespace = metav1.NamespaceSystem
	leasePrefix    = "fingerpost-address-"
	// leaseSeconds is how long a node may announce without seeing its Lease.
	leaseSeconds = 12

	reasonNone     = "NoLoadBalancerAddress"
	reasonAssigned = "LoadBalancerAddress"
	reasonNoNode   = "NoAnnouncingNode"
)

// New makes the controller; it registers with the informers.
func New(c Config) (*Controller, error) {
	if c.Client == nil || c.Own == nil || c.Informers == nil {
		return nil, errors.New("loadbalancer: clients and informers are needed")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Silence == 0 {
		c.Silence = 20 * time.Second
	}
	core, disc := c.Informers.Core().V1(), c.Informers.Discovery().V1()
	k := &Controller{
		c: c, services: core.Services().Lister(), nodes: core.Nodes().Lister(), slices: disc.EndpointSlices().Lister(),
		wake: make(chan struct{}, 1), said: map[string]string{}, given: map[string]bool{}, beats: map[string]beat{},
	}
	for what, inf := range map[string]cache.SharedIndexInformer{
		"services": core.Services().Informer(), "nodes": core.Nodes().Informer(), "endpoint slices": disc.EndpointSlices().Informer(),
	} {
		poke := func(obj any) {
			if s, ok := obj.(*corev1.Service); ok && s.Spec.Type != corev1.ServiceTypeLoadBalancer && len(s.Status.LoadBalancer.Ingress) == 0 {
				return
			}
			if _, ok := obj.(*discoveryv1.EndpointSlice); ok {
				return // the next look is soon enough, and there are many
			}
			select {
			case k.wake <- struct{}{}:
			default:
			}
		}
		h, err := inf.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc: poke, UpdateFunc: func(before, now any) { poke(before); poke(now) }, DeleteFunc: poke,
		})
		if err != nil {
			return nil, fmt.Errorf("loadbalancer: follow the %s: %w", what, err)
		}
		k.synced = append(k.synced, h.HasSynced)
	}
	return k, nil
}

// Run gives addresses until ctx ends.
func (k *Controller) Run(ctx context.Context) error {
	if !cache.WaitForCacheSync(ctx.Done(), k.synced...) {
		return nil
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if err := k.look(ctx); err != nil && ctx.Err() == nil && !apierrors.IsConflict(err) {
			k.c.Log.Warn("loadbalancer: not everything could be done; it is tried again", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-k.wake:
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(gather):
			}
		}
	}
}

// look makes everything be as it should.
func (k *Controller) look(ctx context.Context) error {
	services, err := k.services.List(labels.Everything())
	if err != nil {
		return err
	}
	list, err := k.c.Own.AddressPools().List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return fmt.Errorf("loadbalancer: read the pools: %w", err)
	}
	var pools []*v1alpha1.AddressPool
	for i := range list.Items {
		pools = append(pools, &list.Items[i])
	}
	wishes := assign(services, pools)
	var errs []error
	// Those that lose an address first: it may be given to another.
	slices.SortStableFunc(wishes, func(a, b *wish) int { return len(a.got) - len(b.got) })
	for _, w := range wishes {
		errs = append(errs, k.write(ctx, w, len(pools)))
	}
	for _, s := range services {
		errs = append(errs, k.release(ctx, s))
	}
	k.forget(services)
	for _, p := range pools {
		errs = append(errs, k.count(ctx, p, wishes))
	}
	return errors.Join(append(errs, k.own(ctx, wishes))...)
}

// write puts the addresses into the status, and says what is wrong.
func (k *Controller) write(ctx context.Context, w *wish, pools int) error {
	vip := corev1.LoadBalancerIPModeVIP
	slices.SortFunc(w.got, func(a, b netip.Addr) int {
		return slices.Index(w.families, family(a)) - slices.Index(w.families, family(b))
	})
	var want []corev1.LoadBalancerIngress
	for _, a := range w.got {
		want = append(want, corev1.LoadBalancerIngress{IP: a.String(), IPMode: &vip})
	}
	// Without a pool, an address that is there is somebody else's gift.
	if len(want) > 0 || pools > 0 || k.given[string(w.service.UID)] {
		if err := k.put(ctx, w.service, want); err != nil {
			return err
		}
	}
	k.given[string(w.service.UID)] = len(want) > 0
	k.say(w.service, corev1.EventTypeWarning, reasonNone, w.trouble)
	return nil
}

func family(a netip.Addr) corev1.IPFamily {
	if a.Is4() {
		return corev1.IPv4Protocol
	}
	return corev1.IPv6Protocol
}

// put writes a status if it is another.
func (k *Controller) put(ctx context.Context, s *corev1.Service, want []corev1.LoadBalancerIngress) error {
	if apiequality.Semantic.DeepEqual(s.Status.LoadBalancer.Ingress, want) {
		return nil
	}
	now := s.DeepCopy()
	now.Status.LoadBalancer.Ingress = want
	if _, err := k.c.Client.CoreV1().Services(s.Namespace).UpdateStatus(ctx, now, metav1.UpdateOptions{}); err != nil {
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("loadbalancer: write the status of service %s: %w", key(s), err)
	}
	if k.c.Events != nil && len(want) > 0 {
		var ips []string
		for _, i := range want {
			ips = append(ips, i.IP)
		}
		k.c.Events.Event(s, corev1.EventTypeNormal, reasonAssigned, "the address is "+strings.Join(ips, ", "))
	}
	return nil
}

// release takes the status of a Service that is no LoadBalancer any more. The
// API server does so itself for a change of type; this is for what was left.
func (k *Controller) release(ctx context.Context, s *corev1.Service) error {
	if s.Spec.Type == corev1.ServiceTypeLoadBalancer || len(s.Status.LoadBalancer.Ingress) == 0 {
		return nil
	}
	return k.put(ctx, s, nil)
}

// say tells the owner of a Service what is wrong, once.
func (k *Controller) say(s *corev1.Service, kind, reason, message string) {
	id := string(s.UID) + reason
	if k.said[id] == message {
		return
	}
	k.said[id] = message
	if message != "" && k.c.Events != nil {
		k.c.Events.Event(s, kind, reason, message)
	}
}

func (k *Controller) forget(services []*corev1.Service) {
	alive := map[string]bool{}
	for _, s := range services {
		alive[string(s.UID)], alive[string(s.UID)+reasonNone], alive[string(s.UID)+reasonNoNode] = true, true, true
	}
	for id := range k.given {
		if !alive[id] {
			delete(k.given, id)
		}
	}
	for id := range k.said {
		if !alive[id] {
			delete(k.said, id)
		}
	}
}

// count writes how much of a pool is used.
func (k *Controller) count(ctx context.Context, p *v1alpha1.AddressPool, wishes []*wish) error {
	var st v1alpha1.AddressPoolStatus
	for _, r := range p.Ranges() {
		if n := r.Size(); st.Total < 1<<62 {
			st.Total = min(1<<62, st.Total+n)
		}
	}
	for _, w := range wishes {
		for _, a := range w.got {
			if inPools([]*v1alpha1.AddressPool{p}, a) {
				st.Used++
			}
		}
	}
	if p.Status == st {
		return nil
	}
	now := p.DeepCopy()
	now.Status = st
	_, err := k.c.Own.AddressPools().UpdateStatus(ctx, now, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// own gives every address its node.
func (k *Controller) own(ctx context.Context, wishes []*wish) error {
	leases, err := k.c.Client.CoordinationV1().Leases(leaseNamespace).List(ctx, metav1.ListOptions{LabelSelector: v1alpha1.LabelAddressOwner})
	if err != nil {
		return fmt.Errorf("loadbalancer: read who announces what: %w", err)
	}
	have := map[string]*coordinationv1.Lease{}
	for i := range leases.Items {
		have[leases.Items[i].Name] = &leases.Items[i]
	}
	var live []string
	if slices.ContainsFunc(wishes, func(w *wish) bool { return len(w.got) > 0 }) || len(have) > 0 {
		if live, err = k.live(ctx); err != nil {
			return err
		}
	}
	var errs []error
	for _, w := range wishes {
		nodes := live
		if len(w.got) > 0 && w.service.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal {
			nodes = k.withEndpoint(w.service, live)
		}
		none := ""
		if len(nodes) == 0 && len(w.got) > 0 {
			none = "no Ready node can announce the address"
			if len(live) > 0 {
				none = "no Ready node has a ready endpoint, which externalTrafficPolicy Local asks for"
			}
		}
		k.say(w.service, corev1.EventTypeWarning, reasonNoNode, none)
		for _, a := range w.got {
			name := leaseName(a)
			errs = append(errs, k.writeLease(ctx, name, a, key(w.service), choose(a, nodes), have[name]))
			delete(have, name)
		}
	}
	for name := range have {
		if err := k.c.Client.CoordinationV1().Leases(leaseNamespace).Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func leaseName(a netip.Addr) string {
	return leasePrefix + strings.NewReplacer(".", "-", ":", "-").Replace(a.StringExpanded())
}

func (k *Controller) writeLease(ctx context.Context, name string, a netip.Addr, service, node string, have *coordinationv1.Lease) error {
	seconds, now := int32(leaseSeconds), metav1.NewMicroTime(k.c.Now())
	api := k.c.Client.CoordinationV1().Leases(leaseNamespace)
	notes := map[string]string{v1alpha1.LabelAddressOwner: a.String(), v1alpha1.LabelService: service}
	if have == nil {
		_, err := api.Create(ctx, &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{v1alpha1.LabelAddressOwner: "true"}, Annotations: notes},
			Spec:       coordinationv1.LeaseSpec{HolderIdentity: &node, LeaseDurationSeconds: &seconds, AcquireTime: &now},
		}, metav1.CreateOptions{})
		return err
	}
	if have.Spec.HolderIdentity != nil && *have.Spec.HolderIdentity == node && have.Annotations[v1alpha1.LabelService] == service {
		return nil
	}
	changed := have.DeepCopy()
	changed.Annotations = notes
	changed.Spec.HolderIdentity, changed.Spec.AcquireTime = &node, &now
	_, err := api.Update(ctx, changed, metav1.UpdateOptions{})
	return err
}

// live are the nodes that may announce: Ready, and heard of lately.
func (k *Controller) live(ctx context.Context) ([]string, error) {
	nodes, err := k.nodes.List(labels.Everything())
	if err != nil {
		return nil, err
	}
	leases, err := k.c.Client.CoordinationV1().Leases(corev1.NamespaceNodeLease).List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return nil, fmt.Errorf("loadbalancer: read the nodes' heartbeats: %w", err)
	}
	now := k.c.Now()
	for i := range leases.Items {
		l := &leases.Items[i]
		if l.Spec.RenewTime == nil {
			continue
		}
		if b := k.beats[l.Name]; !b.renewed.Equal(l.Spec.RenewTime.Time) {
			k.beats[l.Name] = beat{l.Spec.RenewTime.Time, now}
		}
	}
	var out []string
	for _, n := range nodes {
		ready := slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
			return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
		})
		b, beats := k.beats[n.Name]
		_, excluded := n.Labels[corev1.LabelNodeExcludeBalancers]
		if ready && !excluded && n.DeletionTimestamp == nil && (!beats || now.Sub(b.moved) < k.c.Silence) {
			out = append(out, n.Name)
		}
	}
	return out, nil
}

// withEndpoint are the nodes that have a ready endpoint of a Service.
func (k *Controller) withEndpoint(s *corev1.Service, live []string) (out []string) {
	list, err := k.slices.EndpointSlices(s.Namespace).List(labels.SelectorFromSet(labels.Set{discoveryv1.LabelServiceName: s.Name}))
	if err != nil {
		return nil
	}
	has := map[string]bool{}
	for _, sl := range list {
		for _, e := range sl.Endpoints {
			if e.NodeName != nil && (e.Conditions.Ready == nil || *e.Conditions.Ready) {
				has[*e.NodeName] = true
			}
		}
	}
	for _, n := range live {
		if has[n] {
			out = append(out, n)
		}
	}
	return out
}
