package cli

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fingerpost/fingerpost/catalog"
)

// The shapes of -o json and yaml. They are an interface: fields are added,
// never renamed.

type serviceItem struct {
	Namespace    string            `json:"namespace"`
	Name         string            `json:"name"`
	Type         catalog.Type      `json:"type"`
	Headless     bool              `json:"headless,omitempty"`
	ClusterIPs   []netip.Addr      `json:"clusterIPs,omitempty"`
	ExternalIPs  []netip.Addr      `json:"externalIPs,omitempty"`
	ExternalName string            `json:"externalName,omitempty"`
	Ports        []portItem        `json:"ports,omitempty"`
	Ready        int               `json:"ready"`
	Total        int               `json:"total"`
	Why          string            `json:"why,omitempty"`
	Labels       map[string]string `json:"labels,omitempty"`
	Created      *time.Time        `json:"created,omitempty"`
}

type portItem struct {
	Name        string           `json:"name,omitempty"`
	Port        uint16           `json:"port"`
	Protocol    catalog.Protocol `json:"protocol"`
	NodePort    uint16           `json:"nodePort,omitempty"`
	Target      string           `json:"target,omitempty"`
	AppProtocol string           `json:"appProtocol,omitempty"`
}

type endpointItem struct {
	Namespace   string            `json:"namespace"`
	Service     string            `json:"service"`
	Address     netip.Addr        `json:"address"`
	Ports       []portItem        `json:"ports,omitempty"`
	Ready       bool              `json:"ready"`
	Serving     bool              `json:"serving"`
	Terminating bool              `json:"terminating,omitempty"`
	Local       bool              `json:"local,omitempty"`
	Weight      uint16            `json:"weight"`
	Health      healthItem        `json:"health"`
	Origin      string            `json:"origin,omitempty"`
	Kind        string            `json:"kind,omitempty"`
	Name        string            `json:"name,omitempty"`
	Hostname    string            `json:"hostname,omitempty"`
	Node        string            `json:"node,omitempty"`
	Zone        string            `json:"zone,omitempty"`
	Metadata    map[string]string `json:"metadata,omitempty"`
}

type healthItem struct {
	State  catalog.State `json:"state"`
	Reason string        `json:"reason,omitempty"`
	By     string        `json:"by,omitempty"`
	Since  *time.Time    `json:"since,omitempty"`
}

type namespaceItem struct {
	Name      string `json:"name"`
	Services  int    `json:"services"`
	Ready     int    `json:"ready"`
	Endpoints int    `json:"endpoints"`
}

