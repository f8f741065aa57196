package endpoints

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/tools/record"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
	"github.com/fingerpost/fingerpost/controller/internal/indexer"
	"github.com/fingerpost/fingerpost/controller/internal/queue"
)

const (
	// LabelManagedBy marks the Endpoints that a controller keeps.
	LabelManagedBy = "endpoints.kubernetes.io/managed-by"
	// ManagedBy is its value on ours.
	ManagedBy = "endpoints.fingerpost.dev"
)

// Config says what a Controller works on. The informers are shared; whoever
// made them runs them, after New.
type Config struct {
	Client                      kubernetes.Interface
	Services, Slices, Endpoints cache.SharedIndexInformer
	Events                      record.EventRecorder // nil: nowhere
	Log                         *slog.Logger
	Registerer                  prometheus.Registerer // nil: none

	Workers     int           // 4 if 0
	MinInterval time.Duration // between two writes of one object; 1 s if 0, none if negative
	Now         func() time.Time
}

// Controller keeps Endpoints. Make it with New.
type Controller struct {
	cfg    Config
	queue  *queue.Queue[types.NamespacedName]
	writes *prometheus.CounterVec

	mu      sync.Mutex
	written map[types.NamespacedName]time.Time
	deleted map[types.NamespacedName]struct{} // Services that we saw go
}

// New makes a controller and registers it with the informers.
func New(cfg Config) (*Controller, error) {
	if cfg.Client == nil || cfg.Services == nil || cfg.Slices == nil || cfg.Endpoints == nil {
		return nil, errors.New("controller/endpoints: configure: a client and informers of services, slices and endpoints are needed")
	}
	if cfg.Workers <= 0 {
		cfg.Workers = 4
	}
	if cfg.MinInterval == 0 {
		cfg.MinInterval = time.Second
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	c := &Controller{
		cfg: cfg, written: map[types.NamespacedName]time.Time{}, deleted: map[types.NamespacedName]struct{}{},
		queue: queue.New[types.NamespacedName](20*time.Millisecond, 30*time.Second),
		writes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fingerpost_endpoints_writes_total",
			Help: "Legacy Endpoints written, by operation (create, update, delete).",
		}, []string{"operation"}),
	}
	if cfg.Registerer != nil {
		if err := cfg.Registerer.Register(c.writes); err != nil {
			return nil, fmt.Errorf("controller/endpoints: register metrics: %w", err)
		}
	}
	if err := indexer.Slices(cfg.Slices); err != nil {
		return nil, err
	}
	if err := errors.Join(
		queue.Follow(c.queue, cfg.Services, c.serviceChanged), queue.Follow(c.queue, cfg.Slices, c.sliceChanged),
		queue.Follow(c.queue, cfg.Endpoints, c.endpointsChanged),
	); err != nil {
		return nil, fmt.Errorf("controller/endpoints: watch: %w", err)
	}
	return c, nil
}

func (c *Controller) serviceChanged(old, cur *corev1.Service) {
	gone := cur == nil
	if gone {
		cur = old
	}
	k := types.NamespacedName{Namespace: cur.Namespace, Name: cur.Name}
	c.mu.Lock()
	if gone {
		c.deleted[k] = struct{}{}
	} else {
		delete(c.deleted, k)
	}
	c.mu.Unlock()
	c.queue.Add(k)
}

func (c *Controller) sliceChanged(old, cur *discoveryv1.EndpointSlice) {
	if cur == nil {
		cur = old
	}
	if cur.Labels[discoveryv1.LabelManagedBy] == v1alpha1.ManagedBy {
		c.queue.Add(types.NamespacedName{Namespace: cur.Namespace, Name: cur.Labels[discoveryv1.LabelServiceName]})
	}
}

func (c *Controller) endpointsChanged(old, cur *corev1.Endpoints) {
	if cur == nil {
		cur = old
	}
	c.queue.Add(types.NamespacedName{Namespace: cur.Namespace, Name: cur.Name})
}

// Run works until ctx is done.
func (c *Controller) Run(ctx context.Context) error {
	c.queue.Run(ctx, c.cfg.Workers, c.work)
	return nil
}

func (c *Controller) work(ctx context.Context, k types.NamespacedName) {
	c.mu.Lock()
	wait := c.cfg.MinInterval - c.cfg.Now().Sub(c.written[k])
	_, gone := c.deleted[k]
	c.mu.Unlock()
	if wait > 0 && !gone {
		c.queue.AddAfter(k, wait)
		return
	}
	c.queue.Settle(ctx, c.cfg.Log, k, "write endpoints", c.sync(ctx, k, gone))
}

func (c *Controller) sync(ctx context.Context, k types.NamespacedName, gone bool) error {
	svc, current := lookup[corev1.Service](c.cfg.Services, k), lookup[corev1.Endpoints](c.cfg.Endpoints, k)
	handmade := current != nil && current.Labels[LabelManagedBy] != ManagedBy
	switch {
	case svc == nil:
		if err := c.cleanUp(ctx, k, current, handmade && !gone); err != nil {
			return err
		}
		c.forget(k)
		return nil
	case svc.Spec.Type == corev1.ServiceTypeExternalName:
		return c.cleanUp(ctx, k, current, handmade)
	}
	slices := c.slices(svc)
	selects := len(svc.Spec.Selector) > 0
	switch {
	case len(slices) == 0 && selects:
		return nil // the slice to come will tell
	case len(slices) == 0:
		return c.cleanUp(ctx, k, current, handmade)
	case handmade && !selects:
		return nil
	}
	next := c.desired(svc, slices, current)
	if next == nil {
		return nil
	}
	return c.put(ctx, k, svc, current, next)
}

