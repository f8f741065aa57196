// Package queue is what controllers here have in common: informers whose
// changes name keys, a queue of the keys, and workers that look at each.
//
// Guarantees: nothing is worked on before every informer followed has delivered
// what there is; a key is worked on by one worker at a time, and again if it was
// added meanwhile; Run returns when its context has ended and the last worker is
// done.
package queue

import (
	"context"
	"log/slog"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

// Queue holds keys to be looked at. Make it with New.
type Queue[K comparable] struct {
	workqueue.TypedRateLimitingInterface[K]
	synced []cache.DoneChecker
}

// New makes a queue. A key that failed waits for first, then twice as long with
// each failure, and never longer than most.
func New[K comparable](first, most time.Duration) *Queue[K] {
	return &Queue[K]{TypedRateLimitingInterface: workqueue.NewTypedRateLimitingQueue(
		workqueue.NewTypedItemExponentialFailureRateLimiter[K](first, most))}
}

// Follow calls changed for each change of an informer's objects: without the
// former object if one is new, without the present one if it is gone. It is
// called by one goroutine.
func Follow[T any, K comparable](q *Queue[K], inf cache.SharedIndexInformer, changed func(old, cur *T)) error {
	r, err := inf.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) {
			if o, ok := obj.(*T); ok {
				changed(nil, o)
			}
		},
		UpdateFunc: func(old, cur any) {
			o, ok1 := old.(*T)
			n, ok2 := cur.(*T)
			if ok1 && ok2 {
				changed(o, n)
			}
		},
		DeleteFunc: func(obj any) {
			if d, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = d.Obj
			}
			if o, ok := obj.(*T); ok {
				changed(o, nil)
			}
		},
	})
	if err == nil {
		q.synced = append(q.synced, r.HasSyncedChecker())
	}
	return err
}

// Run waits for the informers, and lets workers look at keys until ctx is done.
func (q *Queue[K]) Run(ctx context.Context, workers int, work func(context.Context, K)) {
	defer q.ShutDown()
	if cache.WaitFor(ctx, "", q.synced...) { // else stopped before it began
		q.Work(ctx, workers, work)
	}
}

// Work is Run for those who waited already.
func (q *Queue[K]) Work(ctx context.Context, workers int, work func(context.Context, K)) {
	defer q.ShutDown()
	stop := context.AfterFunc(ctx, q.ShutDown)
	defer stop()
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for {
				k, quit := q.Get()
				if quit {
					return
				}
				work(ctx, k)
				q.Done(k)
			}
		})
	}
	wg.Wait()
}

// Settle ends work on a key: what failed comes again, later each time, and is
// told of. Conflicts are told of only if they do not end: somebody else wrote
// first, and the watch will show what.
func (q *Queue[K]) Settle(ctx context.Context, log *slog.Logger, k K, cannot string, err error) {
	switch {
	case err == nil:
		q.Forget(k)
	case ctx.Err() == nil:
		q.AddRateLimited(k)
		if n := q.NumRequeues(k); !apierrors.IsConflict(err) || n > 5 {
			log.Warn("cannot "+cannot+", trying again", "name", k, "attempt", n, "error", err)
		}
	}
}
