package dns

import (
	"fmt"
	"net/netip"

	"github.com/fingerpost/fingerpost/catalog"
)

// Registration is the Service that a name comes from, as the catalog has it.
type Registration struct {
	Type         catalog.Type `json:"type"`
	Headless     bool         `json:"headless,omitempty"`
	ClusterIPs   []netip.Addr `json:"clusterIPs,omitempty"`
	ExternalName string       `json:"externalName,omitempty"`
	Ports        []string     `json:"ports,omitempty"` // name:number/protocol
	// PublishNotReady: endpoints are named before they are ready.
	PublishNotReady bool `json:"publishNotReady,omitempty"`
}

func register(e *catalog.Entry) *Registration {
	s := e.Service
	r := &Registration{
		Type: s.Type, Headless: s.Headless, ClusterIPs: s.ClusterIPs, ExternalName: s.ExternalName,
		PublishNotReady: s.PublishNotReady,
	}
	for i := range s.Ports {
		r.Ports = append(r.Ports, portText(s.Ports[i].Name, s.Ports[i].Port, s.Ports[i].Protocol))
	}
	return r
}

func explainPorts(ep *catalog.Endpoint) []string {
	var ports []string
	for _, p := range ep.Ports {
		ports = append(ports, portText(p.Name, p.Port, p.Protocol))
	}
	return ports
}

func portText(name string, number uint16, proto catalog.Protocol) string {
	s := fmt.Sprintf("%d/%s", number, proto)
	if name != "" {
		s = name + ":" + s
	}
	return s
}

// holds says whether a name in wire form is of the zone.
func (x *index) holds(wire string) bool {
	if wire == "" {
		return false
	}
	var n name
	n.set(wire)
	_, ok := n.under(x.zone, x.zoneLabels)
	return ok
}
