package nodelife

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corev1listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
)

// Config of the controller.
type Config struct {
	Client kubernetes.Interface
	// Informers give Pods and Nodes, which may be trimmed. Not started here.
	Informers informers.SharedInformerFactory
	Events    record.EventRecorder // nil: none are recorded
	Log       *slog.Logger
	Grace     time.Duration // silence until a node is unknown; default 40 s
	Eviction  time.Duration // silence until its pods are deleted; default 5 min
}

// Controller watches over nodes.
type Controller struct {
	c      Config
	nodes  corev1listers.NodeLister
	pods   cache.Indexer
	synced []cache.InformerSynced
	beats  map[string]*beat // by node
	gone   chan string      // nodes whose object was deleted
	ending chan *corev1.Pod // pods that end
}

// beat is what is known of a node's Lease.
type beat struct {
	renewed time.Time // as the Lease says
	moved   time.Time // when that was seen to change, or first seen
	live    bool      // it was seen to change
	silent  bool
	evicted bool
}

const (
	byNode    = "fingerpost.dev/node"
	lookEvery = 5 * time.Second
)

// New makes the controller; it registers with the informers.
func New(c Config) (*Controller, error) {
	if c.Client == nil || c.Informers == nil {
		return nil, errors.New("nodelife: a client and informers are needed")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Grace == 0 {
		c.Grace = 40 * time.Second
	}
	if c.Eviction == 0 {
		c.Eviction = 5 * time.Minute
	}
	core := c.Informers.Core().V1()
	pods, nodes := core.Pods().Informer(), core.Nodes().Informer()
	if err := pods.AddIndexers(cache.Indexers{byNode: func(obj any) ([]string, error) {
		if p, ok := obj.(*corev1.Pod); ok && p.Spec.NodeName != "" {
			return []string{p.Spec.NodeName}, nil
		}
		return nil, nil
	}}); err != nil {
		return nil, fmt.Errorf("nodelife: index the pods by node: %w", err)
	}
	k := &Controller{c: c, nodes: core.Nodes().Lister(), pods: pods.GetIndexer(), beats: map[string]*beat{}, gone: make(chan string, 1024), ending: make(chan *corev1.Pod, 1024)}
	hn, err := nodes.AddEventHandler(cache.ResourceEventHandlerFuncs{DeleteFunc: func(obj any) {
		if t, ok := obj.(cache.DeletedFinalStateUnknown); ok {
			obj = t.Obj
		}
		if n, ok := obj.(*corev1.Node); ok {
			offer(k.gone, n.Name)
		}
	}})
	if err != nil {
		return nil, fmt.Errorf("nodelife: follow the nodes: %w", err)
	}
	look := func(p *corev1.Pod) {
		if p.DeletionTimestamp != nil && p.Spec.NodeName != "" {
			if _, err := k.nodes.Get(p.Spec.NodeName); apierrors.IsNotFound(err) {
				offer(k.ending, p)
			}
		}
	}
	hp, err := pods.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) { look(obj.(*corev1.Pod)) }, UpdateFunc: func(_, obj any) { look(obj.(*corev1.Pod)) },
	})
	if err != nil {
		return nil, fmt.Errorf("nodelife: follow the pods: %w", err)
	}
	k.synced = []cache.InformerSynced{hn.HasSynced, hp.HasSynced}
	return k, nil
}

// offer drops what does not fit: the next look finds it.
func offer[T any](c chan T, v T) {
	select {
	case c <- v:
	default:
	}
}

// Run works until ctx ends.
func (k *Controller) Run(ctx context.Context) error {
	if !cache.WaitForCacheSync(ctx.Done(), k.synced...) {
		return nil
	}
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case n := <-k.gone:
			if _, err := k.nodes.Get(n); err == nil {
				continue // it registered again
			}
			delete(k.beats, n)
			k.deletePods(ctx, n, true)
		case p := <-k.ending:
			k.endOrphan(ctx, p)
		case <-t.C:
			if err := k.look(ctx, time.Now()); err != nil && ctx.Err() == nil {
				k.c.Log.Warn("the nodes could not be looked at; it is tried again", "error", err)
			}
		}
	}
}

