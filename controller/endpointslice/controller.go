package endpointslice

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
	"github.com/fingerpost/fingerpost/controller/internal/indexer"
	"github.com/fingerpost/fingerpost/controller/internal/queue"
)

// Config says what a Controller works on. The informers are shared with
// others; whoever made them runs them, after New.
type Config struct {
	Client kubernetes.Interface
	// Informers of Services, Pods, Nodes, EndpointSlices and Instances, of all
	// namespaces.
	Services, Pods, Nodes, Slices, Instances cache.SharedIndexInformer
	// Events records on a Service that its slices cannot be written; nil: nowhere.
	Events record.EventRecorder
	Log    *slog.Logger
	// Registerer of the metrics; nil: none.
	Registerer prometheus.Registerer

	// Workers is the number of services worked on at once; 8 if 0.
	Workers int
	// MaxEndpoints in a slice, 1 to 1000; 100 if 0.
	MaxEndpoints int
	// MinInterval between two writes for one service; 5 ms if 0, none if
	// negative. The first change after a quiet time does not wait.
	MinInterval time.Duration
	// Now is the clock; time.Now if nil.
	Now func() time.Time
}

// Controller keeps EndpointSlices. Make it with New.
type Controller struct {
	cfg     Config
	index   *index
	pool    *pool
	queue   *queue.Queue[*service]
	metrics *metrics
}

