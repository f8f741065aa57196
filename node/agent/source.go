package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/fingerpost/fingerpost/node/runtime"
)

// followPods watches the pods bound to this node and hands each to its worker.
// With the API away, those that an earlier agent kept come first.
func (a *Agent) followPods(ctx context.Context, found []runtime.Pod, away bool) error {
	runs := make(map[string]runtime.Pod, len(found))
	for _, r := range found {
		runs[r.Config.UID] = r
	}
	pods := a.cfg.Client.CoreV1().Pods(metav1.NamespaceAll)
	selector := "spec.nodeName=" + a.cfg.NodeName
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (kruntime.Object, error) {
			o.FieldSelector = selector
			return pods.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = selector
			return pods.Watch(ctx, o)
		},
	}
	store, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.ToListWatcherWithWatchListSemantics(lw, a.cfg.Client),
		ObjectType:    &corev1.Pod{},
		Transform: func(obj any) (any, error) {
			if p, ok := obj.(*corev1.Pod); ok {
				p.ManagedFields = nil
			}
			return obj, nil
		},
		Handler: cache.ResourceEventHandlerDetailedFuncs{
			AddFunc: func(obj any, initial bool) {
				p := obj.(*corev1.Pod)
				switch {
				case p.Spec.NodeName != a.cfg.NodeName:
				case initial:
					a.see(p, runs)
				default:
					a.see(p, nil)
				}
			},
			UpdateFunc: func(_, obj any) {
				if p := obj.(*corev1.Pod); p.Spec.NodeName == a.cfg.NodeName {
					a.see(p, nil)
				}
			},
			DeleteFunc: func(obj any) {
				if t, ok := obj.(cache.DeletedFinalStateUnknown); ok {
					obj = t.Obj
				}
				if p, ok := obj.(*corev1.Pod); ok {
					a.vanished(p)
				}
			},
		},
	})
	known := a.kept.pods()
	if away {
		a.goOn(known, runs)
	}
	done := make(chan struct{})
	a.wg.Go(func() {
		defer close(done)
		informer.RunWithContext(ctx)
	})
	if !away && len(known) > 0 { // it may go away any time
		try, cancel := context.WithTimeout(ctx, apiPatience)
		if away = !cache.WaitForCacheSync(try.Done(), informer.HasSynced); away && ctx.Err() == nil {
			a.goOn(known, runs)
		}
		cancel()
	}
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		return ctx.Err()
	}
	if away { // only now one sees who was deleted meanwhile
		for _, p := range a.all() {
			if _, is, err := store.GetByKey(p.namespace + "/" + p.name); err == nil && !is {
				p.vanish(p.current())
			}
		}
	} else {
		close(a.ready)
	}
	a.sweep(ctx, found)
	a.wg.Go(func() { a.sweepAgain(ctx) })
	<-done
	return ctx.Err()
}

// goOn runs the pods of an earlier agent without the API.
func (a *Agent) goOn(known []*corev1.Pod, runs map[string]runtime.Pod) {
	a.cfg.Log.Info("pods are taken over from disk", "pods", len(known))
	for _, p := range known {
		a.see(p, runs)
	}
	close(a.ready)
}

// see hands a pod to its worker, a new one if needed. What already runs of it
// is taken over.
func (a *Agent) see(obj *corev1.Pod, runs map[string]runtime.Pod) {
	a.seeing.Lock()
	defer a.seeing.Unlock()
	uid := string(obj.UID)
	a.mu.Lock()
	p := a.pods[uid]
	fresh := p == nil
	if fresh {
		p = newPod(a, obj)
		a.pods[uid] = p
	}
	a.mu.Unlock()
	if !fresh {
		p.update(obj)
		return
	}
	if r, ok := runs[uid]; ok {
		p.takeOver(r.Containers)
	} else {
		p.takeOver(nil)
	}
	a.wg.Go(func() { p.run(a.ctx) })
}

func (a *Agent) vanished(obj *corev1.Pod) {
	if p := a.byUID(string(obj.UID)); p != nil {
		p.vanish(obj)
	}
}

// forget drops a pod of which nothing is left.
func (a *Agent) forget(p *pod) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.pods[p.uid] == p {
		delete(a.pods, p.uid)
	}
}

// sweep removes what was there before this agent and has no pod any more.
func (a *Agent) sweep(ctx context.Context, found []runtime.Pod) {
	for _, r := range found {
		uid := r.Config.UID
		if a.byUID(uid) != nil {
			continue
		}
		a.cfg.Log.Info("a pod was deleted while nobody looked: it is removed", "pod", r.Config.Namespace+"/"+r.Config.Name, "uid", uid)
		a.wg.Go(func() {
			if err := a.remove(ctx, uid, r.Containers); err != nil && ctx.Err() == nil {
				a.cfg.Log.Error("remove a pod that is gone", "uid", uid, "error", err)
			}
		})
	}
	if err := a.sweepRest(ctx, found); err != nil {
		a.cfg.Log.Error("clean up after pods that are gone", "error", err)
	}
}

// remove ends a pod without a worker, with a short grace.
func (a *Agent) remove(ctx context.Context, uid string, containers []runtime.Container) error {
	const grace = 5 * time.Second
	for _, c := range containers {
		if c.Running() {
			if err := a.rt.StopContainer(ctx, c.ID, grace); err != nil {
				a.cfg.Log.Warn("stop a container", "container", c.ID.Name, "error", err)
			}
		}
	}
	return a.clean(ctx, uid, true)
}

// clean takes everything of a pod from the machine; logs only if all is set.
func (a *Agent) clean(ctx context.Context, uid string, all bool) error {
	var errs []error
	// A runtime removes the logs that it knows of; those of a pod that is over
	// are read until its object is deleted.
	logs := filepath.Join(a.cfg.podDir(uid), "logs")
	kept := logs + ".kept"
	if !all {
		if err := os.Rename(logs, kept); err != nil && !os.IsNotExist(err) && !os.IsExist(err) {
			return fmt.Errorf("agent: keep the logs of pod %s: %w", uid, err)
		}
	}
	if err := a.rt.RemovePod(ctx, uid); err != nil {
		return fmt.Errorf("agent: remove pod %s: %w", uid, err) // its mounts may be in use
	}
	if !all {
		_ = os.Remove(logs) // the runtime may have left it empty
		err := os.Rename(kept, logs)
		if os.IsExist(err) { // a run that ended meanwhile has written another log
			err = merge(kept, logs)
		}
		if err != nil && !os.IsNotExist(err) {
			errs = append(errs, fmt.Errorf("agent: keep the logs of pod %s: %w", uid, err))
		}
	}
	if a.network != nil {
		errs = append(errs, a.network.SetHostPorts(uid, nil), a.network.Detach(ctx, uid))
	}
	errs = append(errs, a.removeFiles(uid, all))
	return errors.Join(errs...)
}

// merge moves the logs of a pod's containers to those that are there.
func merge(from, to string) error {
	files, err := filepath.Glob(filepath.Join(from, "*", "*"))
	errs := []error{err}
	for _, f := range files {
		name, err := filepath.Rel(from, f)
		if err == nil {
			err = os.MkdirAll(filepath.Dir(filepath.Join(to, name)), 0o755)
		}
		if err == nil {
			err = os.Rename(f, filepath.Join(to, name))
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return os.RemoveAll(from)
}
