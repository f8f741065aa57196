package apiserver

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1beta1"
	apiextensionsapiserver "k8s.io/apiextensions-apiserver/pkg/apiserver"
	apiextensionsoptions "k8s.io/apiextensions-apiserver/pkg/cmd/server/options"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/client-go/tools/cache"
	"k8s.io/kube-openapi/pkg/spec3"
)

// newCRDs makes the server of custom resources, which stands behind ours: what
// we do not know, it is asked for.
func newCRDs(b *base, auth webhook.AuthenticationInfoResolverWrapper, resolver webhook.ServiceResolver) (*apiextensionsapiserver.CustomResourceDefinitions, error) {
	g := *b.generic
	g.PostStartHooks = map[string]genericapiserver.PostStartHookConfigEntry{}
	g.RESTOptionsGetter = nil
	g.MergedResourceConfig = apiextensionsapiserver.DefaultAPIResourceConfigSource()

	etcd := *b.etcd
	etcd.StorageConfig.Codec = apiextensionsapiserver.Codecs.LegacyCodec(v1beta1.SchemeGroupVersion, apiextensionsv1.SchemeGroupVersion)
	etcd.StorageConfig.EncodeVersioner = runtime.NewMultiGroupVersioner(v1beta1.SchemeGroupVersion, schema.GroupKind{Group: v1beta1.GroupName})
	etcd.DefaultStorageMediaType = runtime.ContentTypeJSON
	etcd.SkipHealthEndpoints = true
	if err := etcd.ApplyTo(&g); err != nil {
		return nil, fmt.Errorf("apiserver: storage of custom resources: %w", err)
	}
	g.RESTOptionsGetter = b.direct.options(g.RESTOptionsGetter)
	c := &apiextensionsapiserver.Config{
		GenericConfig: &genericapiserver.RecommendedConfig{Config: g, SharedInformerFactory: b.informers},
		ExtraConfig: apiextensionsapiserver.ExtraConfig{
			CRDRESTOptionsGetter: b.direct.options(apiextensionsoptions.NewCRDRESTOptionsGetter(etcd, nil, b.generic.StorageObjectCountTracker)),
			MasterCount:          1,
			AuthResolverWrapper:  auth,
			ServiceResolver:      resolver,
		},
	}
	crds, err := c.Complete().New(genericapiserver.NewEmptyDelegate())
	if err != nil {
		return nil, fmt.Errorf("apiserver: custom resources: %w", err)
	}
	return crds, nil
}

// publishCRDs joins the two servers' descriptions of themselves, as
// kube-aggregator does in a Kubernetes cluster: the OpenAPI documents, and the
// list of groups that clients older than aggregated discovery read.
func publishCRDs(s *genericapiserver.GenericAPIServer, crds *apiextensionsapiserver.CustomResourceDefinitions) error {
	crds.GenericAPIServer.StaticOpenAPISpec = s.StaticOpenAPISpec
	crds.GenericAPIServer.OpenAPIVersionedService = s.OpenAPIVersionedService
	crds.GenericAPIServer.OpenAPIV3VersionedService = s.OpenAPIV3VersionedService

	groups := s.DiscoveryGroupManager
	groups.AddGroup(metav1.APIGroup{
		Name:             apiextensionsv1.GroupName,
		Versions:         []metav1.GroupVersionForDiscovery{{GroupVersion: apiextensionsv1.SchemeGroupVersion.String(), Version: "v1"}},
		PreferredVersion: metav1.GroupVersionForDiscovery{GroupVersion: apiextensionsv1.SchemeGroupVersion.String(), Version: "v1"},
	})
	inf := crds.Informers.Apiextensions().V1().CustomResourceDefinitions()
	sync := func(group string) {
		all, err := inf.Lister().List(everything)
		if err != nil {
			return
		}
		if g, ok := apiGroup(group, all); ok {
			groups.AddGroup(g)
		} else if group != "" {
			groups.RemoveGroup(group)
		}
	}
	_, err := inf.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { sync(crdGroup(o)) },
		UpdateFunc: func(_, o any) { sync(crdGroup(o)) },
		DeleteFunc: func(o any) { sync(crdGroup(o)) },
	})
	return err
}

func crdGroup(o any) string {
	if t, ok := o.(cache.DeletedFinalStateUnknown); ok {
		o = t.Obj
	}
	if c, ok := o.(*apiextensionsv1.CustomResourceDefinition); ok {
		return c.Spec.Group
	}
	return ""
}

// apiGroup describes a group from its established CRDs.
func apiGroup(group string, all []*apiextensionsv1.CustomResourceDefinition) (metav1.APIGroup, bool) {
	seen := map[string]bool{}
	g := metav1.APIGroup{Name: group}
	for _, c := range all {
		if c.Spec.Group != group || !established(c) {
			continue
		}
		for _, v := range c.Spec.Versions {
			if v.Served && !seen[v.Name] {
				seen[v.Name] = true
				g.Versions = append(g.Versions, metav1.GroupVersionForDiscovery{GroupVersion: group + "/" + v.Name, Version: v.Name})
			}
		}
	}
	if len(g.Versions) == 0 {
		return g, false
	}
	sortVersions(g.Versions)
	g.PreferredVersion = g.Versions[0]
	return g, true
}

func established(c *apiextensionsv1.CustomResourceDefinition) bool {
	for _, cond := range c.Status.Conditions {
		if cond.Type == apiextensionsv1.Established {
			return cond.Status == apiextensionsv1.ConditionTrue
		}
	}
	return false
}

// publishOwnV3 copies the CRD kind's own OpenAPI v3 document, which the server
// behind made for itself, into the one that clients read, so that "kubectl
// explain crd" works.
func publishOwnV3(s *genericapiserver.GenericAPIServer, handler http.Handler) error {
	const path = "apis/apiextensions.k8s.io/v1"
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, "/openapi/v3/"+path, nil)
	r.Header.Set("Accept", "application/json")
	handler.ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		return fmt.Errorf("apiserver: the OpenAPI document of custom resource definitions: status %d", w.Code)
	}
	body, err := io.ReadAll(w.Body)
	if err != nil {
		return err
	}
	var doc spec3.OpenAPI
	if err := json.Unmarshal(body, &doc); err != nil {
		return fmt.Errorf("apiserver: the OpenAPI document of custom resource definitions: %w", err)
	}
	s.OpenAPIV3VersionedService.UpdateGroupVersion(path, &doc)
	return nil
}
