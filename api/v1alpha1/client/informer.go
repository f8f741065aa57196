package client

import (
	"context"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
)

// IndexService is the index of an informer made by [NewInformer] that finds
// the Instances of a service; its values are "namespace/service".
const IndexService = "fingerpost.dev/service"

// NewInformer makes an informer of the Instances of a namespace ("": all),
// indexed by namespace and by service. The transform, if any, sees each object
// before it is stored. Nothing is read until it runs.
func NewInformer(c *Client, namespace string, resync time.Duration, transform cache.TransformFunc) (cache.SharedIndexInformer, error) {
	api := c.Instances(namespace)
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return api.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return api.Watch(ctx, o)
		},
	}
	inf := cache.NewSharedIndexInformer(lw, &v1alpha1.Instance{}, resync, cache.Indexers{
		cache.NamespaceIndex: cache.MetaNamespaceIndexFunc,
		IndexService:         ServiceIndexFunc,
	})
	if transform != nil {
		if err := inf.SetTransform(transform); err != nil {
			return nil, err
		}
	}
	return inf, nil
}

// ServiceIndexFunc is the index function of [IndexService].
func ServiceIndexFunc(obj any) ([]string, error) {
	in, ok := obj.(*v1alpha1.Instance)
	if !ok || in.Spec.Service == "" {
		return nil, nil
	}
	return []string{in.Namespace + "/" + in.Spec.Service}, nil
}

// Lister reads Instances from an informer's store. The objects are shared:
// copy before changing.
type Lister struct{ indexer cache.Indexer }

// NewLister reads from an informer's store.
func NewLister(indexer cache.Indexer) Lister { return Lister{indexer} }

// Get gives one Instance; the error is a NotFound of the API.
func (l Lister) Get(namespace, name string) (*v1alpha1.Instance, error) {
	obj, ok, err := l.indexer.GetByKey(namespace + "/" + name)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, apierrors.NewNotFound(v1alpha1.GroupVersion.WithResource(Resource).GroupResource(), name)
	}
	return obj.(*v1alpha1.Instance), nil
}

// List gives the Instances of a namespace ("": all) that match.
func (l Lister) List(namespace string, selector labels.Selector) ([]*v1alpha1.Instance, error) {
	var all []*v1alpha1.Instance
	err := cache.ListAllByNamespace(l.indexer, namespace, selector, func(obj any) {
		all = append(all, obj.(*v1alpha1.Instance))
	})
	return all, err
}

// OfService gives the Instances of a service, in no order.
func (l Lister) OfService(namespace, service string) ([]*v1alpha1.Instance, error) {
	objs, err := l.indexer.ByIndex(IndexService, namespace+"/"+service)
	if err != nil {
		return nil, err
	}
	all := make([]*v1alpha1.Instance, len(objs))
	for i := range objs {
		all[i] = objs[i].(*v1alpha1.Instance)
	}
	return all, nil
}
