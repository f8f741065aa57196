package instance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
	"github.com/fingerpost/fingerpost/api/v1alpha1/client"
	"github.com/fingerpost/fingerpost/controller/internal/indexer"
	"github.com/fingerpost/fingerpost/controller/internal/queue"
	"github.com/fingerpost/fingerpost/health"
	"github.com/fingerpost/fingerpost/health/probe"
)

// Config says what a Controller works on. The informers are shared; whoever
// made them runs them, after New.
type Config struct {
	Client    kubernetes.Interface // for Services
	Instances *client.Client
	// Informers of Services and Instances, of all namespaces.
	Services, InstanceInformer cache.SharedIndexInformer
	// Liveness holds the leases; the same that the API server renews.
	Liveness *Liveness
	// Node is the node that this process runs on: loopback addresses of other
	// nodes cannot be checked from here.
	Node string
	// Probe tunes the checks. OnChange and Registerer are set by the Controller.
	Probe probe.Config

	Events     record.EventRecorder // nil: nowhere; its scheme must know v1alpha1
	Log        *slog.Logger
	Registerer prometheus.Registerer // nil: none
	Workers    int                   // status writes at a time; 8 if 0
}

// Controller looks after Instances. Make it with New.
type Controller struct {
	cfg      Config
	lister   client.Lister
	runner   *probe.Runner
	status   *queue.Queue[name] // Instances whose status may be wrong
	services *queue.Queue[name] // Services that may be missing
	synced   []cache.DoneChecker
	started  time.Time
	metrics  metrics

	mu         sync.Mutex
	complained map[name]string // the Instances told that no port matches, and for which version of both
}

// New makes a controller and registers it with the informers.
func New(cfg Config) (*Controller, error) {
	if cfg.Client == nil || cfg.Instances == nil || cfg.Services == nil || cfg.InstanceInformer == nil || cfg.Liveness == nil {
		return nil, errors.New("controller/instance: configure: clients, informers of services and instances, and a Liveness are needed")
	}
	if cfg.Workers <= 0 {
		cfg.Workers = 8
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	c := &Controller{
		cfg: cfg, lister: client.NewLister(cfg.InstanceInformer.GetIndexer()), started: time.Now(),
		status:   queue.New[name](10*time.Millisecond, 30*time.Second),
		services: queue.New[name](10*time.Millisecond, 30*time.Second),
		metrics:  newMetrics(), complained: map[name]string{},
	}
	if err := c.metrics.register(cfg.Registerer); err != nil {
		return nil, fmt.Errorf("controller/instance: register metrics: %w", err)
	}
	add := c.status.Add
	cfg.Liveness.notify.Store(&add)
	p := cfg.Probe
	p.OnChange, p.Registerer = c.checked, cfg.Registerer
	var err error
	if c.runner, err = probe.NewRunner(p); err != nil {
		return nil, fmt.Errorf("controller/instance: make checks: %w", err)
	}
	if err := indexer.Instances(cfg.InstanceInformer); err != nil {
		return nil, err
	}
	if err := c.watch(); err != nil {
		return nil, fmt.Errorf("controller/instance: watch: %w", err)
	}
	return c, nil
}

func (c *Controller) watch() error {
	r, err := c.cfg.InstanceInformer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) { c.changed(nil, obj) },
		UpdateFunc: func(old, obj any) {
			o, _ := old.(*v1alpha1.Instance)
			c.changed(o, obj)
		},
		DeleteFunc: func(obj any) {
			if d, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = d.Obj
			}
			if in, ok := obj.(*v1alpha1.Instance); ok {
				c.gone(in)
			}
		},
	})
	if err != nil {
		return err
	}
	c.synced = append(c.synced, r.HasSyncedChecker(), c.cfg.Services.HasSyncedChecker())
	return nil
}

func (c *Controller) changed(old *v1alpha1.Instance, obj any) {
	in, ok := obj.(*v1alpha1.Instance)
	if !ok {
		return
	}
	if old != nil && old.UID != in.UID {
		c.gone(old)
		old = nil
	}
	c.cfg.Liveness.Put(in, time.Now())
	n := name{Namespace: in.Namespace, Name: in.Name}
	c.check(n, in)
	if in.Spec.Check != nil || in.Status.Check != nil || len(in.Status.Expired) > 0 {
		c.status.Add(n)
	}
	if old == nil || old.Generation != in.Generation || old.Annotations[v1alpha1.AnnotationServicePort] != in.Annotations[v1alpha1.AnnotationServicePort] {
		c.services.Add(name{Namespace: in.Namespace, Name: in.Spec.Service})
	}
}

func (c *Controller) gone(in *v1alpha1.Instance) {
	c.cfg.Liveness.Remove(in)
	n := name{Namespace: in.Namespace, Name: in.Name}
	c.runner.Remove(n.String())
	c.status.Forget(n)
	c.mu.Lock()
	delete(c.complained, n)
	c.mu.Unlock()
}

// Run works until ctx is done.
func (c *Controller) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		c.status.ShutDown()
		c.services.ShutDown()
	})
	defer stop()
	if !cache.WaitFor(ctx, "", c.synced...) {
		return nil // stopped before it began
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { _ = c.runner.Run(ctx) })
	wg.Go(func() { c.cfg.Liveness.run(ctx, c.told) })
	wg.Go(func() { serve(ctx, c, c.status, c.cfg.Workers, "write the status of instance", c.syncStatus) })
	wg.Go(func() { serve(ctx, c, c.services, 2, "make service", c.syncService) })
	return nil
}

func serve(ctx context.Context, c *Controller, q *queue.Queue[name], workers int, what string, do func(context.Context, name) error) {
	q.Work(ctx, workers, func(ctx context.Context, n name) { q.Settle(ctx, c.cfg.Log, n, what, do(ctx, n)) })
}

// told counts a transition and tells people.
func (c *Controller) told(t health.Transition) {
	c.metrics.transitions.WithLabelValues(t.Kind.String()).Inc()
	if t.Kind != health.WentOut || c.cfg.Events == nil {
		return
	}
	n := nameOf(t.Key)
	if in, err := c.lister.Get(n.Namespace, n.Name); err == nil {
		c.cfg.Events.Event(in, corev1.EventTypeWarning, "HeartbeatsStopped", t.Reason())
	}
}
