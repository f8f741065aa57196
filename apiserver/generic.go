package apiserver

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apiextensionsapiserver "k8s.io/apiextensions-apiserver/pkg/apiserver"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/endpoints/discovery/aggregated"
	openapinamer "k8s.io/apiserver/pkg/endpoints/openapi"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/apiserver/pkg/server/filters"
	"k8s.io/apiserver/pkg/server/options"
	serverstorage "k8s.io/apiserver/pkg/server/storage"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/apiserver/pkg/util/compatibility"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/apiserver/pkg/util/openapi"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	restclient "k8s.io/client-go/rest"
	basecompatibility "k8s.io/component-base/compatibility"
	openapicommon "k8s.io/kube-openapi/pkg/common"
	openapiutil "k8s.io/kube-openapi/pkg/util"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/controlplane"
	generatedopenapi "k8s.io/kubernetes/pkg/generated/openapi"
	"k8s.io/kubernetes/pkg/kubeapiserver"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
	"github.com/fingerpost/fingerpost/store"
)

// limits on requests under way; beyond them a request gets 429 and is tried
// again by its client.
const (
	maxReads  = 4000
	maxWrites = 2000
)

// stopRequests is how long a stop waits for requests under way.
const stopRequests = 3 * time.Second

// base is what the parts of the server are built from.
type base struct {
	generic   *genericapiserver.Config
	factory   *serverstorage.DefaultStorageFactory
	etcd      *options.EtcdOptions
	informers informers.SharedInformerFactory
	client    *kubernetes.Clientset
	transport *handlerTransport
	scheme    *runtime.Scheme // our own kinds
	direct    *directStorage
	renewer   *renewer
	stopping  context.Context // ends when the server begins to stop
	stop      context.CancelFunc
}

// features that are switched off: a history of whole lists beside the watch
// cache (for paging at old revisions, which the store answers as well) costs a
// tenth of the memory at 100,000 endpoints, and list sizes are estimated for
// priority levels, which are not configured.
//
// The borrowed controllers of workloads compare what they wrote with what they
// have read, and call every wait for their informer, milliseconds here, an error
// in the log; their older guard against acting twice stays.
var features = map[string]bool{
	"ListFromCacheSnapshot": false, "SizeBasedListCostEstimate": false,
	"StaleControllerConsistencyDaemonSet": false, "StaleControllerConsistencyJob": false,
	"StaleControllerConsistencyReplicaSet": false, "StaleControllerConsistencyStatefulSet": false,
}

func newBase(c *Config, scheme *runtime.Scheme) (*base, error) {
	if err := utilfeature.DefaultMutableFeatureGate.SetFromMap(features); err != nil {
		return nil, fmt.Errorf("apiserver: switch features off: %w", err)
	}
	b := &base{transport: newHandlerTransport(), scheme: scheme}
	b.stopping, b.stop = context.WithCancel(context.Background())
	g := genericapiserver.NewConfig(legacyscheme.Codecs)
	b.generic = g
	g.EffectiveVersion = compatibility.DefaultComponentGlobalsRegistry.EffectiveVersionFor(basecompatibility.DefaultKubeComponent)
	g.MaxRequestsInFlight, g.MaxMutatingRequestsInFlight = maxReads, maxWrites
	g.EnableIndex, g.EnableDiscovery, g.EnableMetrics = true, true, true
	g.EnableProfiling = false
	g.PublicAddress = net.IP(c.Advertise.AsSlice())
	g.ExternalAddress = c.Listener.Addr().String()
	g.MergedResourceConfig = resources()
	g.LongRunningFunc = filters.BasicLongRunningRequestCheck(
		sets.NewString("watch", "proxy"), sets.NewString("attach", "exec", "proxy", "log", "portforward"))
	g.AggregatedDiscoveryGroupManager = aggregated.NewResourceManager("apis")
	preferNetworking(g)

	cert, err := dynamiccertificates.NewStaticCertKeyContent("serving", c.PKI.servingChain(), c.PKI.Serving.Key)
	if err != nil {
		return nil, fmt.Errorf("apiserver: the serving certificate: %w", err)
	}
	g.SecureServing = &genericapiserver.SecureServingInfo{Listener: c.Listener, Cert: cert, HTTP2MaxStreamsPerConnection: 1000}

	token := make([]byte, 24)
	if _, err := rand.Read(token); err != nil {
		return nil, err
	}
	g.LoopbackClientConfig = &restclient.Config{
		Host: "http://fingerpost.internal", Transport: b.transport, BearerToken: hex.EncodeToString(token),
		QPS: -1, Burst: -1,
		// What walks over every version (namespaces, garbage) needs no advice about old ones.
		WarningHandlerWithContext: restclient.NoWarnings{},
		ContentConfig:             restclient.ContentConfig{ContentType: runtime.ContentTypeProtobuf, AcceptContentTypes: runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON},
	}
	if b.client, err = kubernetes.NewForConfig(g.LoopbackClientConfig); err != nil {
		return nil, err
	}
	b.informers = informers.NewSharedInformerFactoryWithOptions(b.client, 0, informers.WithTransform(c.Transform))

	defs := openapi.GetOpenAPIDefinitionsWithoutDisabledFeatures(definitions)
	namer := openapinamer.NewDefinitionNamer(legacyscheme.Scheme, apiextensionsapiserver.Scheme, scheme)
	g.OpenAPIConfig = genericapiserver.DefaultOpenAPIConfig(defs, namer)
	g.OpenAPIConfig.Info.Title = "Fingerpost"
	g.OpenAPIV3Config = genericapiserver.DefaultOpenAPIV3Config(defs, namer)
	g.OpenAPIV3Config.Info.Title = "Fingerpost"

	b.etcd = etcdOptions(c.Store)
	sf := kubeapiserver.NewStorageFactoryConfigEffectiveVersion(g.EffectiveVersion)
	sf.APIResourceConfig = g.MergedResourceConfig
	sf.DefaultResourceEncoding.SetEffectiveVersion(g.EffectiveVersion)
	if b.factory, err = sf.Complete(b.etcd).New(); err != nil {
		return nil, err
	}
	b.factory.StorageConfig.StorageObjectCountTracker = g.StorageObjectCountTracker
	if err := b.etcd.ApplyWithStorageFactoryTo(b.factory, g); err != nil {
		return nil, fmt.Errorf("apiserver: connect to the store: %w", err)
	}
	b.direct = newDirectStorage(c.Store)
	g.RESTOptionsGetter = b.direct.options(g.RESTOptionsGetter)
	g.BuildHandlerChainFunc = func(api http.Handler, gc *genericapiserver.Config) http.Handler {
		h := withDiskGuard(handlerChain(api, gc, b.stopping), c.Store.Guard)
		b.renewer = newRenewer(c.Liveness, gc)
		return b.renewer.wrap(h)
	}
	return b, nil
}

