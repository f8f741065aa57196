package apiserver

import (
	"fmt"
	"maps"
	"net/netip"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/options"
	serverstorage "k8s.io/apiserver/pkg/server/storage"
	controlplaneapiserver "k8s.io/kubernetes/pkg/controlplane/apiserver"
	admissionregistrationrest "k8s.io/kubernetes/pkg/registry/admissionregistration/rest"
	appsrest "k8s.io/kubernetes/pkg/registry/apps/rest"
	authenticationrest "k8s.io/kubernetes/pkg/registry/authentication/rest"
	authorizationrest "k8s.io/kubernetes/pkg/registry/authorization/rest"
	batchrest "k8s.io/kubernetes/pkg/registry/batch/rest"
	certificatesrest "k8s.io/kubernetes/pkg/registry/certificates/rest"
	coordinationrest "k8s.io/kubernetes/pkg/registry/coordination/rest"
	slicestore "k8s.io/kubernetes/pkg/registry/discovery/endpointslice/storage"
	discoveryrest "k8s.io/kubernetes/pkg/registry/discovery/rest"
	eventsrest "k8s.io/kubernetes/pkg/registry/events/rest"
	ipaddressstore "k8s.io/kubernetes/pkg/registry/networking/ipaddress/storage"
	networkingrest "k8s.io/kubernetes/pkg/registry/networking/rest"
	policyrest "k8s.io/kubernetes/pkg/registry/policy/rest"
	rbacrest "k8s.io/kubernetes/pkg/registry/rbac/rest"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
)

// eventTTL is how long Events are kept.
const eventTTL = time.Hour

// providers lists the groups beside the core, in the order of discovery.
func (r *core) providers() []controlplaneapiserver.RESTStorageProvider {
	authz := r.generic.Authorization.Authorizer
	return []controlplaneapiserver.RESTStorageProvider{
		authenticationrest.RESTStorageProvider{Authenticator: r.generic.Authentication.Authenticator, APIAudiences: audiences},
		authorizationrest.RESTStorageProvider{Authorizer: authz, RuleResolver: r.generic.RuleResolver},
		coordinationrest.RESTStorageProvider{},
		discoveryrest.StorageProvider{},
		networkingrest.RESTStorageProvider{},
		policyrest.RESTStorageProvider{},
		rbacrest.RESTStorageProvider{Authorizer: authz},
		appsrest.StorageProvider{},
		batchrest.RESTStorageProvider{},
		certificatesrest.RESTStorageProvider{Authorizer: authz},
		admissionregistrationrest.RESTStorageProvider{Authorizer: authz, DiscoveryClient: r.client.Discovery()},
		eventsrest.RESTStorageProvider{TTL: eventTTL},
	}
}

// install puts every group into the server.
func (r *core) install(s *genericapiserver.GenericAPIServer, own *runtime.Scheme, codecs serializer.CodecFactory) error {
	rc, opts := r.generic.MergedResourceConfig, r.generic.RESTOptionsGetter
	groups := []*genericapiserver.APIGroupInfo{}
	var ipAddresses *ipaddressstore.REST
	var old *genericapiserver.APIGroupInfo
	for _, p := range r.providers() {
		info, err := p.NewRESTStorage(rc, opts)
		if err != nil {
			return fmt.Errorf("apiserver: group %s: %w", p.GroupName(), err)
		}
		v1 := info.VersionedResourcesStorageMap["v1"]
		switch p.GroupName() {
		case "networking.k8s.io":
			ipAddresses, _ = v1["ipaddresses"].(*ipaddressstore.REST)
			if old, err = oldIngress(&info); err != nil {
				return err
			}
		case "discovery.k8s.io":
			slices := v1["endpointslices"].(*slicestore.REST)
			slices.CreateStrategy = sliceCreate{slices.CreateStrategy}
			slices.UpdateStrategy = sliceUpdate{slices.UpdateStrategy}
		}
		groups = append(groups, &info)
	}
	if ipAddresses == nil || old == nil {
		return fmt.Errorf("apiserver: the networking group has no storage of IPAddresses and Ingresses")
	}
	info, err := r.storage(opts, ipAddresses)
	if err != nil {
		return fmt.Errorf("apiserver: the core group: %w", err)
	}
	if err := s.InstallLegacyAPIGroup(genericapiserver.DefaultLegacyAPIPrefix, &info); err != nil {
		return fmt.Errorf("apiserver: install the core group: %w", err)
	}
	ownInfo, err := r.ownGroup(own, codecs)
	if err != nil {
		return err
	}
	if err := s.InstallAPIGroups(append(groups, ownInfo, old)...); err != nil {
		return fmt.Errorf("apiserver: install the groups: %w", err)
	}
	return nil
}

func (r *core) ownGroup(s *runtime.Scheme, codecs serializer.CodecFactory) (*genericapiserver.APIGroupInfo, error) {
	info := genericapiserver.NewDefaultAPIGroupInfo(v1alpha1.GroupName, s, metav1.ParameterCodec, codecs)
	etcd := *r.etcd
	// Written as protobuf; JSON, as the first version wrote it, is read too.
	var err error
	etcd.StorageConfig.Codec, etcd.StorageConfig.EncodeVersioner, err = serverstorage.NewStorageCodec(serverstorage.StorageCodecConfig{
		StorageMediaType: runtime.ContentTypeProtobuf, StorageSerializer: codecs, StorageVersion: v1alpha1.GroupVersion,
		MemoryVersion: schema.GroupVersion{Group: v1alpha1.GroupName, Version: runtime.APIVersionInternal},
	})
	if err != nil {
		return nil, fmt.Errorf("apiserver: encoding of our own kinds: %w", err)
	}
	etcd.StorageConfig.StorageObjectCountTracker = r.generic.StorageObjectCountTracker
	opts := r.direct.options(&options.StorageFactoryRestOptionsFactory{Options: etcd, StorageFactory: &options.SimpleStorageFactory{StorageConfig: etcd.StorageConfig}})
	st, err := newInstanceStorage(s, opts)
	if err != nil {
		return nil, fmt.Errorf("apiserver: storage of instances: %w", err)
	}
	pools, err := newAddressPoolStorage(s, opts, func() []netip.Prefix { return r.cfg.ServiceCIDRs })
	if err != nil {
		return nil, fmt.Errorf("apiserver: storage of address pools: %w", err)
	}
	maps.Copy(st, pools)
	info.VersionedResourcesStorageMap["v1alpha1"] = st
	return &info, nil
}
