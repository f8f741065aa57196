package apiserver

import (
	"context"
	"fmt"
	"strings"
	"time"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/registry/generic"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/storage/names"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
)

// ownScheme knows the kinds of fingerpost.dev. The external type serves as the
// internal one too: there is one version, and a conversion of everything on
// every request would buy nothing.
func ownScheme() (*runtime.Scheme, serializer.CodecFactory, error) {
	s := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(s); err != nil {
		return nil, serializer.CodecFactory{}, err
	}
	internal := schema.GroupVersion{Group: v1alpha1.GroupName, Version: runtime.APIVersionInternal}
	s.AddKnownTypes(internal, &v1alpha1.Instance{}, &v1alpha1.InstanceList{}, &v1alpha1.Renewal{}, &v1alpha1.AddressPool{}, &v1alpha1.AddressPoolList{})
	if err := s.SetVersionPriority(v1alpha1.GroupVersion); err != nil {
		return nil, serializer.CodecFactory{}, err
	}
	metav1.AddToGroupVersion(s, schema.GroupVersion{Version: "v1"})
	s.AddUnversionedTypes(schema.GroupVersion{Version: "v1"}, &metav1.Status{}, &metav1.APIVersions{}, &metav1.APIGroupList{}, &metav1.APIGroup{}, &metav1.APIResourceList{})
	return s, serializer.NewCodecFactory(s, serializer.WithStreamingCollectionEncodingToJSON(), serializer.WithStreamingCollectionEncodingToProtobuf()), nil
}

// instanceStrategy is the logic of writing an Instance.
type instanceStrategy struct {
	runtime.ObjectTyper
	names.NameGenerator
	now func() time.Time
}

func (instanceStrategy) NamespaceScoped() bool                                            { return true }
func (instanceStrategy) AllowCreateOnUpdate(context.Context) bool                         { return true }
func (instanceStrategy) AllowUnconditionalUpdate(context.Context) bool                    { return true }
func (instanceStrategy) Canonicalize(runtime.Object)                                      {}
func (instanceStrategy) WarningsOnCreate(context.Context, runtime.Object) []string        { return nil }
func (instanceStrategy) WarningsOnUpdate(_ context.Context, _, _ runtime.Object) []string { return nil }

// GetResetFields: what writers of the main resource cannot set.
func (instanceStrategy) GetResetFields() map[fieldpath.APIVersion]*fieldpath.Set {
	return map[fieldpath.APIVersion]*fieldpath.Set{
		fieldpath.APIVersion(v1alpha1.GroupVersion.String()): fieldpath.NewSet(fieldpath.MakePathOrDie("status")),
	}
}

func (s instanceStrategy) PrepareForCreate(_ context.Context, obj runtime.Object) {
	in := obj.(*v1alpha1.Instance)
	in.Generation = 1
	in.Status = v1alpha1.InstanceStatus{}
	defaultInstance(in)
	v1alpha1.Evaluate(in, s.now())
}

func (s instanceStrategy) PrepareForUpdate(_ context.Context, obj, old runtime.Object) {
	in, before := obj.(*v1alpha1.Instance), old.(*v1alpha1.Instance)
	defaultInstance(in)
	in.Status = *before.Status.DeepCopy()
	if !apiequality.Semantic.DeepEqual(in.Spec, before.Spec) {
		in.Generation = before.Generation + 1
	}
	if !apiequality.Semantic.DeepEqual(in.Spec.Check, before.Spec.Check) {
		in.Status.Check = nil // the old check's result says nothing about the new one
	}
	pruneExpired(in)
	v1alpha1.Evaluate(in, s.now())
}

func (instanceStrategy) Validate(_ context.Context, obj runtime.Object) field.ErrorList {
	return v1alpha1.Validate(obj.(*v1alpha1.Instance))
}

func (instanceStrategy) ValidateUpdate(_ context.Context, obj, old runtime.Object) field.ErrorList {
	return v1alpha1.ValidateUpdate(obj.(*v1alpha1.Instance), old.(*v1alpha1.Instance))
}

func defaultInstance(in *v1alpha1.Instance) {
	for i := range in.Spec.Ports {
		if in.Spec.Ports[i].Protocol == "" {
			in.Spec.Ports[i].Protocol = "TCP"
		}
	}
	if in.Labels[v1alpha1.LabelService] != in.Spec.Service && len(in.Spec.Service) <= 63 {
		if in.Labels == nil {
			in.Labels = map[string]string{}
		}
		in.Labels[v1alpha1.LabelService] = in.Spec.Service
	}
}

// pruneExpired forgets the expiry of claims that are gone.
func pruneExpired(in *v1alpha1.Instance) {
	kept := in.Status.Expired[:0]
	for _, e := range in.Status.Expired {
		ttlCheck := e.Door == "" && e.ID == "" && in.Spec.Check != nil && in.Spec.Check.Type == v1alpha1.CheckTTL
		for i := range in.Spec.Claims {
			if c := &in.Spec.Claims[i]; c.Door == e.Door && c.ID == e.ID && c.TTL != nil {
				ttlCheck = true
			}
		}
		if ttlCheck {
			kept = append(kept, e)
		}
	}
	in.Status.Expired = kept
}

// statusStrategy is that of the status subresource.
type statusStrategy struct{ instanceStrategy }

