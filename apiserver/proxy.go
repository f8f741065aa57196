package apiserver

import (
	"context"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"

	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/client-go/kubernetes"
	api "k8s.io/kubernetes/pkg/apis/core"
)

type netURL = url.URL

func insecureTLS() *tls.Config { return &tls.Config{InsecureSkipVerify: true} }

// serviceRedirector finds where services/proxy goes. Upstream's goes to live
// pods only; here every endpoint that our controllers or an Instance vouch for
// counts. Addresses that somebody typed into a slice are refused, as upstream
// does: the server's network is not for everybody who can write slices.
type serviceRedirector struct {
	svc       rest.Getter
	client    kubernetes.Interface
	transport http.RoundTripper
}

// ResourceLocation takes "name", "name:port" or "scheme:name:port".
func (r *serviceRedirector) ResourceLocation(ctx context.Context, id string) (*url.URL, http.RoundTripper, error) {
	scheme, name, port, ok := utilnet.SplitSchemeNamePort(id)
	if !ok {
		return nil, nil, apierrors.NewBadRequest(fmt.Sprintf("invalid service request %q", id))
	}
	obj, err := r.svc.Get(ctx, name, &metav1.GetOptions{})
	if err != nil {
		return nil, nil, err
	}
	svc := obj.(*api.Service)
	portName, ok := servicePort(svc, port)
	if !ok {
		return nil, nil, apierrors.NewServiceUnavailable(fmt.Sprintf("no service port %q found for service %q", port, name))
	}
	slices, err := r.client.DiscoveryV1().EndpointSlices(genericapirequest.NamespaceValue(ctx)).List(ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + name})
	if err != nil {
		return nil, nil, err
	}
	host, ok := pickEndpoint(slices.Items, portName)
	if !ok {
		return nil, nil, apierrors.NewServiceUnavailable(fmt.Sprintf("no endpoints available for service %q", name))
	}
	return &url.URL{Scheme: scheme, Host: host}, r.transport, nil
}

// servicePort finds the name of the port meant by a name, a number or nothing.
func servicePort(svc *api.Service, port string) (string, bool) {
	if n, err := strconv.Atoi(port); err == nil {
		for i := range svc.Spec.Ports {
			if int(svc.Spec.Ports[i].Port) == n {
				return svc.Spec.Ports[i].Name, true
			}
		}
		return "", false
	}
	if port == "" && len(svc.Spec.Ports) == 1 {
		return svc.Spec.Ports[0].Name, true
	}
	for i := range svc.Spec.Ports {
		if svc.Spec.Ports[i].Name == port {
			return port, true
		}
	}
	return "", false
}

// pickEndpoint chooses a ready endpoint that a Pod or an Instance stands for.
func pickEndpoint(slices []discoveryv1.EndpointSlice, port string) (string, bool) {
	return pick(slices, port, func(e *discoveryv1.Endpoint) bool {
		return e.TargetRef != nil && (e.TargetRef.Kind == "Pod" || e.TargetRef.Kind == "Instance")
	})
}

// pickAny chooses any ready endpoint.
func pickAny(slices []discoveryv1.EndpointSlice, port string) (string, bool) {
	return pick(slices, port, func(*discoveryv1.Endpoint) bool { return true })
}

func pick(slices []discoveryv1.EndpointSlice, port string, ok func(*discoveryv1.Endpoint) bool) (string, bool) {
	var hosts []string
	for i := range slices {
		s := &slices[i]
		var number int32
		for _, p := range s.Ports {
			if p.Port != nil && (p.Name == nil && port == "" || p.Name != nil && *p.Name == port) {
				number = *p.Port
			}
		}
		if number == 0 {
			continue
		}
		for j := range s.Endpoints {
			e := &s.Endpoints[j]
			ready := e.Conditions.Ready == nil || *e.Conditions.Ready
			if ready && ok(e) && len(e.Addresses) > 0 {
				hosts = append(hosts, net.JoinHostPort(e.Addresses[0], strconv.Itoa(int(number))))
			}
		}
	}
	if len(hosts) == 0 {
		return "", false
	}
	return hosts[rand.IntN(len(hosts))], true
}
