package apiserver

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/registry/generic"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/storage"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
)

// ownKind is what the storage of one of our kinds differs by.
type ownKind struct {
	plural, singular string
	object, list     func() runtime.Object
	strategy, status ownStrategy
	attrs            storage.AttrFunc
	table            rest.TableConvertor
	rest             func(*genericregistry.Store) rest.Storage
}

type ownStrategy interface {
	rest.RESTCreateStrategy
	rest.RESTUpdateStrategy
	rest.RESTDeleteStrategy
	rest.ResetFieldsStrategy
}

// ownStorage makes the storage of a kind and of its status.
func ownStorage(opts generic.RESTOptionsGetter, k ownKind) (map[string]rest.Storage, error) {
	store := &genericregistry.Store{
		NewFunc:                   k.object,
		NewListFunc:               k.list,
		DefaultQualifiedResource:  schema.GroupResource{Group: v1alpha1.GroupName, Resource: k.plural},
		SingularQualifiedResource: schema.GroupResource{Group: v1alpha1.GroupName, Resource: k.singular},
		CreateStrategy:            k.strategy,
		UpdateStrategy:            k.strategy,
		DeleteStrategy:            k.strategy,
		ResetFieldsStrategy:       k.strategy,
		TableConvertor:            k.table,
		PredicateFunc: func(l labels.Selector, f fields.Selector) storage.SelectionPredicate {
			return storage.SelectionPredicate{Label: l, Field: f, GetAttrs: k.attrs}
		},
	}
	if err := store.CompleteWithOptions(&generic.StoreOptions{RESTOptions: opts, AttrFunc: k.attrs}); err != nil {
		return nil, err
	}
	status := *store
	status.UpdateStrategy, status.ResetFieldsStrategy = k.status, k.status
	return map[string]rest.Storage{k.plural: k.rest(store), k.plural + "/status": statusREST{&status}}, nil
}

// notOfStatus is what writers of a status do not own.
func notOfStatus() map[fieldpath.APIVersion]*fieldpath.Set {
	return map[fieldpath.APIVersion]*fieldpath.Set{
		fieldpath.APIVersion(v1alpha1.GroupVersion.String()): fieldpath.NewSet(fieldpath.MakePathOrDie("spec"), fieldpath.MakePathOrDie("metadata")),
	}
}

// statusREST is the status subresource of a kind.
type statusREST struct{ store *genericregistry.Store }

func (r statusREST) New() runtime.Object { return r.store.New() }
func (statusREST) Destroy()              {}
func (r statusREST) Get(ctx context.Context, name string, o *metav1.GetOptions) (runtime.Object, error) {
	return r.store.Get(ctx, name, o)
}
func (r statusREST) Update(ctx context.Context, name string, obj rest.UpdatedObjectInfo, c rest.ValidateObjectFunc, u rest.ValidateObjectUpdateFunc, _ bool, o *metav1.UpdateOptions) (runtime.Object, bool, error) {
	return r.store.Update(ctx, name, obj, c, u, false, o)
}
func (r statusREST) GetResetFields() map[fieldpath.APIVersion]*fieldpath.Set {
	return r.store.GetResetFields()
}
func (r statusREST) ConvertToTable(ctx context.Context, obj, opts runtime.Object) (*metav1.Table, error) {
	return r.store.ConvertToTable(ctx, obj, opts)
}