// New makes a controller and registers it with the informers.
func New(cfg Config) (*Controller, error) {
	if cfg.Client == nil || cfg.Services == nil || cfg.Pods == nil || cfg.Nodes == nil || cfg.Slices == nil || cfg.Instances == nil {
		return nil, errors.New("controller/endpointslice: configure: a client and informers of services, pods, nodes, slices and instances are needed")
	}
	if cfg.Workers <= 0 {
		cfg.Workers = 8
	}
	if cfg.MaxEndpoints == 0 {
		cfg.MaxEndpoints = 100
	}
	if cfg.MaxEndpoints < 1 || cfg.MaxEndpoints > 1000 {
		return nil, fmt.Errorf("controller/endpointslice: configure: MaxEndpoints is %d: give 1 to 1000", cfg.MaxEndpoints)
	}
	if cfg.MinInterval == 0 {
		cfg.MinInterval = 5 * time.Millisecond
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	c := &Controller{cfg: cfg, index: newIndex(), pool: newPool()}
	var err error
	if c.metrics, err = newMetrics(cfg.Registerer, c.count); err != nil {
		return nil, fmt.Errorf("controller/endpointslice: register metrics: %w", err)
	}
	c.queue = queue.New[*service](5*time.Millisecond, 10*time.Second)
	if err := errors.Join(indexer.Slices(cfg.Slices), indexer.Pods(cfg.Pods), indexer.Instances(cfg.Instances)); err != nil {
		return nil, err
	}
	// Services first: pods then find the services they belong to.
	if err := errors.Join(
		queue.Follow(c.queue, cfg.Services, c.serviceChanged), queue.Follow(c.queue, cfg.Nodes, c.nodeChanged),
		queue.Follow(c.queue, cfg.Slices, c.sliceChanged), queue.Follow(c.queue, cfg.Pods, c.podChanged),
		queue.Follow(c.queue, cfg.Instances, c.instanceChanged),
	); err != nil {
		return nil, fmt.Errorf("controller/endpointslice: watch: %w", err)
	}
	return c, nil
}

func (c *Controller) count() float64 {
	n := 0
	c.index.each(func(*service) { n++ })
	return float64(n)
}

// Run works until ctx is done. Nothing is written before every informer has
// delivered what there is.
func (c *Controller) Run(ctx context.Context) error {
	c.queue.Run(ctx, c.cfg.Workers, c.work)
	return nil
}

// work deals with everything that is pending for a service.
func (c *Controller) work(ctx context.Context, s *service) {
	p := s.take()
	if p.empty() && s.failures == 0 {
		return
	}
	// News from the slices themselves is only bookkeeping and never waits.
	if p.load || len(p.members) > 0 {
		if wait := c.cfg.MinInterval - c.cfg.Now().Sub(s.lastWrite); wait > 0 && !s.lastWrite.IsZero() {
			s.putBack(p)
			c.queue.AddAfter(s, wait)
			return
		}
	}
	err := c.sync(ctx, s, p)
	switch {
	case err == nil:
		s.failures = 0
		c.queue.Forget(s)
	case ctx.Err() != nil:
	default:
		s.failures++
		s.putBack(pending{trigger: p.trigger, seen: p.seen})
		c.queue.AddRateLimited(s)
		if !errors.Is(err, errAgain) || s.failures == 10 {
			c.cfg.Log.Warn("cannot write endpoint slices, trying again", "service", s.NamespacedName, "attempt", s.failures, "error", err)
		}
	}
}

func (c *Controller) sync(ctx context.Context, s *service, p pending) error {
	svc, err := c.get(s)
	if err != nil {
		return err
	}
	c.follow(s, p.slices)
	switch l := s.layout; {
	case l == nil || p.load || l.stale || (svc == nil) != (l.v.uid == ""):
		c.load(s, svc)
	case svc != nil:
		var w want
		for m := range p.members {
			if c.want(l, svc, m, &w) {
				l.put(&w)
			} else {
				l.remove(m)
			}
			if l.stale {
				c.load(s, svc)
				break
			}
		}
	}
	l := s.layout
	ops := l.plan(p.trigger)
	if len(ops) > 0 {
		if !p.seen.IsZero() && s.failures == 0 {
			c.metrics.latency.Observe(c.cfg.Now().Sub(p.seen).Seconds())
		}
		if err := c.write(ctx, s, svc, ops); err != nil {
			return err
		}
	}
	if len(l.byName) == 0 && len(l.condemned) == 0 {
		s.layout = nil
		if svc == nil {
			c.index.forget(s)
		}
	}
	return nil
}

// get gives the Service, nil when it is gone or has no endpoints by definition.
func (c *Controller) get(s *service) (*corev1.Service, error) {
	obj, ok, err := c.cfg.Services.GetIndexer().GetByKey(s.Namespace + "/" + s.Name)
	if err != nil || !ok {
		return nil, err
	}
	svc := obj.(*corev1.Service)
	if svc.Spec.Type == corev1.ServiceTypeExternalName {
		return nil, nil
	}
	return svc, nil
}

// follow takes the watch's news of slices into the layout.
func (c *Controller) follow(s *service, news map[string]*discoveryv1.EndpointSlice) {
	for name, obj := range news {
		if obj == nil {
			delete(s.dead, name)
		}
		if s.layout == nil {
			continue // load reads the store, which has it already
		}
		if obj == nil {
			s.layout.gone(name)
		} else if _, dead := s.dead[name]; !dead {
			s.layout.seen(obj)
		}
	}
}

// load builds the layout anew.
func (c *Controller) load(s *service, svc *corev1.Service) {
	var existing []*discoveryv1.EndpointSlice
	if s.layout != nil {
		existing = s.layout.objects()
	} else {
		objs, _ := c.cfg.Slices.GetIndexer().ByIndex(indexer.SlicesByService, s.Namespace+"/"+s.Name)
		for _, obj := range objs {
			o := obj.(*discoveryv1.EndpointSlice)
			if _, dead := s.dead[o.Name]; !dead && ours(o) != "" {
				existing = append(existing, o)
			}
		}
	}
	if svc == nil {
		s.layout = newLayout(&view{namespace: s.Namespace, name: s.Name}, c.pool, c.cfg.MaxEndpoints)
		s.layout.load(existing, nil)
		return
	}
	l := newLayout(newView(svc), c.pool, c.cfg.MaxEndpoints)
	l.load(existing, c.wants(l, s, svc))
	s.layout = l
}

func (c *Controller) wants(l *layout, s *service, svc *corev1.Service) []want {
	var pods []any
	if t, ok := c.index.term(s, svc.Spec.Selector); ok {
		pods, _ = c.cfg.Pods.GetIndexer().ByIndex(indexer.PodsByLabel, indexer.Label(s.Namespace, t.key, t.value))
	}
	instances, _ := c.cfg.Instances.GetIndexer().ByIndex(indexer.InstancesByService, s.Namespace+"/"+s.Name)
	wants := make([]want, 0, len(pods)+len(instances))
	for _, obj := range pods {
		p := obj.(*corev1.Pod)
		if selects(svc.Spec.Selector, p.Labels) {
			wants = l.wantPod(wants, p, c.zone)
		}
	}
	for _, obj := range instances {
		wants = l.wantInstance(wants, obj.(*v1alpha1.Instance))
	}
	return wants
}

// want computes one member; false: it is no endpoint of the service (any more).
func (c *Controller) want(l *layout, svc *corev1.Service, m member, w *want) bool {
	store := c.cfg.Pods.GetIndexer()
	if m.kind == instance {
		store = c.cfg.Instances.GetIndexer()
	}
	obj, ok, err := store.GetByKey(svc.Namespace + "/" + m.name)
	if err != nil || !ok {
		return false
	}
	switch o := obj.(type) {
	case *corev1.Pod:
		if !selects(svc.Spec.Selector, o.Labels) || !l.v.flattenPod(&w.flat, o, c.zone) {
			return false
		}
		w.set = l.ports.ofPod(l.v, o)
	case *v1alpha1.Instance:
		if o.Spec.Service != svc.Name || !l.v.flattenInstance(&w.flat, o) {
			return false
		}
		w.set = l.ports.ofInstance(l.v, o)
	}
	return true
}

func (l *layout) wantPod(wants []want, p *corev1.Pod, zone func(string) string) []want {
	wants = append(wants, want{})
	w := &wants[len(wants)-1]
	if !l.v.flattenPod(&w.flat, p, zone) {
		return wants[:len(wants)-1]
	}
	w.set = l.ports.ofPod(l.v, p)
	return wants
}

func (l *layout) wantInstance(wants []want, in *v1alpha1.Instance) []want {
	wants = append(wants, want{})
	w := &wants[len(wants)-1]
	if !l.v.flattenInstance(&w.flat, in) {
		return wants[:len(wants)-1]
	}
	w.set = l.ports.ofInstance(l.v, in)
	return wants
}

func (c *Controller) zone(node string) string {
	if obj, ok, _ := c.cfg.Nodes.GetIndexer().GetByKey(node); ok {
		return obj.(*corev1.Node).Labels[corev1.LabelTopologyZone]
	}
	return ""
}