func lookup[T any](inf cache.SharedIndexInformer, k types.NamespacedName) *T {
	obj, ok, err := inf.GetIndexer().GetByKey(k.String())
	if err != nil || !ok {
		return nil
	}
	return obj.(*T)
}

// slices gives ours of this very Service.
func (c *Controller) slices(svc *corev1.Service) []*discoveryv1.EndpointSlice {
	objs, _ := c.cfg.Slices.GetIndexer().ByIndex(indexer.SlicesByService, svc.Namespace+"/"+svc.Name)
	var out []*discoveryv1.EndpointSlice
	for _, obj := range objs {
		s := obj.(*discoveryv1.EndpointSlice)
		if o := metav1.GetControllerOf(s); s.Labels[discoveryv1.LabelManagedBy] == v1alpha1.ManagedBy && o != nil && o.UID == svc.UID {
			out = append(out, s)
		}
	}
	return out
}

// desired gives the object to write, nil if the current one is right.
func (c *Controller) desired(svc *corev1.Service, from []*discoveryv1.EndpointSlice, current *corev1.Endpoints) *corev1.Endpoints {
	subsets, truncated := Project(svc, from)
	labels := maps.Clone(svc.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	delete(labels, corev1.IsHeadlessService)
	if svc.Spec.ClusterIP == "" || svc.Spec.ClusterIP == corev1.ClusterIPNone {
		labels[corev1.IsHeadlessService] = ""
	}
	labels[LabelManagedBy] = ManagedBy
	over := ""
	if truncated {
		over = "truncated"
	}
	if current != nil && current.Annotations[corev1.EndpointsOverCapacity] == over && maps.Equal(labels, current.Labels) &&
		apiequality.Semantic.DeepEqual(subsets, current.Subsets) {
		return nil
	}
	next := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: svc.Namespace, Name: svc.Name}}
	if current != nil {
		next.ObjectMeta = *current.ObjectMeta.DeepCopy()
	}
	next.Labels, next.Subsets = labels, subsets
	if next.Annotations == nil {
		next.Annotations = map[string]string{}
	}
	set := func(key, value string) {
		if value == "" {
			delete(next.Annotations, key)
		} else {
			next.Annotations[key] = value
		}
	}
	set(corev1.EndpointsOverCapacity, over)
	trigger := ""
	for _, s := range from { // RFC 3339 in UTC, but fractions differ in length: compare as times
		if t := s.Annotations[corev1.EndpointsLastChangeTriggerTime]; later(t, trigger) {
			trigger = t
		}
	}
	set(corev1.EndpointsLastChangeTriggerTime, trigger)
	return next
}

func later(a, b string) bool {
	x, err := time.Parse(time.RFC3339Nano, a)
	y, err2 := time.Parse(time.RFC3339Nano, b)
	return err == nil && (err2 != nil || x.After(y))
}

func (c *Controller) put(ctx context.Context, k types.NamespacedName, svc *corev1.Service, current, next *corev1.Endpoints) error {
	api, verb := c.cfg.Client.CoreV1().Endpoints(k.Namespace), "update"
	var err error
	switch {
	case current != nil:
		_, err = api.Update(ctx, next, metav1.UpdateOptions{})
	case svc.DeletionTimestamp != nil:
		return nil
	default:
		verb = "create"
		_, err = api.Create(ctx, next, metav1.CreateOptions{})
	}
	switch {
	case err == nil:
		c.writes.WithLabelValues(verb).Inc()
		c.mu.Lock()
		c.written[k] = c.cfg.Now()
		c.mu.Unlock()
		return nil
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return nil
	case c.cfg.Events != nil && !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err):
		c.cfg.Events.Eventf(svc, corev1.EventTypeWarning, "FailedToUpdateEndpoint", "Failed to %s endpoints of service %s: %v", verb, k, err)
	}
	return fmt.Errorf("controller/endpoints: %s endpoints of service %s: %w", verb, k, err)
}

// cleanUp deletes Endpoints that have no Service or no endpoints of ours any
// more, unless they are somebody else's.
func (c *Controller) cleanUp(ctx context.Context, k types.NamespacedName, current *corev1.Endpoints, keep bool) error {
	if current == nil || keep {
		return nil
	}
	if _, elects := current.Annotations[resourcelock.LeaderElectionRecordAnnotationKey]; elects {
		return nil
	}
	err := c.cfg.Client.CoreV1().Endpoints(k.Namespace).Delete(ctx, k.Name,
		metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &current.UID}})
	if err == nil {
		c.writes.WithLabelValues("delete").Inc()
		return nil
	}
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return fmt.Errorf("controller/endpoints: delete endpoints of service %s: %w", k, err)
}

func (c *Controller) forget(k types.NamespacedName) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.written, k)
	if lookup[corev1.Service](c.cfg.Services, k) == nil {
		delete(c.deleted, k)
	}
}
