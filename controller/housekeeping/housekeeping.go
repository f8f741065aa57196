package housekeeping

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	restclient "k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/controller/certificates/rootcacertpublisher"
	"k8s.io/kubernetes/pkg/controller/clusterroleaggregation"
	"k8s.io/kubernetes/pkg/controller/garbagecollector"
	"k8s.io/kubernetes/pkg/controller/namespace"
	"k8s.io/kubernetes/pkg/controller/serviceaccount"
	"k8s.io/kubernetes/pkg/controller/servicecidrs"
)

// Config of the borrowed controllers.
type Config struct {
	Rest   *restclient.Config
	Client kubernetes.Interface
	CA     []byte // PEM, published as kube-root-ca.crt
	Log    *slog.Logger
}

// Controllers are the borrowed controllers.
type Controllers struct{ Config }

// New checks the configuration.
func New(c Config) (*Controllers, error) {
	if c.Rest == nil || c.Client == nil || len(c.CA) == 0 {
		return nil, errors.New("housekeeping: Rest, Client and CA are all needed")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Controllers{c}, nil
}

const (
	resync = 5 * time.Minute
	// discoverInterval is how often the garbage collector looks for new kinds.
	discoverInterval = 30 * time.Second
)

// Run runs all of them until ctx ends.
func (c *Controllers) Run(ctx context.Context) error {
	md, err := metadata.NewForConfig(c.Rest)
	if err != nil {
		return fmt.Errorf("housekeeping: %w", err)
	}
	// Informers of their own, started last: upstream's constructors register
	// their handlers before they are complete, so a running informer would call
	// into half-made controllers.
	own := informers.NewSharedInformerFactoryWithOptions(c.Client, 0, informers.WithTransform(lean))
	core, rbac := own.Core().V1(), own.Rbac().V1()
	ns := namespace.NewNamespaceController(ctx, c.Client, md, c.Client.Discovery().ServerPreferredNamespacedResources,
		core.Namespaces(), resync, corev1.FinalizerKubernetes)
	sa, err := serviceaccount.NewServiceAccountsController(klog.FromContext(ctx), core.ServiceAccounts(), core.Namespaces(), c.Client, serviceaccount.DefaultServiceAccountsControllerOptions())
	if err != nil {
		return fmt.Errorf("housekeeping: service accounts: %w", err)
	}
	caMaps := informers.NewSharedInformerFactoryWithOptions(c.Client, 0, informers.WithTweakListOptions(func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector("metadata.name", rootcacertpublisher.RootCACertConfigMapName).String()
	}))
	ca, err := rootcacertpublisher.NewPublisher(caMaps.Core().V1().ConfigMaps(), core.Namespaces(), c.Client, c.CA)
	if err != nil {
		return fmt.Errorf("housekeeping: CA publisher: %w", err)
	}
	roles := clusterroleaggregation.NewClusterRoleAggregation(rbac.ClusterRoles(), c.Client.RbacV1())
	cidrs := servicecidrs.NewController(ctx, own.Networking().V1().ServiceCIDRs(), own.Networking().V1().IPAddresses(), c.Client)

	caMaps.Start(ctx.Done())
	own.Start(ctx.Done())
	var wg sync.WaitGroup
	wg.Go(func() { ns.Run(ctx, 5) })
	wg.Go(func() { sa.Run(ctx, 1) })
	wg.Go(func() { ca.Run(ctx, 1) })
	wg.Go(func() { roles.Run(ctx, 1) })
	wg.Go(func() { cidrs.Run(ctx, 1) })
	wg.Go(func() {
		if err := c.collectGarbage(ctx, md); err != nil && ctx.Err() == nil {
			c.Log.Error("garbage collection by owner references does not run", "error", err)
		}
	})
	wg.Wait()
	caMaps.Shutdown()
	own.Shutdown()
	return nil
}

func (c *Controllers) collectGarbage(ctx context.Context, md metadata.Interface) error {
	cached := memory.NewMemCacheClient(c.Client.Discovery())
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(cached)
	mf := metadatainformer.NewSharedInformerFactoryWithOptions(md, 0, metadatainformer.WithTransform(ownersOnly))
	started := make(chan struct{})
	close(started) // the factory may start informers at once
	ignored := map[schema.GroupResource]struct{}{
		{Group: "networking.k8s.io", Resource: "ipaddresses"}: {}, // the allocator's own, never with owners
	}
	maps.Copy(ignored, garbagecollector.DefaultIgnoredResources())
	gc, err := garbagecollector.NewGarbageCollector(ctx, c.Client, md, mapper, ignored, metadataFactory{mf}, started)
	if err != nil {
		return err
	}
	go gc.Sync(ctx, c.Client.Discovery(), discoverInterval)
	gc.Run(ctx, 5, 30*time.Second)
	mf.Shutdown()
	return nil
}

// metadataFactory gives informers of metadata for every kind. Upstream's takes
// the typed ones where there are any, which would keep every object whole.
type metadataFactory struct {
	metadatainformer.SharedInformerFactory
}

func (f metadataFactory) ForResource(r schema.GroupVersionResource) (informers.GenericInformer, error) {
	return f.SharedInformerFactory.ForResource(r), nil
}

// lean drops what these controllers do not read.
func lean(obj any) (any, error) {
	if m, err := meta.Accessor(obj); err == nil {
		m.SetManagedFields(nil)
	}
	return obj, nil
}

// ownersOnly keeps what garbage collection reads.
func ownersOnly(obj any) (any, error) {
	m, err := meta.Accessor(obj)
	if err != nil {
		return obj, nil // a tombstone
	}
	m.SetManagedFields(nil)
	m.SetAnnotations(nil)
	m.SetLabels(nil)
	return obj, nil
}
