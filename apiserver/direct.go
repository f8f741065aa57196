package apiserver

import (
	"sync"

	etcd "go.etcd.io/etcd/client/v3/kubernetes"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/cacher"
	"k8s.io/apiserver/pkg/storage/etcd3"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/apiserver/pkg/storage/storagebackend/factory"
	"k8s.io/apiserver/pkg/storage/value/encrypt/identity"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"

	"github.com/fingerpost/fingerpost/store"
)

// directStorage puts storages on the embedded etcd's in-process client instead
// of one gRPC connection each. Nil: the store is external, nothing is changed.
type directStorage struct {
	client    *etcd.Client
	compactor etcd3.Compactor
}

// uncached resources have no watch cache: they are many, short-lived, and
// hardly watched.
var uncached = []schema.GroupResource{{Resource: "events"}, {Group: "events.k8s.io", Resource: "events"}}

func newDirectStorage(s *store.Store) *directStorage {
	c := s.Direct()
	if c == nil {
		return nil
	}
	c.KV = etcd3.NewETCDLatencyTracker(c.KV)
	return &directStorage{c, etcd3.NewCompactor(c.Client, storagebackend.DefaultCompactInterval, clock.RealClock{}, nil)}
}

// options replaces how a getter's storages are made.
func (d *directStorage) options(g generic.RESTOptionsGetter) generic.RESTOptionsGetter {
	if d == nil {
		return g
	}
	return directOptions{g, d}
}

type directOptions struct {
	generic.RESTOptionsGetter
	direct *directStorage
}

// GetRESTOptions is that of the wrapped getter, but for the decorator.
func (o directOptions) GetRESTOptions(r schema.GroupResource, example runtime.Object) (generic.RESTOptions, error) {
	opts, err := o.RESTOptionsGetter.GetRESTOptions(r, example)
	if err != nil {
		return opts, err
	}
	direct := o.direct
	if r == (schema.GroupResource{Resource: "services"}) {
		direct = &directStorage{newPairing(direct.client), direct.compactor}
	}
	opts.Decorator = direct.decorator(true)
	for _, u := range uncached {
		if r == u {
			opts.Decorator = direct.decorator(false)
		}
	}
	return opts, nil
}

// decorator makes a storage, with or without a watch cache before it.
func (d *directStorage) decorator(cached bool) generic.StorageDecorator {
	return func(c *storagebackend.ConfigForResource, prefix string, keyFunc func(runtime.Object) (string, error), newFunc, newListFunc func() runtime.Object,
		attrs storage.AttrFunc, trigger storage.IndexerFuncs, indexers *cache.Indexers) (storage.Interface, factory.DestroyFunc, error) {
		versioner := storage.APIObjectVersioner{}
		transformer := c.Transformer
		if transformer == nil {
			transformer = identity.NewEncryptCheckTransformer()
		}
		raw, err := etcd3.New(d.client, d.compactor, c.Codec, newFunc, newListFunc, c.Prefix, prefix, c.GroupResource,
			transformer, c.LeaseManagerConfig, etcd3.NewDefaultDecoder(c.Codec, versioner), versioner)
		if err != nil {
			return nil, nil, err
		}
		var once sync.Once
		if !cached {
			return raw, func() { once.Do(raw.Close) }, nil
		}
		ca, err := cacher.NewCacherFromConfig(cacher.Config{
			Storage: raw, Versioner: versioner, GroupResource: c.GroupResource, EventsHistoryWindow: c.EventsHistoryWindow,
			ResourcePrefix: prefix, KeyFunc: keyFunc, NewFunc: newFunc, NewListFunc: newListFunc, GetAttrsFunc: attrs,
			IndexerFuncs: trigger, Indexers: indexers, Codec: c.Codec,
		})
		if err != nil {
			raw.Close()
			return nil, nil, err
		}
		delegate := cacher.NewCacheDelegator(ca, raw)
		return delegate, func() {
			once.Do(func() {
				delegate.Stop()
				ca.Stop()
				raw.Close()
			})
		}, nil
	}
}
