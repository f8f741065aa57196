package apiserver

import (
	"fmt"
	"net"
	"net/http"
	"time"

	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/registry/rest"
	genericapiserver "k8s.io/apiserver/pkg/server"
	admissionregistrationv1client "k8s.io/client-go/kubernetes/typed/admissionregistration/v1"
	policyclient "k8s.io/client-go/kubernetes/typed/policy/v1"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	api "k8s.io/kubernetes/pkg/apis/core"
	configmapstore "k8s.io/kubernetes/pkg/registry/core/configmap/storage"
	endpointsstore "k8s.io/kubernetes/pkg/registry/core/endpoint/storage"
	eventstore "k8s.io/kubernetes/pkg/registry/core/event/storage"
	namespacestore "k8s.io/kubernetes/pkg/registry/core/namespace/storage"
	nodestore "k8s.io/kubernetes/pkg/registry/core/node/storage"
	podstore "k8s.io/kubernetes/pkg/registry/core/pod/storage"
	podtemplatestore "k8s.io/kubernetes/pkg/registry/core/podtemplate/storage"
	controllerstore "k8s.io/kubernetes/pkg/registry/core/replicationcontroller/storage"
	secretstore "k8s.io/kubernetes/pkg/registry/core/secret/storage"
	svcreg "k8s.io/kubernetes/pkg/registry/core/service"
	bitmap "k8s.io/kubernetes/pkg/registry/core/service/allocator"
	serviceallocator "k8s.io/kubernetes/pkg/registry/core/service/allocator/storage"
	"k8s.io/kubernetes/pkg/registry/core/service/ipallocator"
	"k8s.io/kubernetes/pkg/registry/core/service/portallocator"
	portallocatorcontroller "k8s.io/kubernetes/pkg/registry/core/service/portallocator/controller"
	servicestore "k8s.io/kubernetes/pkg/registry/core/service/storage"
	serviceaccountstore "k8s.io/kubernetes/pkg/registry/core/serviceaccount/storage"
	ipaddressstore "k8s.io/kubernetes/pkg/registry/networking/ipaddress/storage"
	"k8s.io/kubernetes/pkg/serviceaccount"
)

// repairInterval is how often node ports are compared with the Services.
const repairInterval = 3 * time.Minute

// core builds the core group: upstream's storages, with our allocators.
type core struct {
	*base
	cfg       *Config
	tokens    serviceaccount.TokenGenerator
	allocs    map[api.IPFamily]*allocator
	transport http.RoundTripper // to pods and services

	repairPorts func(onFirstSuccess func(), stop chan struct{})
}

func newCore(b *base, c *Config) (*core, error) {
	r := &core{base: b, cfg: c, allocs: map[api.IPFamily]*allocator{}}
	var err error
	if r.tokens, err = serviceaccount.JWTTokenGenerator(issuer, c.PKI.SAKey); err != nil {
		return nil, fmt.Errorf("apiserver: the key of service account tokens: %w", err)
	}
	for _, p := range c.ServiceCIDRs {
		f := familyOf(p.Addr())
		if r.allocs[f], err = newAllocator(f, b.informers); err != nil {
			return nil, err
		}
	}
	r.transport = proxyTransport()
	return r, nil
}

func (r *core) storage(opts generic.RESTOptionsGetter, ipAddresses *ipaddressstore.REST) (genericapiserver.APIGroupInfo, error) {
	for _, a := range r.allocs {
		a.addresses, a.encode = ipAddresses, addressEncoder(ipAddresses.Store)
	}
	info := genericapiserver.NewDefaultAPIGroupInfo("", legacyscheme.Scheme, legacyscheme.ParameterCodec, legacyscheme.Codecs)
	info.PrioritizedVersions = legacyscheme.Scheme.PrioritizedVersionsForGroup("")
	info.NegotiatedSerializer = serializer.NewCodecFactory(legacyscheme.Scheme,
		serializer.WithStreamingCollectionEncodingToJSON(), serializer.WithStreamingCollectionEncodingToProtobuf())
	s := map[string]rest.Storage{}
	info.VersionedResourcesStorageMap["v1"] = s
	for _, add := range []func(map[string]rest.Storage, generic.RESTOptionsGetter) error{r.plain, r.workloads, r.services} {
		if err := add(s, opts); err != nil {
			return info, err
		}
	}
	return info, nil
}

// plain adds the kinds that upstream's storage serves as they are.
func (r *core) plain(s map[string]rest.Storage, opts generic.RESTOptionsGetter) error {
	event, err := eventstore.NewREST(opts, uint64(eventTTL.Seconds()))
	if err != nil {
		return err
	}
	secret, err := secretstore.NewREST(opts)
	if err != nil {
		return err
	}
	configMap, err := configmapstore.NewREST(opts)
	if err != nil {
		return err
	}
	ns, nsStatus, nsFinalize, err := namespacestore.NewREST(opts)
	if err != nil {
		return err
	}
	s["events"], s["secrets"], s["configmaps"] = event, secret, configMap
	s["namespaces"], s["namespaces/status"], s["namespaces/finalize"] = ns, nsStatus, nsFinalize
	return nil
}

