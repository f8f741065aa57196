package mirror

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/tools/record"

	"github.com/fingerpost/fingerpost/controller/endpoints"
	"github.com/fingerpost/fingerpost/controller/internal/indexer"
	"github.com/fingerpost/fingerpost/controller/internal/queue"
)

// Config says what a Controller works on. The informers are shared; whoever
// made them runs them, after New.
type Config struct {
	Client                      kubernetes.Interface
	Services, Slices, Endpoints cache.SharedIndexInformer
	Events                      record.EventRecorder // nil: nowhere
	Log                         *slog.Logger
	Registerer                  prometheus.Registerer // nil: none
	Workers                     int                   // 2 if 0
}

// Controller mirrors Endpoints. Make it with New.
type Controller struct {
	cfg    Config
	queue  *queue.Queue[types.NamespacedName]
	writes *prometheus.CounterVec

	mu sync.Mutex
	// own holds what we wrote until the watch shows it, so that a slice is not
	// made twice.
	own map[types.NamespacedName]map[string]*discoveryv1.EndpointSlice
}

// New makes a controller and registers it with the informers.
func New(cfg Config) (*Controller, error) {
	if cfg.Client == nil || cfg.Services == nil || cfg.Slices == nil || cfg.Endpoints == nil {
		return nil, errors.New("controller/mirror: configure: a client and informers of services, slices and endpoints are needed")
	}
	if cfg.Workers <= 0 {
		cfg.Workers = 2
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	c := &Controller{
		cfg: cfg, own: map[types.NamespacedName]map[string]*discoveryv1.EndpointSlice{},
		queue: queue.New[types.NamespacedName](10*time.Millisecond, 30*time.Second),
		writes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fingerpost_mirror_writes_total",
			Help: "EndpointSlices written for hand-made Endpoints, by operation (create, update, delete).",
		}, []string{"operation"}),
	}
	if cfg.Registerer != nil {
		if err := cfg.Registerer.Register(c.writes); err != nil {
			return nil, fmt.Errorf("controller/mirror: register metrics: %w", err)
		}
	}
	if err := indexer.Slices(cfg.Slices); err != nil {
		return nil, err
	}
	if err := errors.Join(
		queue.Follow(c.queue, cfg.Services, named[corev1.Service](c)), queue.Follow(c.queue, cfg.Endpoints, named[corev1.Endpoints](c)),
		queue.Follow(c.queue, cfg.Slices, c.sliceChanged),
	); err != nil {
		return nil, fmt.Errorf("controller/mirror: watch: %w", err)
	}
	return c, nil
}

// named queues an object's name, which is that of the service too.
func named[T any, P interface {
	*T
	metav1.Object
}](c *Controller) func(old, cur P) {
	return func(old, cur P) {
		if cur == nil {
			cur = old
		}
		c.queue.Add(types.NamespacedName{Namespace: cur.GetNamespace(), Name: cur.GetName()})
	}
}

// sliceChanged looks at what a slice was, too: its labels may have been taken
// away.
func (c *Controller) sliceChanged(old, cur *discoveryv1.EndpointSlice) {
	for _, s := range []*discoveryv1.EndpointSlice{cur, old} {
		if s == nil || s.Labels[discoveryv1.LabelManagedBy] != ManagedBy {
			continue
		}
		k := types.NamespacedName{Namespace: s.Namespace, Name: s.Labels[discoveryv1.LabelServiceName]}
		if cur == nil {
			c.disown(k, s.Name)
		}
		c.queue.Add(k)
	}
}

// Run works until ctx is done.
func (c *Controller) Run(ctx context.Context) error {
	c.queue.Run(ctx, c.cfg.Workers, func(ctx context.Context, k types.NamespacedName) {
		c.queue.Settle(ctx, c.cfg.Log, k, "mirror endpoints", c.sync(ctx, k))
	})
	return nil
}

// mirrored says whether the Endpoints are to be mirrored.
func mirrored(e *corev1.Endpoints, svc *corev1.Service) bool {
	if e == nil || svc == nil || len(svc.Spec.Selector) > 0 {
		return false
	}
	_, elects := e.Annotations[resourcelock.LeaderElectionRecordAnnotationKey]
	return !elects && e.Labels[discoveryv1.LabelSkipMirror] != "true" && e.Labels[endpoints.LabelManagedBy] != endpoints.ManagedBy
}