type list[T any] struct {
	Items []T `json:"items"`
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func newServiceItem(e *catalog.Entry, now time.Time) serviceItem {
	s := e.Service
	it := serviceItem{
		Namespace: s.Namespace, Name: s.Name, Type: s.Type, Headless: s.Headless, ClusterIPs: s.ClusterIPs,
		ExternalIPs: slices.Concat(s.ExternalIPs, s.LoadBalancerIPs), ExternalName: s.ExternalName,
		Ready: readyCount(e), Total: len(e.Endpoints), Why: whyNot(e, now), Labels: s.Labels, Created: timeOrNil(s.Created),
	}
	for _, p := range s.Ports {
		it.Ports = append(it.Ports, portItem{p.Name, p.Port, p.Protocol, p.NodePort, p.Target, p.AppProtocol})
	}
	return it
}

func newEndpointItem(k catalog.Key, ep *catalog.Endpoint) endpointItem {
	it := endpointItem{
		Namespace: k.Namespace, Service: k.Name, Address: ep.Addr,
		Ready: ep.Ready, Serving: ep.Serving, Terminating: ep.Terminating, Local: ep.Local, Weight: ep.Weight,
		Health: healthItem{ep.Health.State, ep.Health.Reason, ep.Health.By, timeOrNil(ep.Health.Since)},
		Origin: ep.Origin, Kind: ep.Target.Kind, Name: ep.Target.Name,
		Hostname: ep.Hostname, Node: ep.Node, Zone: ep.Zone, Metadata: ep.Metadata,
	}
	for _, p := range ep.Ports {
		it.Ports = append(it.Ports, portItem{Name: p.Name, Port: p.Port, Protocol: p.Protocol, AppProtocol: p.AppProtocol})
	}
	return it
}

func readyCount(e *catalog.Entry) (n int) {
	for i := range e.Endpoints {
		if e.Endpoints[i].Ready {
			n++
		}
	}
	return n
}

// whyNot gives the first reason why not all of a service is there; empty when
// all is.
func whyNot(e *catalog.Entry, now time.Time) string {
	if e.Service.Type == catalog.ExternalName {
		return ""
	}
	if len(e.Endpoints) == 0 {
		return "no endpoints"
	}
	for i := range e.Endpoints {
		if ep := &e.Endpoints[i]; !ep.Ready {
			return endpointName(ep) + " " + because(&ep.Health, now)
		}
	}
	return ""
}

// because says what is wrong, who said so and since when:
// "Failing: connection refused (check http, 3m)".
func because(h *catalog.Health, now time.Time) string {
	s := string(h.State)
	if h.Reason != "" {
		s += ": " + h.Reason
	}
	var by []string
	for _, w := range []string{h.By, age(h.Since, now)} {
		if w != "" {
			by = append(by, w)
		}
	}
	if len(by) > 0 {
		s += " (" + strings.Join(by, ", ") + ")"
	}
	return s
}

// endpointName is an endpoint's address with its port, or the address alone
// when it has not exactly one.
func endpointName(ep *catalog.Endpoint) string {
	if len(ep.Ports) == 1 {
		return netip.AddrPortFrom(ep.Addr, ep.Ports[0].Port).String()
	}
	return ep.Addr.String()
}

func servicePorts(s *catalog.Service) string {
	var out []string
	for _, p := range s.Ports {
		n := strconv.Itoa(int(p.Port))
		if p.NodePort != 0 {
			n += ":" + strconv.Itoa(int(p.NodePort))
		}
		out = append(out, n+"/"+string(p.Protocol))
	}
	return strings.Join(out, ",")
}

func endpointPorts(ep *catalog.Endpoint) string {
	var out []string
	for _, p := range ep.Ports {
		s := strconv.Itoa(int(p.Port))
		if p.Name != "" {
			s = p.Name + ":" + s
		}
		if p.Protocol != catalog.TCP {
			s += "/" + string(p.Protocol)
		}
		out = append(out, s)
	}
	return strings.Join(out, ",")
}

// serviceAddress is what a client connects to.
func serviceAddress(s *catalog.Service) string {
	switch {
	case s.Type == catalog.ExternalName:
		return s.ExternalName
	case s.Headless:
		return "None"
	}
	return join(s.ClusterIPs)
}

func join[T fmt.Stringer](in []T) string {
	out := make([]string, len(in))
	for i, x := range in {
		out[i] = x.String()
	}
	return strings.Join(out, ",")
}

// entries gives the services of a namespace (empty: all), sorted by name.
func entries(s *catalog.Snapshot, namespace string) (out []*catalog.Entry) {
	for e := range s.All() {
		if namespace == "" || e.Service.Namespace == namespace {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(a, b *catalog.Entry) int {
		return cmp.Or(cmp.Compare(a.Service.Namespace, b.Service.Namespace), cmp.Compare(a.Service.Name, b.Service.Name))
	})
	return out
}

// sortedEndpoints gives an entry's endpoints in the order of their addresses.
func sortedEndpoints(e *catalog.Entry) []*catalog.Endpoint {
	out := make([]*catalog.Endpoint, len(e.Endpoints))
	for i := range e.Endpoints {
		out[i] = &e.Endpoints[i]
	}
	slices.SortStableFunc(out, func(a, b *catalog.Endpoint) int {
		return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(endpointPorts(a), endpointPorts(b)))
	})
	return out
}
