package server

import (
	"context"
	"net/netip"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/announce"
)

// owner makes this node announce the load balancer addresses that are its own:
// whose Leases name it.
type owner struct {
	node    string
	client  kubernetes.Interface
	catalog *catalog.Catalog
	to      *announce.Announcer
	changed func() // after addresses came or went
	warn    func(error)
	last    string // of what was warned

	mu     sync.Mutex
	leases map[string]netip.Addr // those of this node, by name
	wake   chan struct{}
}

// announcePatience is how long a node goes on without seeing its server. The
// controller gives the addresses to another node only later than this, see
// controller/loadbalancer.
const announcePatience = 12 * time.Second

// addAnnouncer adds the announcing of load balancer addresses. changed is
// called after addresses came or went.
func (s *System) addAnnouncer(c *Config, cat *catalog.Catalog, changed func()) error {
	client, err := kubernetes.NewForConfig(c.Rest)
	if err != nil {
		return err
	}
	a, err := announce.New(announce.Config{Log: c.Log})
	if err != nil {
		return err
	}
	o := &owner{
		node: c.NodeName, client: client, catalog: cat, to: a, changed: changed, leases: map[string]netip.Addr{}, wake: make(chan struct{}, 1),
		warn: func(err error) { c.Log.Warn("load balancer addresses", "error", err) },
	}
	s.add("announcing", a.Run, nil)
	s.add("load balancer addresses", o.run, nil)
	return nil
}

func (o *owner) run(ctx context.Context) error {
	f := informers.NewSharedInformerFactoryWithOptions(o.client, 0, informers.WithNamespace(metav1.NamespaceSystem),
		informers.WithTweakListOptions(func(l *metav1.ListOptions) { l.LabelSelector = v1alpha1.LabelAddressOwner }))
	leases := f.Coordination().V1().Leases().Informer()
	h, err := leases.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: o.see, UpdateFunc: func(_, now any) { o.see(now) }, DeleteFunc: o.gone,
	})
	if err != nil {
		return err
	}
	f.Start(ctx.Done())
	defer f.Shutdown()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-o.wake:
		case <-tick.C:
		}
		if h.HasSynced() {
			o.settle(time.Now())
		}
	}
}

func (o *owner) see(obj any) {
	l, ok := obj.(*coordinationv1.Lease)
	if !ok {
		return
	}
	a, err := netip.ParseAddr(l.Annotations[v1alpha1.LabelAddressOwner])
	o.mu.Lock()
	if err == nil && l.Spec.HolderIdentity != nil && *l.Spec.HolderIdentity == o.node {
		o.leases[l.Name] = a
	} else {
		delete(o.leases, l.Name)
	}
	o.mu.Unlock()
	o.poke()
}

func (o *owner) gone(obj any) {
	if t, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = t.Obj
	}
	if l, ok := obj.(*coordinationv1.Lease); ok {
		o.mu.Lock()
		delete(o.leases, l.Name)
		o.mu.Unlock()
		o.poke()
	}
}

func (o *owner) poke() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// settle announces what is ours, or nothing when the server has been away for
// so long that somebody else may.
func (o *owner) settle(now time.Time) {
	var want []netip.Addr
	f := o.catalog.Snapshot().Freshness()
	if !f.Stale() || now.Sub(f.StaleSince) < announcePatience {
		o.mu.Lock()
		for _, a := range o.leases {
			want = append(want, a)
		}
		o.mu.Unlock()
	}
	changed, err := o.to.Set(want)
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != o.last && err != nil {
		o.warn(err)
	}
	o.last = text
	if changed && o.changed != nil {
		o.changed()
	}
}