func (c *Controller) sync(ctx context.Context, k types.NamespacedName) error {
	var e *corev1.Endpoints
	var svc *corev1.Service
	if obj, ok, _ := c.cfg.Endpoints.GetIndexer().GetByKey(k.String()); ok {
		e = obj.(*corev1.Endpoints)
	}
	if obj, ok, _ := c.cfg.Services.GetIndexer().GetByKey(k.String()); ok {
		svc = obj.(*corev1.Service)
	}
	existing := c.existing(k)
	var want []*discoveryv1.EndpointSlice
	if mirrored(e, svc) {
		var skipped, invalid int
		want, skipped, invalid = Project(e)
		c.complain(e, skipped, invalid)
	}
	// Slices with the same ports are updated; then what is left over is used
	// for what is missing.
	var missing []*discoveryv1.EndpointSlice
	for _, w := range want {
		if !c.match(w, &existing, func(o *discoveryv1.EndpointSlice) bool { return canonical(o.Ports) == canonical(w.Ports) }) {
			missing = append(missing, w)
		}
	}
	for _, w := range missing {
		c.match(w, &existing, func(*discoveryv1.EndpointSlice) bool { return true })
	}
	for _, w := range want {
		if err := c.put(ctx, k, e, w); err != nil {
			return err
		}
	}
	for _, o := range existing {
		err := c.cfg.Client.DiscoveryV1().EndpointSlices(k.Namespace).Delete(ctx, o.Name,
			metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &o.UID}})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return fmt.Errorf("controller/mirror: delete slice %s of %s: %w", o.Name, k, err)
		}
		c.writes.WithLabelValues("delete").Inc()
		c.disown(k, o.Name)
	}
	return nil
}

// match gives w the name of an existing slice and takes that from the list.
func (c *Controller) match(w *discoveryv1.EndpointSlice, existing *[]*discoveryv1.EndpointSlice, fits func(*discoveryv1.EndpointSlice) bool) bool {
	for i, o := range *existing {
		if o.AddressType != w.AddressType || !metav1.IsControlledBy(o, &metav1.ObjectMeta{UID: w.OwnerReferences[0].UID}) || !fits(o) {
			continue
		}
		*existing = append((*existing)[:i:i], (*existing)[i+1:]...)
		if canonical(o.Ports) == canonical(w.Ports) && apiequality.Semantic.DeepEqual(o.Endpoints, w.Endpoints) &&
			apiequality.Semantic.DeepEqual(o.Labels, w.Labels) && apiequality.Semantic.DeepEqual(o.Annotations, w.Annotations) {
			w.Name = "" // nothing to write
			w.GenerateName = ""
			return true
		}
		w.Name, w.GenerateName, w.UID, w.ResourceVersion = o.Name, "", o.UID, o.ResourceVersion
		return true
	}
	return false
}

func (c *Controller) put(ctx context.Context, k types.NamespacedName, e *corev1.Endpoints, w *discoveryv1.EndpointSlice) error {
	if w.Name == "" && w.GenerateName == "" {
		return nil
	}
	api, verb := c.cfg.Client.DiscoveryV1().EndpointSlices(k.Namespace), "update"
	var got *discoveryv1.EndpointSlice
	var err error
	switch {
	case w.Name != "":
		got, err = api.Update(ctx, w, metav1.UpdateOptions{})
		if apierrors.IsNotFound(err) {
			c.disown(k, w.Name)
		}
	case e.DeletionTimestamp != nil:
		return nil
	default:
		verb = "create"
		got, err = api.Create(ctx, w, metav1.CreateOptions{})
	}
	if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("controller/mirror: %s slice %s of %s: %w", verb, w.Name, k, err)
	}
	c.writes.WithLabelValues(verb).Inc()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.own[k] == nil {
		c.own[k] = map[string]*discoveryv1.EndpointSlice{}
	}
	c.own[k][got.Name] = got
	return nil
}

// existing gives the mirrored slices of a service, our own newest where the
// watch is behind.
func (c *Controller) existing(k types.NamespacedName) []*discoveryv1.EndpointSlice {
	objs, _ := c.cfg.Slices.GetIndexer().ByIndex(indexer.SlicesByService, k.String())
	var all []*discoveryv1.EndpointSlice
	c.mu.Lock()
	defer c.mu.Unlock()
	own := c.own[k]
	seen := map[string]bool{}
	for _, obj := range objs {
		s := obj.(*discoveryv1.EndpointSlice)
		if s.Labels[discoveryv1.LabelManagedBy] != ManagedBy {
			continue
		}
		seen[s.Name] = true
		if o := own[s.Name]; o != nil {
			if n, err := resourceversion.CompareResourceVersion(o.ResourceVersion, s.ResourceVersion); err == nil && n > 0 {
				s = o
			} else {
				delete(own, s.Name)
			}
		}
		all = append(all, s)
	}
	for name, o := range own {
		if !seen[name] {
			all = append(all, o)
		}
	}
	return all
}

func (c *Controller) disown(k types.NamespacedName, name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.own[k], name)
	if len(c.own[k]) == 0 {
		delete(c.own, k)
	}
}

func (c *Controller) complain(e *corev1.Endpoints, skipped, invalid int) {
	if c.cfg.Events == nil {
		return
	}
	if invalid > 0 {
		c.cfg.Events.Eventf(e, corev1.EventTypeWarning, "InvalidIPAddress",
			"Skipped %d invalid IP addresses when mirroring to EndpointSlices", invalid)
	}
	if skipped > 0 {
		c.cfg.Events.Eventf(e, corev1.EventTypeWarning, "TooManyAddressesToMirror",
			"A max of %d addresses can be mirrored to EndpointSlices per Endpoints subset. %d addresses were skipped", MaxAddresses, skipped)
	}
}