// workloads adds nodes, pods and what makes pods, and service accounts that
// know of them.
func (r *core) workloads(s map[string]rest.Storage, opts generic.RESTOptionsGetter) error {
	node, err := nodestore.NewStorage(opts, kubeletClient(r.cfg.PKI), r.transport)
	if err != nil {
		return err
	}
	pdb, err := policyclient.NewForConfig(r.generic.LoopbackClientConfig)
	if err != nil {
		return err
	}
	pod, err := podstore.NewStorage(opts, node.KubeletConnectionInfo, r.transport, pdb, r.generic.Authorization.Authorizer)
	if err != nil {
		return err
	}
	template, err := podtemplatestore.NewREST(opts)
	if err != nil {
		return err
	}
	rc, err := controllerstore.NewStorage(opts)
	if err != nil {
		return err
	}
	hooks, err := admissionregistrationv1client.NewForConfig(r.generic.LoopbackClientConfig)
	if err != nil {
		return err
	}
	sa, err := serviceaccountstore.NewREST(opts, r.tokens, audiences, r.generic.Authorization.Authorizer, 0, pod.Pod.Store,
		s["secrets"].(rest.Getter), node.Node.Store, hooks.ValidatingWebhookConfigurations(), hooks.MutatingWebhookConfigurations(), false, 0)
	if err != nil {
		return err
	}
	for name, st := range map[string]rest.Storage{
		"nodes": node.Node, "nodes/status": node.Status, "nodes/proxy": node.Proxy,
		"pods": pod.Pod, "pods/status": pod.Status, "pods/binding": pod.Binding, "bindings": pod.LegacyBinding,
		"pods/log": pod.Log, "pods/exec": pod.Exec, "pods/attach": pod.Attach, "pods/portforward": pod.PortForward, "pods/proxy": pod.Proxy,
		"pods/ephemeralcontainers": pod.EphemeralContainers, "pods/resize": pod.Resize,
		"podtemplates":           template,
		"replicationcontrollers": rc.Controller, "replicationcontrollers/status": rc.Status, "replicationcontrollers/scale": rc.Scale,
		"serviceaccounts": sa, "serviceaccounts/token": sa.Token,
	} {
		s[name] = st
	}
	if pod.Eviction != nil {
		s["pods/eviction"] = pod.Eviction
	}
	return nil
}

// services adds Services and Endpoints.
func (r *core) services(s map[string]rest.Storage, opts generic.RESTOptionsGetter) error {
	endpoints, err := endpointsstore.NewREST(opts)
	if err != nil {
		return err
	}
	endpoints.CreateStrategy = sliceCreate{endpoints.CreateStrategy}
	endpoints.UpdateStrategy = sliceUpdate{endpoints.UpdateStrategy}

	ports, err := r.nodePorts()
	if err != nil {
		return err
	}
	byFamily := map[api.IPFamily]ipallocator.Interface{}
	for f, a := range r.allocs {
		byFamily[f] = a
	}
	svc, status, _, err := servicestore.NewREST(opts, familyOf(r.cfg.ServiceCIDRs[0].Addr()), byFamily, ports, nil, nil, r.transport)
	if err != nil {
		return err
	}
	recordAllocations(svc, r.allocs)
	s["endpoints"] = endpoints
	s["services"] = svc
	if r.direct != nil {
		s["services"] = pairedServices{svc, r.allocs}
	}
	s["services/status"] = status
	s["services/proxy"] = &svcreg.ProxyREST{Redirector: &serviceRedirector{svc: svc, client: r.client, transport: r.transport}, ProxyTransport: r.transport}
	return nil
}

// nodePorts is upstream's allocator: a bitmap in the store, compared and
// swapped, so that two servers never give out one port.
func (r *core) nodePorts() (*portallocator.PortAllocator, error) {
	cfg, err := r.factory.NewConfig(api.Resource("services"), &api.Service{})
	if err != nil {
		return nil, err
	}
	portRange := utilnet.PortRange{Base: r.cfg.NodePorts[0], Size: r.cfg.NodePorts[1] - r.cfg.NodePorts[0] + 1}
	var registry *serviceallocator.Etcd
	ports, err := portallocator.New(portRange, func(max int, rangeSpec string, offset int) (bitmap.Interface, error) {
		mem := bitmap.NewAllocationMapWithOffset(max, rangeSpec, offset)
		registry, err = serviceallocator.NewEtcd(mem, "/ranges/servicenodeports", cfg.ForResource(api.Resource("servicenodeportallocations")))
		return registry, err
	})
	if err != nil {
		return nil, fmt.Errorf("apiserver: the allocator of node ports: %w", err)
	}
	r.repairPorts = portallocatorcontroller.NewRepair(repairInterval, r.client.CoreV1(), r.client.EventsV1(), portRange, registry).RunUntil
	return ports, nil
}

func proxyTransport() *http.Transport {
	return utilnet.SetTransportDefaults(&http.Transport{
		DialContext:     (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		TLSClientConfig: insecureTLS(), // endpoints are reached by address: there is no name to verify
		Proxy:           func(*http.Request) (_ *netURL, _ error) { return nil, nil },
	})
}
