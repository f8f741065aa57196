package kube

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/fingerpost/fingerpost/catalog"
)

// labelProxyName names the proxy whose business a service is.
const labelProxyName = "service.kubernetes.io/service-proxy-name"

// defaultAffinity is the API's default for session affinity by client address.
const defaultAffinity = 3 * time.Hour

// convertService gives the catalog's form of a Service. It takes over the
// label map.
func convertService(in *corev1.Service) *catalog.Service {
	s := &catalog.Service{
		Key:             catalog.Key{Namespace: in.Namespace, Name: in.Name},
		Type:            catalog.Type(in.Spec.Type),
		PublishNotReady: in.Spec.PublishNotReadyAddresses,
		ProxyName:       in.Labels[labelProxyName],
		Created:         in.CreationTimestamp.Time,
		InternalLocal:   in.Spec.InternalTrafficPolicy != nil && *in.Spec.InternalTrafficPolicy == corev1.ServiceInternalTrafficPolicyLocal,
	}
	if len(in.Labels) > 0 {
		s.Labels = in.Labels
	}
	if s.Type == "" {
		s.Type = catalog.ClusterIP
	}
	if in.Spec.TrafficDistribution != nil {
		s.Distribution = *in.Spec.TrafficDistribution
	}
	if s.Type == catalog.ExternalName {
		s.ExternalName = strings.TrimSuffix(in.Spec.ExternalName, ".")
	} else {
		ips := in.Spec.ClusterIPs
		if len(ips) == 0 && in.Spec.ClusterIP != "" {
			ips = []string{in.Spec.ClusterIP}
		}
		s.Headless = len(ips) > 0 && ips[0] == corev1.ClusterIPNone
		s.ClusterIPs = addresses(ips)
	}
	s.ExternalIPs = addresses(in.Spec.ExternalIPs)
	s.ExternalLocal = in.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
	if s.Type == catalog.LoadBalancer {
		for i := range in.Status.LoadBalancer.Ingress {
			ing := &in.Status.LoadBalancer.Ingress[i]
			if ing.IPMode != nil && *ing.IPMode != corev1.LoadBalancerIPModeVIP {
				continue
			}
			if a, ok := address(ing.IP); ok {
				s.LoadBalancerIPs = append(s.LoadBalancerIPs, a)
			}
		}
		s.SourceRanges = sourceRanges(in.Spec.LoadBalancerSourceRanges)
	}
	if in.Spec.SessionAffinity == corev1.ServiceAffinityClientIP {
		s.Affinity = defaultAffinity
		if c := in.Spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil && *c.ClientIP.TimeoutSeconds > 0 {
			s.Affinity = time.Duration(*c.ClientIP.TimeoutSeconds) * time.Second
		}
	}
	if n, ok := portNumber(in.Spec.HealthCheckNodePort); ok {
		s.HealthCheckNodePort = n
	}
	s.Ports = servicePorts(in.Spec.Ports)
	return s
}

func servicePorts(in []corev1.ServicePort) []catalog.Port {
	if len(in) == 0 {
		return nil
	}
	out := make([]catalog.Port, 0, len(in))
	for i := range in {
		p := &in[i]
		n, ok := portNumber(p.Port)
		if !ok {
			continue
		}
		q := catalog.Port{Name: p.Name, Protocol: protocol(p.Protocol), Port: n, Target: target(p)}
		if np, ok := portNumber(p.NodePort); ok {
			q.NodePort = np
		}
		if p.AppProtocol != nil {
			q.AppProtocol = *p.AppProtocol
		}
		out = append(out, q)
	}
	return out
}

func target(p *corev1.ServicePort) string {
	if p.TargetPort.Type == intstr.String {
		return p.TargetPort.StrVal
	}
	if p.TargetPort.IntVal == 0 {
		return strconv.Itoa(int(p.Port))
	}
	return strconv.Itoa(int(p.TargetPort.IntVal))
}

func protocol(p corev1.Protocol) catalog.Protocol {
	if p == "" {
		return catalog.TCP
	}
	return catalog.Protocol(p)
}

func portNumber(n int32) (uint16, bool) { return uint16(n), n > 0 && n <= 65535 }

// address parses an IP address as the API has it; one with a zone, or of the
// form ::ffff:1.2.3.4, is brought to what packets carry.
func address(s string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, false
	}
	return a.Unmap(), true
}

func addresses(in []string) []netip.Addr {
	var out []netip.Addr
	for _, s := range in {
		if a, ok := address(s); ok {
			out = append(out, a)
		}
	}
	return out
}

// nobody is a source range list that admits no real client.
var nobody = [...]netip.Prefix{
	netip.PrefixFrom(netip.IPv4Unspecified(), 32),
	netip.PrefixFrom(netip.IPv6Unspecified(), 128),
}

// sourceRanges parses who may use a load balancer. A list of which nothing
// can be read must not come to mean everybody.
func sourceRanges(in []string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range in {
		if p, err := netip.ParsePrefix(strings.TrimSpace(s)); err == nil {
			out = append(out, p.Masked())
		}
	}
	if len(in) > 0 && len(out) == 0 {
		return nobody[:]
	}
	return out
}
