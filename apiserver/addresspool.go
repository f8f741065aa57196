package apiserver

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/registry/generic"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/storage/names"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
)

// poolStrategy is the logic of writing an AddressPool.
type poolStrategy struct {
	runtime.ObjectTyper
	names.NameGenerator
	// taken are the ranges that are not for pools.
	taken func() []netip.Prefix
}

func (poolStrategy) NamespaceScoped() bool                                            { return false }
func (poolStrategy) AllowCreateOnUpdate(context.Context) bool                         { return true }
func (poolStrategy) AllowUnconditionalUpdate(context.Context) bool                    { return true }
func (poolStrategy) Canonicalize(runtime.Object)                                      {}
func (poolStrategy) WarningsOnCreate(context.Context, runtime.Object) []string        { return nil }
func (poolStrategy) WarningsOnUpdate(_ context.Context, _, _ runtime.Object) []string { return nil }

// GetResetFields: what writers of the main resource cannot set.
func (poolStrategy) GetResetFields() map[fieldpath.APIVersion]*fieldpath.Set {
	return map[fieldpath.APIVersion]*fieldpath.Set{
		fieldpath.APIVersion(v1alpha1.GroupVersion.String()): fieldpath.NewSet(fieldpath.MakePathOrDie("status")),
	}
}

func (poolStrategy) PrepareForCreate(_ context.Context, obj runtime.Object) {
	p := obj.(*v1alpha1.AddressPool)
	p.Generation, p.Status = 1, v1alpha1.AddressPoolStatus{}
}

func (poolStrategy) PrepareForUpdate(_ context.Context, obj, old runtime.Object) {
	p, before := obj.(*v1alpha1.AddressPool), old.(*v1alpha1.AddressPool)
	p.Status = before.Status
	if !apiequality.Semantic.DeepEqual(p.Spec, before.Spec) {
		p.Generation = before.Generation + 1
	}
}

func (s poolStrategy) Validate(_ context.Context, obj runtime.Object) field.ErrorList {
	return v1alpha1.ValidateAddressPool(obj.(*v1alpha1.AddressPool), s.taken())
}

func (s poolStrategy) ValidateUpdate(_ context.Context, obj, _ runtime.Object) field.ErrorList {
	return v1alpha1.ValidateAddressPool(obj.(*v1alpha1.AddressPool), s.taken())
}

// poolStatusStrategy is that of the status subresource.
type poolStatusStrategy struct{ poolStrategy }

func (poolStatusStrategy) GetResetFields() map[fieldpath.APIVersion]*fieldpath.Set {
	return notOfStatus()
}

func (poolStatusStrategy) PrepareForUpdate(_ context.Context, obj, old runtime.Object) {
	p, before := obj.(*v1alpha1.AddressPool), old.(*v1alpha1.AddressPool)
	p.Spec, p.Labels = before.Spec, before.Labels
	metav1.ResetObjectMetaForStatus(&p.ObjectMeta, &before.ObjectMeta)
}

func (poolStatusStrategy) ValidateUpdate(_ context.Context, obj, _ runtime.Object) (errs field.ErrorList) {
	if s := obj.(*v1alpha1.AddressPool).Status; s.Used < 0 || s.Total < s.Used {
		errs = append(errs, field.Invalid(field.NewPath("status", "used"), s.Used, "must be between 0 and status.total"))
	}
	return errs
}

type poolREST struct{ *genericregistry.Store }

func (poolREST) ShortNames() []string { return []string{"pool"} }

func newAddressPoolStorage(s *runtime.Scheme, opts generic.RESTOptionsGetter, taken func() []netip.Prefix) (map[string]rest.Storage, error) {
	strategy := poolStrategy{s, names.SimpleNameGenerator, taken}
	attrs := func(obj runtime.Object) (labels.Set, fields.Set, error) {
		p, ok := obj.(*v1alpha1.AddressPool)
		if !ok {
			return nil, nil, fmt.Errorf("apiserver: %T is no AddressPool", obj)
		}
		return p.Labels, generic.ObjectMetaFieldsSet(&p.ObjectMeta, false), nil
	}
	return ownStorage(opts, ownKind{
		plural: "addresspools", singular: "addresspool", attrs: attrs, table: poolTable{},
		strategy: strategy, status: poolStatusStrategy{strategy},
		object: func() runtime.Object { return &v1alpha1.AddressPool{} }, list: func() runtime.Object { return &v1alpha1.AddressPoolList{} },
		rest: func(s *genericregistry.Store) rest.Storage { return poolREST{s} },
	})
}

// poolTable prints AddressPools as kubectl shows them.
type poolTable struct{}

func (poolTable) ConvertToTable(_ context.Context, obj, _ runtime.Object) (*metav1.Table, error) {
	t := &metav1.Table{ColumnDefinitions: []metav1.TableColumnDefinition{
		{Name: "Name", Type: "string", Format: "name"},
		{Name: "Addresses", Type: "string"},
		{Name: "Used", Type: "integer", Description: "Addresses that Services have"},
		{Name: "Total", Type: "integer"},
		{Name: "Auto", Type: "boolean", Description: "Services that do not ask for it get addresses of it"},
		{Name: "Age", Type: "string"},
	}}
	row := func(p *v1alpha1.AddressPool) {
		auto := p.Spec.AutoAssign == nil || *p.Spec.AutoAssign
		t.Rows = append(t.Rows, metav1.TableRow{Object: runtime.RawExtension{Object: p}, Cells: []any{
			p.Name, strings.Join(p.Spec.Addresses, ","), p.Status.Used, p.Status.Total, auto, age(p.CreationTimestamp.Time),
		}})
	}
	switch o := obj.(type) {
	case *v1alpha1.AddressPool:
		t.ResourceVersion = o.ResourceVersion
		row(o)
	case *v1alpha1.AddressPoolList:
		t.ResourceVersion, t.Continue, t.RemainingItemCount = o.ResourceVersion, o.Continue, o.RemainingItemCount
		for i := range o.Items {
			row(&o.Items[i])
		}
	default:
		return nil, fmt.Errorf("apiserver: %T is no AddressPool", obj)
	}
	return t, nil
}
