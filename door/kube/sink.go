package kube

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
	"github.com/fingerpost/fingerpost/catalog"
)

// sink takes what a reflector reads, converts it at once and passes it on. It
// stores nothing.
type sink struct{ s *source }

var (
	_ cache.ReflectorStore         = sink{}
	_ cache.TransformingStore      = sink{}
	_ cache.ReflectorBookmarkStore = sink{}
)

func (k sink) Add(obj any) error    { return k.put(obj) }
func (k sink) Update(obj any) error { return k.put(obj) }

func (k sink) put(obj any) error {
	lean, err := k.s.lean(obj)
	if err != nil {
		return err
	}
	k.s.push(event{verb: put, obj: lean})
	return nil
}

func (k sink) Delete(obj any) error {
	lean, err := k.s.lean(obj)
	if err != nil {
		return err
	}
	k.s.push(event{verb: del, key: keyOf(lean)})
	return nil
}

func (k sink) Replace(objs []any, _ string) error {
	for i := range objs {
		lean, err := k.s.lean(objs[i])
		if err != nil {
			return err
		}
		objs[i] = lean
	}
	k.s.push(event{verb: replace, list: objs})
	return nil
}

// Resync has nothing to do: what was passed on was applied.
func (k sink) Resync() error { return nil }

// Bookmark is a sign of life.
func (k sink) Bookmark(string) error {
	k.s.d.live.heard()
	return nil
}

// Transformer makes the reflector keep lean objects, not full ones, while it
// collects a streamed list.
func (k sink) Transformer() cache.TransformFunc { return k.s.lean }

func (s *source) push(e event) {
	e.kind, e.at = s.kind, s.d.cfg.Now()
	s.d.live.heard()
	s.d.metrics.received(&e)
	s.d.queue.push(e)
}

// lean converts an object, and leaves one alone that is lean already.
func (s *source) lean(obj any) (any, error) {
	names := s.d.names
	switch o := obj.(type) {
	case *corev1.Service:
		return convertService(o), nil
	case *discoveryv1.EndpointSlice:
		sl := convertSlice(o, names)
		s.d.metrics.skip(sl.skipped)
		s.d.metrics.trigger(sl.trigger, s.d.cfg.Now)
		return sl, nil
	case *corev1.Namespace:
		return namespace(o.Name), nil
	case *v1alpha1.Instance:
		return convertInstance(o, names), nil
	case *corev1.Pod:
		return convertPod(o, names), nil
	case *catalog.Service, *slice, namespace, *subject:
		return o, nil
	}
	return nil, fmt.Errorf("door/kube: read %s: the server sent a %T", s.kind, obj)
}

// stale is the liveness monitor's message to the state.
func (d *Door) stale(since time.Time) {
	d.queue.push(event{kind: freshness, at: since})
}
