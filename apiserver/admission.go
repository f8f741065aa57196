package apiserver

import (
	"context"
	"fmt"
	"net"
	"net/url"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/namespace/lifecycle"
	validatingpolicy "k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	webhookinit "k8s.io/apiserver/pkg/admission/plugin/webhook/initializer"
	mutatingwebhook "k8s.io/apiserver/pkg/admission/plugin/webhook/mutating"
	validatingwebhook "k8s.io/apiserver/pkg/admission/plugin/webhook/validating"
	"k8s.io/apiserver/pkg/server/options"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/component-base/tracing"
	"k8s.io/kubernetes/plugin/pkg/admission/certificates/approval"
	"k8s.io/kubernetes/plugin/pkg/admission/certificates/signing"
	"k8s.io/kubernetes/plugin/pkg/admission/certificates/subjectrestriction"
	"k8s.io/kubernetes/plugin/pkg/admission/network/defaultingressclass"
	"k8s.io/kubernetes/plugin/pkg/admission/noderestriction"
	"k8s.io/kubernetes/plugin/pkg/admission/serviceaccount"
)

// plugins lists the admission plugins in the order in which they run.
var plugins = []string{
	lifecycle.PluginName,
	serviceaccount.PluginName,
	noderestriction.PluginName,
	approval.PluginName,
	signing.PluginName,
	subjectrestriction.PluginName,
	defaultingressclass.PluginName,
	mutatingwebhook.PluginName,
	validatingpolicy.PluginName,
	validatingwebhook.PluginName,
}

func admit(b *base) (webhook.AuthenticationInfoResolverWrapper, webhook.ServiceResolver, error) {
	o := &options.AdmissionOptions{
		Plugins:                admission.NewPlugins(),
		RecommendedPluginOrder: plugins,
		EnablePlugins:          plugins,
		Decorators:             append(admission.Decorators{admission.DecoratorFunc(withDefaultClass)}, options.NewAdmissionOptions().Decorators...),
	}
	lifecycle.Register(o.Plugins)
	serviceaccount.Register(o.Plugins)
	registerNodeRestriction(o.Plugins, b.client)
	approval.Register(o.Plugins)
	signing.Register(o.Plugins)
	subjectrestriction.Register(o.Plugins)
	defaultingressclass.Register(o.Plugins)
	mutatingwebhook.Register(o.Plugins)
	validatingpolicy.Register(o.Plugins)
	validatingwebhook.Register(o.Plugins)

	resolver := &webhookResolver{b.client}
	auth := webhook.NewDefaultAuthenticationInfoResolverWrapper(proxyTransport(), nil, b.generic.LoopbackClientConfig, tracing.NewNoopTracerProvider())
	dyn, err := dynamic.NewForConfig(b.generic.LoopbackClientConfig)
	if err != nil {
		return nil, nil, err
	}
	if err := o.ApplyTo(b.generic, b.informers, b.client, dyn, utilfeature.DefaultFeatureGate, b.generic.EffectiveVersion,
		webhookinit.NewPluginInitializer(auth, resolver)); err != nil {
		return nil, nil, fmt.Errorf("apiserver: admission: %w", err)
	}
	return auth, resolver, nil
}

// webhookResolver finds a live endpoint of a webhook's Service, straight: the
// virtual IPs may be another process's business.
type webhookResolver struct{ client kubernetes.Interface }

func (r *webhookResolver) ResolveEndpoint(namespace, name string, port int32) (*url.URL, error) {
	ctx := context.Background()
	svc, err := r.client.CoreV1().Services(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	portName, found := "", false
	for _, p := range svc.Spec.Ports {
		if p.Port == port {
			portName, found = p.Name, true
		}
	}
	if svc.Spec.ExternalName != "" {
		return &url.URL{Scheme: "https", Host: net.JoinHostPort(svc.Spec.ExternalName, fmt.Sprint(port))}, nil
	}
	if !found {
		return nil, fmt.Errorf("service %s/%s has no port %d", namespace, name, port)
	}
	slices, err := r.client.DiscoveryV1().EndpointSlices(namespace).List(ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + name})
	if err != nil {
		return nil, err
	}
	host, ok := pickAny(slices.Items, portName)
	if !ok {
		return nil, fmt.Errorf("no endpoints available for service %q", name)
	}
	return &url.URL{Scheme: "https", Host: host}, nil
}
