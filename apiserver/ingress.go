package apiserver

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	extensionsv1beta1 "k8s.io/api/extensions/v1beta1"
	networkingv1 "k8s.io/api/networking/v1"
	networkingv1beta1 "k8s.io/api/networking/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/admission"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	genericapiserver "k8s.io/apiserver/pkg/server"
	serverstorage "k8s.io/apiserver/pkg/server/storage"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/apis/networking"
	ingressstore "k8s.io/kubernetes/pkg/registry/networking/ingress/storage"
	"k8s.io/kubernetes/plugin/pkg/admission/network/defaultingressclass"
)

// Ingress is served in the versions of Kubernetes 1.14 to 1.21 as well, because
// manifests of that time are still about. Upstream kept their types and
// conversions when it stopped to serve them; they share the storage of v1.

// ingressVersions are the old versions that are served, and nothing else of
// their groups is.
func ingressVersions(rc *serverstorage.ResourceConfig) {
	rc.EnableResources(
		extensionsv1beta1.SchemeGroupVersion.WithResource("ingresses"),
		networkingv1beta1.SchemeGroupVersion.WithResource("ingresses"),
		networkingv1beta1.SchemeGroupVersion.WithResource("ingressclasses"),
	)
}

// oldIngress adds the old versions to the networking group, and gives the
// group that only has old ones.
func oldIngress(group *genericapiserver.APIGroupInfo) (*genericapiserver.APIGroupInfo, error) {
	v1 := group.VersionedResourcesStorageMap[networkingv1.SchemeGroupVersion.Version]
	ingresses, ok := v1["ingresses"].(*ingressstore.REST)
	if !ok || v1["ingresses/status"] == nil || v1["ingressclasses"] == nil {
		return nil, fmt.Errorf("apiserver: the networking group has no storage of Ingresses")
	}
	create, ok1 := ingresses.CreateStrategy.(ingressStrategy)
	update, ok2 := ingresses.UpdateStrategy.(ingressStrategy)
	if !ok1 || !ok2 {
		return nil, fmt.Errorf("apiserver: the strategies of Ingresses have other methods than expected")
	}
	ingresses.CreateStrategy, ingresses.UpdateStrategy = ingressOfVersion{create}, ingressOfVersion{update}

	group.VersionedResourcesStorageMap[networkingv1beta1.SchemeGroupVersion.Version] = map[string]rest.Storage{
		"ingresses": ingresses, "ingresses/status": v1["ingresses/status"], "ingressclasses": v1["ingressclasses"],
	}
	old := genericapiserver.NewDefaultAPIGroupInfo(extensionsv1beta1.GroupName, legacyscheme.Scheme, legacyscheme.ParameterCodec, legacyscheme.Codecs)
	old.VersionedResourcesStorageMap[extensionsv1beta1.SchemeGroupVersion.Version] = map[string]rest.Storage{
		"ingresses": extensionsIngress{ingresses}, "ingresses/status": v1["ingresses/status"],
	}
	return &old, nil
}

// extensionsIngress has no short name: kubectl warns of one that two groups
// have, each time.
type extensionsIngress struct{ *ingressstore.REST }

// ShortNames implements rest.ShortNamesProvider.
func (extensionsIngress) ShortNames() []string { return nil }

// preferNetworking puts the group with only old versions behind all others in
// discovery, so that "kubectl get ingress" means networking.k8s.io/v1.
func preferNetworking(g *genericapiserver.Config) {
	g.AggregatedDiscoveryGroupManager.SetGroupVersionPriority(metav1.GroupVersion(extensionsv1beta1.SchemeGroupVersion), 1, 1)
}

// ingressStrategy is what upstream's strategy of Ingresses can do.
type ingressStrategy interface {
	rest.RESTCreateStrategy
	rest.RESTUpdateStrategy
	rest.DeclarativeValidationStrategy
}

// ingressOfVersion validates as strictly as the version of a request was, and
// in its words: upstream knows those of v1 only.
type ingressOfVersion struct{ ingressStrategy }

func (s ingressOfVersion) Validate(ctx context.Context, obj runtime.Object) field.ErrorList {
	return inWordsOf(ctx, obj, s.ingressStrategy.Validate(ctx, obj))
}

func (s ingressOfVersion) ValidateUpdate(ctx context.Context, obj, old runtime.Object) field.ErrorList {
	return inWordsOf(ctx, obj, s.ingressStrategy.ValidateUpdate(ctx, obj, old))
}

func inWordsOf(ctx context.Context, obj runtime.Object, errs field.ErrorList) field.ErrorList {
	if len(errs) == 0 || !isOldIngress(ctx) {
		return errs
	}
	ingress, ok := obj.(*networking.Ingress)
	if !ok {
		return errs
	}
	kept := errs[:0:0]
	for _, e := range errs {
		if allowedOnce(ingress, e.Field) {
			continue
		}
		e := *e
		e.Field = oldField.Replace(e.Field)
		e.Detail = strings.ReplaceAll(e.Detail, "`defaultBackend`", "`backend`")
		kept = append(kept, &e)
	}
	return kept
}

func isOldIngress(ctx context.Context) bool {
	r, ok := genericapirequest.RequestInfoFrom(ctx)
	if !ok {
		return false
	}
	gv := schema.GroupVersion{Group: r.APIGroup, Version: r.APIVersion}
	return gv == extensionsv1beta1.SchemeGroupVersion || gv == networkingv1beta1.SchemeGroupVersion
}

var oldField = strings.NewReplacer(
	"spec.defaultBackend", "spec.backend",
	".service.name", ".serviceName", ".service.port.name", ".servicePort", ".service.port.number", ".servicePort",
)

var (
	secretNameField = regexp.MustCompile(`^spec\.tls\[\d+\]\.secretName$`)
	ruleField       = regexp.MustCompile(`^spec\.rules\[(\d+)\]\.http\b`)
)

// allowedOnce says whether the old versions did not look at a field: names of
// secrets, and what stands below a wildcard host.
func allowedOnce(i *networking.Ingress, path string) bool {
	if secretNameField.MatchString(path) {
		return true
	}
	m := ruleField.FindStringSubmatch(path)
	if m == nil {
		return false
	}
	n, err := strconv.Atoi(m[1])
	return err == nil && n < len(i.Spec.Rules) && strings.Contains(i.Spec.Rules[n].Host, "*")
}

// defaultClass is upstream's plugin for the default IngressClass, which does
// not know Ingresses of the group extensions: they would be nobody's.
type defaultClass struct{ admission.MutationInterface }

func withDefaultClass(p admission.Interface, name string) admission.Interface {
	if m, ok := p.(admission.MutationInterface); ok && name == defaultingressclass.PluginName {
		return defaultClass{m}
	}
	return p
}

// Admit implements admission.MutationInterface.
func (d defaultClass) Admit(ctx context.Context, a admission.Attributes, o admission.ObjectInterfaces) error {
	if a.GetResource().GroupResource() == extensionsv1beta1.Resource("ingresses") {
		a = networkingAttributes{a}
	}
	return d.MutationInterface.Admit(ctx, a, o)
}

type networkingAttributes struct{ admission.Attributes }

// GetResource implements admission.Attributes.
func (networkingAttributes) GetResource() schema.GroupVersionResource {
	return networkingv1.SchemeGroupVersion.WithResource("ingresses")
}
