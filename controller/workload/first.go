package workload

import (
	"context"
	"fmt"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	corev1informers "k8s.io/client-go/informers/core/v1"
	corev1listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"
)

// kinds whose first object starts the controllers.
func kinds() []schema.GroupVersionResource {
	apps, batch := appsv1.SchemeGroupVersion, batchv1.SchemeGroupVersion
	return []schema.GroupVersionResource{
		corev1.SchemeGroupVersion.WithResource("pods"), corev1.SchemeGroupVersion.WithResource("replicationcontrollers"),
		apps.WithResource("deployments"), apps.WithResource("replicasets"), apps.WithResource("statefulsets"), apps.WithResource("daemonsets"),
		batch.WithResource("jobs"), batch.WithResource("cronjobs"),
	}
}

// watchAgain is the wait before a watch that could not be opened is tried again.
const watchAgain = time.Second

// awaitFirst returns when an object of one of the kinds exists.
func (w *Controllers) awaitFirst(ctx context.Context) error {
	md, err := metadata.NewForConfig(w.c.Rest)
	if err != nil {
		return fmt.Errorf("workload: %w", err)
	}
	found, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	for _, k := range kinds() {
		wg.Go(func() {
			for found.Err() == nil {
				if exists(found, md.Resource(k)) {
					stop()
				} else {
					pause(found, watchAgain)
				}
			}
		})
	}
	wg.Wait()
	return nil
}

// exists watches until there is an object, or the watch ends. A watch without a
// version begins with what exists.
func exists(ctx context.Context, r metadata.Getter) bool {
	w, err := r.Watch(ctx, metav1.ListOptions{})
	if err != nil {
		return false
	}
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case e, ok := <-w.ResultChan():
			switch {
			case !ok || e.Type == watch.Error:
				return false
			case e.Type == watch.Added || e.Type == watch.Modified:
				return true
			}
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// noClaims is the informer of a kind that is not served: always empty.
func noClaims() corev1informers.PersistentVolumeClaimInformer {
	return &claims{cache.NewSharedIndexInformer(&cache.ListWatch{}, &corev1.PersistentVolumeClaim{}, 0, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})}
}

type claims struct{ never cache.SharedIndexInformer }

// Informer gives one that nobody starts and that counts as read.
func (c *claims) Informer() cache.SharedIndexInformer { return empty{c.never} }

// Lister implements corev1informers.PersistentVolumeClaimInformer.
func (c *claims) Lister() corev1listers.PersistentVolumeClaimLister {
	return corev1listers.NewPersistentVolumeClaimLister(c.never.GetIndexer())
}

type empty struct{ cache.SharedIndexInformer }

// HasSynced is true: there is nothing to read.
func (empty) HasSynced() bool { return true }