// look compares every Lease with when it was last seen to move.
func (k *Controller) look(ctx context.Context, now time.Time) error {
	nodes, err := k.nodes.List(labels.Everything())
	if err != nil || len(nodes) == 0 {
		return err
	}
	leases, err := k.c.Client.CoordinationV1().Leases(corev1.NamespaceNodeLease).List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return err
	}
	byName := map[string]*coordinationv1.Lease{}
	for i := range leases.Items {
		byName[leases.Items[i].Name] = &leases.Items[i]
	}
	var errs []error
	for _, n := range nodes {
		b := k.beats[n.Name]
		if l := byName[n.Name]; l != nil {
			var renewed time.Time
			if l.Spec.RenewTime != nil {
				renewed = l.Spec.RenewTime.Time
			}
			if b == nil || !renewed.Equal(b.renewed) {
				// What is seen first says nothing: it may be old.
				b = &beat{renewed: renewed, moved: now, live: b != nil, silent: b != nil && b.silent || b == nil && tainted(n)}
				k.beats[n.Name] = b
			}
		}
		if b != nil {
			errs = append(errs, k.judge(ctx, n, b, now))
		}
	}
	return errors.Join(errs...)
}

func (k *Controller) judge(ctx context.Context, n *corev1.Node, b *beat, now time.Time) error {
	silence := now.Sub(b.moved)
	switch {
	case silence < k.c.Grace:
		if !b.silent || !b.live {
			return nil
		}
		if err := k.taint(ctx, n.Name, false); err != nil {
			return err
		}
		k.c.Log.Info("a node is back", "node", n.Name)
		b.silent, b.evicted = false, false
	case !b.silent:
		if err := k.unknown(ctx, n); err != nil {
			return err
		}
		if err := k.taint(ctx, n.Name, true); err != nil {
			return err
		}
		k.event(n, "NodeNotReady", "Node "+n.Name+" status is now: NodeNotReady")
		k.c.Log.Warn("a node is silent; its pods are not ready", "node", n.Name, "for", silence)
		b.silent = true
		k.unready(ctx, n.Name)
	case silence >= k.c.Eviction && !b.evicted:
		k.c.Log.Warn("a node is silent for long; its pods are deleted", "node", n.Name, "for", silence)
		b.evicted = true
		k.deletePods(ctx, n.Name, false)
	default:
		k.unready(ctx, n.Name) // what could not be written before, or came since
	}
	return nil
}

func (k *Controller) event(n *corev1.Node, reason, message string) {
	if k.c.Events != nil {
		k.c.Events.Event(&corev1.ObjectReference{Kind: "Node", Name: n.Name, UID: types.UID(n.Name)}, corev1.EventTypeNormal, reason, message)
	}
}

func tainted(n *corev1.Node) bool {
	return slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == corev1.TaintNodeUnreachable })
}

// unknown writes that nothing is known of the node's state.
func (k *Controller) unknown(ctx context.Context, n *corev1.Node) error {
	now := metav1.Now()
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"conditions": []corev1.NodeCondition{{
		Type: corev1.NodeReady, Status: corev1.ConditionUnknown, Reason: "NodeStatusUnknown", Message: "The node agent stopped posting node status.", LastTransitionTime: now, LastHeartbeatTime: now,
	}}}})
	if err != nil {
		return err
	}
	_, err = k.c.Client.CoreV1().Nodes().Patch(ctx, n.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	return ignoreGone(err)
}

// taint adds or removes the taints of a node that cannot be reached.
func (k *Controller) taint(ctx context.Context, name string, on bool) error {
	n, err := k.c.Client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return ignoreGone(err)
	}
	taints := slices.DeleteFunc(slices.Clone(n.Spec.Taints), func(t corev1.Taint) bool { return t.Key == corev1.TaintNodeUnreachable })
	if on {
		now := metav1.Now()
		taints = append(taints, corev1.Taint{Key: corev1.TaintNodeUnreachable, Effect: corev1.TaintEffectNoSchedule, TimeAdded: &now},
			corev1.Taint{Key: corev1.TaintNodeUnreachable, Effect: corev1.TaintEffectNoExecute, TimeAdded: &now})
	}
	if len(taints) == len(n.Spec.Taints) {
		return nil
	}
	n.Spec.Taints = taints
	_, err = k.c.Client.CoreV1().Nodes().Update(ctx, n, metav1.UpdateOptions{})
	return ignoreGone(err)
}

func ignoreGone(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
