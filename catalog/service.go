package catalog

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Key names a service: a namespace and a name in it, both DNS labels.
type Key struct {
	Namespace string
	Name      string
}

// String gives "namespace/name".
func (k Key) String() string { return k.Namespace + "/" + k.Name }

// Compare orders keys by namespace, then name.
func (k Key) Compare(o Key) int {
	return cmp.Or(strings.Compare(k.Namespace, o.Namespace), strings.Compare(k.Name, o.Name))
}

// Type says how a service is reached, with the words of the Kubernetes API.
type Type string

// The service types of the Kubernetes API.
const (
	ClusterIP    Type = "ClusterIP"
	NodePort     Type = "NodePort"
	LoadBalancer Type = "LoadBalancer"
	ExternalName Type = "ExternalName"
)

// Protocol is a transport protocol: TCP, UDP or SCTP.
type Protocol string

// The transport protocols a port can have.
const (
	TCP  Protocol = "TCP"
	UDP  Protocol = "UDP"
	SCTP Protocol = "SCTP"
)

// Port is one port of a service.
type Port struct {
	Name        string   // DNS label; empty only when the service has one port
	Protocol    Protocol // TCP, UDP or SCTP
	Port        uint16   // 1–65535, on the virtual IP
	NodePort    uint16   // 0: none
	Target      string   // what the manifest said: a number or a port name
	AppProtocol string   // IANA service name or a prefixed name; may be empty
}

// Service is what clients name. It is immutable once handed to the catalog.
type Service struct {
	Key
	Type            Type
	Headless        bool         // clusterIP: None
	ClusterIPs      []netip.Addr // virtual IPs, at most one per family
	ExternalIPs     []netip.Addr
	LoadBalancerIPs []netip.Addr   // from status, mode VIP only
	SourceRanges    []netip.Prefix // who may use LoadBalancerIPs; empty: everybody
	ExternalName    string         // the CNAME target when Type is ExternalName, no trailing dot
	Ports           []Port

	// Affinity is the session affinity time-out by client address; 0: none.
	Affinity time.Duration
	// InternalLocal and ExternalLocal: traffic policy Local.
	InternalLocal bool
	ExternalLocal bool
	// PublishNotReady: endpoints count although they are not ready.
	PublishNotReady     bool
	Distribution        string // trafficDistribution: "", PreferSameZone, PreferSameNode, PreferClose
	HealthCheckNodePort uint16
	ProxyName           string // service.kubernetes.io/service-proxy-name: another proxy's business
	Labels              map[string]string
	Created             time.Time
}

// Equal says whether two services are the same to every view.
func (s *Service) Equal(o *Service) bool {
	if s == nil || o == nil {
		return s == o
	}
	return s.Key == o.Key && s.Type == o.Type && s.Headless == o.Headless &&
		slices.Equal(s.ClusterIPs, o.ClusterIPs) &&
		slices.Equal(s.ExternalIPs, o.ExternalIPs) &&
		slices.Equal(s.LoadBalancerIPs, o.LoadBalancerIPs) &&
		slices.Equal(s.SourceRanges, o.SourceRanges) &&
		s.ExternalName == o.ExternalName &&
		slices.Equal(s.Ports, o.Ports) &&
		s.Affinity == o.Affinity &&
		s.InternalLocal == o.InternalLocal && s.ExternalLocal == o.ExternalLocal &&
		s.PublishNotReady == o.PublishNotReady &&
		s.Distribution == o.Distribution &&
		s.HealthCheckNodePort == o.HealthCheckNodePort &&
		s.ProxyName == o.ProxyName &&
		maps.Equal(s.Labels, o.Labels) &&
		s.Created.Equal(o.Created)
}
