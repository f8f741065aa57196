package scheduler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corev1listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
)

// Name is the scheduler name of the pods that are scheduled here.
const Name = corev1.DefaultSchedulerName

// Config of the scheduler.
type Config struct {
	Client kubernetes.Interface
	// Informers give whole Pods and Nodes. Not started by the scheduler.
	Informers informers.SharedInformerFactory
	// Services are looked at to spread pods that have no owner; nil: they are not.
	Services corev1listers.ServiceLister
	Events   record.EventRecorder // nil: none are recorded
	Log      *slog.Logger
}

// Scheduler gives pods a node.
type Scheduler struct {
	c      Config
	pods   corev1listers.PodLister
	synced []cache.InformerSynced

	mu    sync.Mutex
	state *state
	queue *queue
	wake  chan struct{} // one waiting token
}

// New makes a scheduler; it registers with the informers.
func New(c Config) (*Scheduler, error) {
	if c.Client == nil || c.Informers == nil {
		return nil, errors.New("scheduler: a client and informers are needed")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	core := c.Informers.Core().V1()
	s := &Scheduler{c: c, pods: core.Pods().Lister(), state: newState(), queue: newQueue(), wake: make(chan struct{}, 1)}
	pods, err := core.Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { s.podChanged(nil, obj.(*corev1.Pod)) },
		UpdateFunc: func(was, is any) { s.podChanged(was.(*corev1.Pod), is.(*corev1.Pod)) },
		DeleteFunc: func(obj any) {
			if t, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = t.Obj
			}
			if p, ok := obj.(*corev1.Pod); ok {
				s.podGone(p)
			}
		},
	})
	if err != nil {
		return nil, fmt.Errorf("scheduler: follow the pods: %w", err)
	}
	nodes, err := core.Nodes().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { s.nodeChanged(nil, obj.(*corev1.Node)) },
		UpdateFunc: func(was, is any) { s.nodeChanged(was.(*corev1.Node), is.(*corev1.Node)) },
		DeleteFunc: func(obj any) {
			if t, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = t.Obj
			}
			if n, ok := obj.(*corev1.Node); ok {
				s.mu.Lock()
				s.state.removeNode(n.Name)
				s.mu.Unlock()
			}
		},
	})
	if err != nil {
		return nil, fmt.Errorf("scheduler: follow the nodes: %w", err)
	}
	s.synced = []cache.InformerSynced{pods.HasSynced, nodes.HasSynced}
	return s, nil
}

// maxBinds is how many decisions are written at the same time.
const maxBinds = 16

// Run schedules until ctx ends.
func (s *Scheduler) Run(ctx context.Context) error {
	if !cache.WaitForCacheSync(ctx.Done(), s.synced...) {
		return nil
	}
	var writers sync.WaitGroup
	defer writers.Wait()
	slots := make(chan struct{}, maxBinds)
	for {
		p, wait := s.next(time.Now())
		if p == nil {
			if !s.sleep(ctx, wait) {
				return nil
			}
			continue
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		d := s.decide(p)
		writers.Go(func() {
			defer func() { <-slots }()
			s.write(ctx, p, d)
		})
	}
}

// sleep waits for work or for time to pass; 0 is no limit.
func (s *Scheduler) sleep(ctx context.Context, wait time.Duration) bool {
	var after <-chan time.Time
	if wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		after = t.C
	}
	select {
	case <-ctx.Done():
		return false
	case <-s.wake:
	case <-after:
	}
	return true
}

func (s *Scheduler) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// next takes the pod whose turn it is, or says when to look again.
func (s *Scheduler) next(now time.Time) (*corev1.Pod, time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		k, wait := s.queue.pop(now)
		if k == (key{}) {
			return nil, wait
		}
		p, err := s.pods.Pods(k.namespace).Get(k.name)
		if err == nil && waiting(p) && !s.state.has(p.UID) {
			return p, 0
		}
	}
}

// decision is where a pod goes, or why nowhere.
type decision struct {
	node   string
	reason string
}

// decide finds a node and takes the room at once.
func (s *Scheduler) decide(p *corev1.Pod) decision {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := newAsk(p)
	a.spread = s.siblings(p)
	fit, why := s.state.filter(a)
	if len(fit) == 0 {
		s.queue.park(keyOf(p))
		return decision{reason: why}
	}
	best := s.state.best(a, fit)
	s.state.assume(p, best)
	return decision{node: best}
}

// waiting says whether a pod is to be scheduled here.
func waiting(p *corev1.Pod) bool {
	return p.Spec.NodeName == "" && p.DeletionTimestamp == nil && p.Spec.SchedulerName == Name && len(p.Spec.SchedulingGates) == 0 && !ended(p)
}

func ended(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

func (s *Scheduler) podChanged(was, is *corev1.Pod) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := keyOf(is)
	if is.Spec.NodeName != "" {
		s.queue.remove(k)
		helps := ended(is) && s.state.has(is.UID) || was == nil || was.Spec.NodeName == "" || labelsDiffer(was, is)
		if ended(is) {
			s.state.remove(is.UID)
		} else {
			s.state.add(is, is.Spec.NodeName)
		}
		if helps && s.queue.retryAll() {
			s.poke()
		}
		return
	}
	if !waiting(is) {
		s.queue.remove(k)
		return
	}
	// Our own note of the failure is no reason to try again; a change of the spec
	// or the labels is.
	if was == nil || was.Generation != is.Generation || labelsDiffer(was, is) || !waiting(was) {
		s.queue.push(k, priority(is), is.CreationTimestamp.Time)
		s.poke()
	}
}

func (s *Scheduler) podGone(p *corev1.Pod) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue.remove(keyOf(p))
	if s.state.remove(p.UID) && s.queue.retryAll() {
		s.poke()
	}
}

func (s *Scheduler) nodeChanged(was, is *corev1.Node) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.setNode(is)
	if (was == nil || nodeDiffers(was, is)) && s.queue.retryAll() {
		s.poke()
	}
}
