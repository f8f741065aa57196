package workload

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corev1listers "k8s.io/client-go/listers/core/v1"
	restclient "k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/controller/cronjob"
	"k8s.io/kubernetes/pkg/controller/daemon"
	"k8s.io/kubernetes/pkg/controller/deployment"
	"k8s.io/kubernetes/pkg/controller/job"
	"k8s.io/kubernetes/pkg/controller/replicaset"
	"k8s.io/kubernetes/pkg/controller/replication"
	"k8s.io/kubernetes/pkg/controller/statefulset"
	"k8s.io/kubernetes/pkg/controller/ttlafterfinished"

	"github.com/fingerpost/fingerpost/controller/scheduler"
)

// Config of the controllers of workloads.
type Config struct {
	Rest   *restclient.Config
	Client kubernetes.Interface
	// Services are looked at by the scheduler; nil: it spreads by owner only.
	Services corev1listers.ServiceLister
	Events   func(component string) record.EventRecorder // nil: none are recorded
	Log      *slog.Logger
}

// Controllers run workloads.
type Controllers struct {
	c       Config
	started chan struct{}
}

// New checks the configuration.
func New(c Config) (*Controllers, error) {
	if c.Rest == nil || c.Client == nil {
		return nil, errors.New("workload: Rest and Client are needed")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Controllers{c: c, started: make(chan struct{})}, nil
}

// Started is closed when the first object made the controllers start.
func (w *Controllers) Started() <-chan struct{} { return w.started }

// Limits of what the controllers do at the same time.
const (
	workers   = 3
	burstPods = 100 // pods that one ReplicaSet makes or removes at a time
)

// Run waits for the first object, and then runs the controllers until ctx ends.
func (w *Controllers) Run(ctx context.Context) error {
	if err := w.awaitFirst(ctx); err != nil || ctx.Err() != nil {
		return err
	}
	began := time.Now()
	// Everything is made before anything is started: upstream's constructors
	// register with informers before they are complete.
	f := informers.NewSharedInformerFactoryWithOptions(w.c.Client, 0, informers.WithTransform(lean))
	runs, err := w.borrowed(ctx, f)
	if err != nil {
		return err
	}
	sc := scheduler.Config{Client: w.c.Client, Informers: f, Services: w.c.Services, Log: w.c.Log.With("controller", "scheduler")}
	if w.c.Events != nil {
		sc.Events = w.c.Events(scheduler.Name)
	}
	sched, err := scheduler.New(sc)
	if err != nil {
		return err
	}
	f.StartWithContext(ctx)
	var wg sync.WaitGroup
	for _, run := range runs {
		wg.Go(func() { run(ctx) })
	}
	close(w.started)
	w.c.Log.Info("the controllers of workloads run", "after", time.Since(began))
	err = sched.Run(ctx)
	wg.Wait()
	f.Shutdown()
	return err
}

// borrowed makes Kubernetes' controllers.
func (w *Controllers) borrowed(ctx context.Context, f informers.SharedInformerFactory) ([]func(context.Context), error) {
	ctx = klog.NewContext(ctx, klog.Background())
	core, apps, batch := f.Core().V1(), f.Apps().V1(), f.Batch().V1()
	deployments, err := deployment.NewDeploymentController(ctx, apps.Deployments(), apps.ReplicaSets(), core.Pods(), w.c.Client)
	if err != nil {
		return nil, fmt.Errorf("workload: deployments: %w", err)
	}
	sets := replicaset.NewReplicaSetController(ctx, apps.ReplicaSets(), core.Pods(), w.c.Client, burstPods)
	rcs := replication.NewReplicationManager(ctx, core.Pods(), core.ReplicationControllers(), w.c.Client, burstPods)
	daemons, err := daemon.NewDaemonSetsController(ctx, apps.DaemonSets(), apps.ControllerRevisions(), core.Pods(), core.Nodes(), w.c.Client,
		flowcontrol.NewBackOff(time.Second, 15*time.Minute))
	if err != nil {
		return nil, fmt.Errorf("workload: daemon sets: %w", err)
	}
	stateful := statefulset.NewStatefulSetController(ctx, core.Pods(), apps.StatefulSets(), noClaims(), apps.ControllerRevisions(), w.c.Client)
	jobs, err := job.NewController(ctx, w.c.Client, core.Pods(), batch.Jobs(), nil, nil)
	if err != nil {
		return nil, fmt.Errorf("workload: jobs: %w", err)
	}
	crons, err := cronjob.NewControllerV2(ctx, batch.Jobs(), batch.CronJobs(), w.c.Client)
	if err != nil {
		return nil, fmt.Errorf("workload: cron jobs: %w", err)
	}
	ttl := ttlafterfinished.New(ctx, batch.Jobs(), w.c.Client)
	some := func(run func(context.Context, int)) func(context.Context) {
		return func(ctx context.Context) { run(ctx, workers) }
	}
	return []func(context.Context){
		some(deployments.Run), some(sets.Run), some(rcs.Run), some(daemons.Run), some(stateful.Run), some(jobs.Run), some(crons.Run), some(ttl.Run),
	}, nil
}

// lean drops what no controller reads.
func lean(obj any) (any, error) {
	if m, err := meta.Accessor(obj); err == nil {
		m.SetManagedFields(nil)
	}
	if n, ok := obj.(*corev1.Node); ok {
		n.Status.Images = nil
	}
	return obj, nil
}