func (statusStrategy) GetResetFields() map[fieldpath.APIVersion]*fieldpath.Set { return notOfStatus() }

func (s statusStrategy) PrepareForUpdate(_ context.Context, obj, old runtime.Object) {
	in, before := obj.(*v1alpha1.Instance), old.(*v1alpha1.Instance)
	in.Spec = before.Spec
	in.Labels = before.Labels
	metav1.ResetObjectMetaForStatus(&in.ObjectMeta, &before.ObjectMeta)
	// Derived fields are nobody's to write.
	health := before.Status.Health
	in.Status.Health = health
	pruneExpired(in)
	v1alpha1.Evaluate(in, s.now())
}

func (statusStrategy) ValidateUpdate(_ context.Context, obj, _ runtime.Object) field.ErrorList {
	in := obj.(*v1alpha1.Instance)
	errs := metav1validation.ValidateManagedFields(in.ManagedFields, field.NewPath("metadata", "managedFields"))
	if c := in.Status.Check; c != nil {
		switch c.State {
		case v1alpha1.HealthPassing, v1alpha1.HealthFailing, v1alpha1.HealthStarting, v1alpha1.HealthExpired, v1alpha1.HealthStale:
		default:
			errs = append(errs, field.NotSupported(field.NewPath("status", "check", "state"), c.State, []string{"Passing", "Failing", "Starting", "Expired", "Stale"}))
		}
	}
	return errs
}

// instanceREST is the storage of Instances.
type instanceREST struct{ *genericregistry.Store }

func (instanceREST) ShortNames() []string { return []string{"inst"} }
func (instanceREST) Categories() []string { return []string{"all"} }

func newInstanceStorage(s *runtime.Scheme, opts generic.RESTOptionsGetter) (map[string]rest.Storage, error) {
	strategy := instanceStrategy{s, names.SimpleNameGenerator, time.Now}
	return ownStorage(opts, ownKind{
		plural: "instances", singular: "instance", attrs: instanceAttrs, table: instanceTable{},
		strategy: strategy, status: statusStrategy{strategy},
		object: func() runtime.Object { return &v1alpha1.Instance{} }, list: func() runtime.Object { return &v1alpha1.InstanceList{} },
		rest: func(s *genericregistry.Store) rest.Storage { return instanceREST{s} },
	})
}

func instanceAttrs(obj runtime.Object) (labels.Set, fields.Set, error) {
	in, ok := obj.(*v1alpha1.Instance)
	if !ok {
		return nil, nil, fmt.Errorf("apiserver: %T is no Instance", obj)
	}
	return in.Labels, generic.ObjectMetaFieldsSet(&in.ObjectMeta, true), nil
}

// instanceTable prints Instances as kubectl shows them.
type instanceTable struct{}

func (instanceTable) ConvertToTable(_ context.Context, obj, _ runtime.Object) (*metav1.Table, error) {
	t := &metav1.Table{ColumnDefinitions: []metav1.TableColumnDefinition{
		{Name: "Name", Type: "string", Format: "name"},
		{Name: "Service", Type: "string", Description: "The service it is an endpoint of"},
		{Name: "Address", Type: "string"},
		{Name: "Ports", Type: "string"},
		{Name: "Ready", Type: "boolean", Description: "New traffic may go to it"},
		{Name: "Health", Type: "string", Description: "The last word on its health"},
		{Name: "Age", Type: "string"},
		{Name: "Since", Type: "string", Priority: 1, Description: "How long the health is what it is"},
		{Name: "By", Type: "string", Priority: 1, Description: "Who says so"},
		{Name: "Reason", Type: "string", Priority: 1},
		{Name: "Doors", Type: "string", Priority: 1, Description: "How it registered"},
		{Name: "Node", Type: "string", Priority: 1},
	}}
	row := func(in *v1alpha1.Instance) {
		t.Rows = append(t.Rows, metav1.TableRow{Object: runtime.RawExtension{Object: in}, Cells: []any{
			in.Name, in.Spec.Service, in.Spec.Address, portsText(in.Spec.Ports), in.Status.Ready, string(in.Status.Health.State), age(in.CreationTimestamp.Time),
			age(in.Status.Health.Since.Time), in.Status.Health.By, in.Status.Health.Reason, in.Doors(), in.Spec.NodeName,
		}})
	}
	switch o := obj.(type) {
	case *v1alpha1.Instance:
		t.ResourceVersion = o.ResourceVersion
		row(o)
	case *v1alpha1.InstanceList:
		t.ResourceVersion, t.Continue, t.RemainingItemCount = o.ResourceVersion, o.Continue, o.RemainingItemCount
		for i := range o.Items {
			row(&o.Items[i])
		}
	default:
		return nil, fmt.Errorf("apiserver: %T is no Instance", obj)
	}
	return t, nil
}

func portsText(ports []v1alpha1.InstancePort) string {
	if len(ports) == 0 {
		return "<none>"
	}
	var b strings.Builder
	for i, p := range ports {
		if i > 0 {
			b.WriteByte(',')
		}
		if p.Name != "" {
			b.WriteString(p.Name + ":")
		}
		fmt.Fprintf(&b, "%d/%s", p.Port, p.Protocol)
	}
	return b.String()
}

func age(t time.Time) string {
	if t.IsZero() {
		return "<unknown>"
	}
	return duration.HumanDuration(time.Since(t))
}
