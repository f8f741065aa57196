package endpointslice

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// errAgain is a failure that the watch is about to explain: no reason to worry
// anybody.
var errAgain = errors.New("the slice was changed by somebody else meanwhile")

// parallel is how many slices of one service are written at once.
const parallel = 4

// write performs the writes and tells the layout what became of them.
// Removals go last, and not at all when something before them failed: no
// endpoint may be missing in between.
func (c *Controller) write(ctx context.Context, s *service, svc *corev1.Service, ops []op) error {
	answers := make([]*discoveryv1.EndpointSlice, len(ops))
	errs := make([]error, len(ops))
	puts := 0
	for puts < len(ops) && ops[puts].verb != remove {
		puts++
	}
	each(puts, func(i int) { answers[i], errs[i] = c.put(ctx, &ops[i]) })
	s.lastWrite = c.cfg.Now()
	l := s.layout
	var failed error
	for i := range ops[:puts] {
		switch err := errs[i]; {
		case err == nil:
			c.metrics.writes.WithLabelValues(verbs[ops[i].verb]).Inc()
			l.written(ops[i].slice, answers[i])
		case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
			// Nothing can be created there any more; the Service will go too.
		case ops[i].verb == update && apierrors.IsNotFound(err):
			l.gone(ops[i].obj.Name)
			failed = errors.Join(failed, errAgain)
		case ops[i].verb == update && apierrors.IsConflict(err):
			failed = errors.Join(failed, errAgain)
		default:
			failed = errors.Join(failed, fmt.Errorf("controller/endpointslice: %s slice %s of service %s: %w",
				verbs[ops[i].verb], ops[i].obj.Name, s.NamespacedName, err))
		}
	}
	if failed == nil {
		each(len(ops)-puts, func(i int) { errs[puts+i] = c.delete(ctx, &ops[puts+i]) })
		for i := puts; i < len(ops); i++ {
			if err := errs[i]; err != nil {
				failed = errors.Join(failed, fmt.Errorf("controller/endpointslice: delete slice %s of service %s: %w",
					ops[i].obj.Name, s.NamespacedName, err))
				continue
			}
			c.metrics.writes.WithLabelValues(verbs[remove]).Inc()
			name := ops[i].obj.Name
			delete(l.condemned, name)
			c.bury(s, name)
		}
	}
	if failed != nil {
		c.metrics.errors.Inc()
		if svc != nil && c.cfg.Events != nil && !errors.Is(failed, errAgain) {
			c.cfg.Events.Eventf(svc, corev1.EventTypeWarning, "FailedToUpdateEndpointSlices",
				"Error updating Endpoint Slices for Service %s: %v", s.NamespacedName, failed)
		}
	}
	return failed
}

// bury remembers a slice that we deleted until the watch says so too: what it
// says of it before is old news.
func (c *Controller) bury(s *service, name string) {
	if s.dead == nil {
		s.dead = map[string]struct{}{}
	}
	s.dead[name] = struct{}{}
	if len(s.dead) <= 16 {
		return
	}
	for old := range s.dead { // the watch was faster than the answer: nothing more will come
		if _, ok, _ := c.cfg.Slices.GetIndexer().GetByKey(s.Namespace + "/" + old); !ok && old != name {
			delete(s.dead, old)
		}
	}
}

func (c *Controller) put(ctx context.Context, o *op) (*discoveryv1.EndpointSlice, error) {
	api := c.cfg.Client.DiscoveryV1().EndpointSlices(o.obj.Namespace)
	if o.verb == create {
		return api.Create(ctx, o.obj, metav1.CreateOptions{})
	}
	return api.Update(ctx, o.obj, metav1.UpdateOptions{})
}

func (c *Controller) delete(ctx context.Context, o *op) error {
	uid := o.obj.UID
	err := c.cfg.Client.DiscoveryV1().EndpointSlices(o.obj.Namespace).Delete(ctx, o.obj.Name,
		metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // gone, or another object of that name
	}
	return err
}

// each runs f for 0 to n-1, several at once if there are several.
func each(n int, f func(i int)) {
	if n <= 1 {
		if n == 1 {
			f(0)
		}
		return
	}
	var g errgroup.Group
	g.SetLimit(parallel)
	for i := range n {
		g.Go(func() error { f(i); return nil })
	}
	_ = g.Wait()
}