// lean drops from cached objects what no controller reads.
func lean(obj any) (any, error) {
	if m, err := meta.Accessor(obj); err == nil && m.GetManagedFields() != nil {
		m.SetManagedFields(nil)
	}
	return obj, nil
}

// definitions joins upstream's OpenAPI definitions with ours. Upstream names its
// models by a dotted name; our generated file names them by Go path.
func definitions(ref openapicommon.ReferenceCallback) map[string]openapicommon.OpenAPIDefinition {
	all := generatedopenapi.GetOpenAPIDefinitions(ref)
	modelName := func(path string) string {
		if strings.Contains(path, "/") {
			return openapiutil.ToRESTFriendlyName(path)
		}
		return path
	}
	for k, d := range v1alpha1.GetOpenAPIDefinitions(func(path string) spec.Ref { return ref(modelName(path)) }) {
		for i, dep := range d.Dependencies {
			d.Dependencies[i] = modelName(dep)
		}
		all[k] = d
	}
	return all
}

// etcdPrefix of every object: upstream's, so that existing tools find them.
const etcdPrefix = "/registry"

func etcdOptions(s *store.Store) *options.EtcdOptions {
	o := options.NewEtcdOptions(storagebackend.NewDefaultConfig(etcdPrefix, nil))
	o.StorageConfig.Transport.ServerList = s.Endpoints
	o.StorageConfig.Transport.TrustedCAFile = s.CAFile
	o.StorageConfig.Transport.CertFile = s.CertFile
	o.StorageConfig.Transport.KeyFile = s.KeyFile
	o.DefaultStorageMediaType = runtime.ContentTypeProtobuf
	o.DeleteCollectionWorkers = 4
	for _, r := range uncached {
		o.WatchCacheSizes = append(o.WatchCacheSizes, r.String()+"#0")
	}
	return o
}

// resources lists what is served: the stable versions of upstream and the old
// ones of Ingress, less the kinds for which nothing runs yet. An object that is
// accepted and never acted on is worse than a clear "no such resource".
func resources() *serverstorage.ResourceConfig {
	rc := controlplane.DefaultAPIResourceConfigSource()
	rc.EnableVersions(v1alpha1.GroupVersion)
	for _, r := range []string{"clustertrustbundles", "podcertificaterequests"} {
		rc.DisableResources(certificatesv1.SchemeGroupVersion.WithResource(r))
	}
	rc.DisableResources(networkingv1.SchemeGroupVersion.WithResource("networkpolicies"))
	ingressVersions(rc)
	return rc
}

// withDiskGuard refuses writes while the disk is full; deleting goes on,
// because it makes space.
func withDiskGuard(h http.Handler, g *store.Guard) http.Handler {
	if g == nil {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodPost, http.MethodPut, http.MethodPatch:
			if err := g.Full(); err != nil && !isReview(r.URL.Path) {
				writeStatus(w, http.StatusInsufficientStorage, "InsufficientStorage", err.Error())
				return
			}
		}
		h.ServeHTTP(w, r)
	})
}
