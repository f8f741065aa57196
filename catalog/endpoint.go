package catalog

import (
	"maps"
	"net/netip"
	"slices"
	"time"
)

// State is the last word on an endpoint's health.
type State string

// The health states. Only Passing and Unknown (nobody checks it) go with a
// ready endpoint.
const (
	Unknown      State = "Unknown"      // nobody checks it: its registration is the last word
	Passing      State = "Passing"      // a check, probe or heartbeat says yes
	Failing      State = "Failing"      // a check or probe says no
	Starting     State = "Starting"     // not checked often enough yet
	Expired      State = "Expired"      // its heartbeats stopped
	OutOfService State = "OutOfService" // somebody took it out on purpose
	Terminating  State = "Terminating"  // it is being stopped
	Stale        State = "Stale"        // held by the mass-expiry guard: heartbeats stopped together with many others
)

// Health says why an endpoint is in or out.
type Health struct {
	State  State
	Reason string    // one line for a person; may be empty when State is Passing
	By     string    // who said it: "probe http", "supervisor", "lease", "kubelet", "manifest" …
	Since  time.Time // when State was reached; zero: not known
}

// Ref names the object behind an endpoint.
type Ref struct {
	Kind string // "Pod", "Instance" or empty (an address typed by hand)
	Name string
}

// EndpointPort is a port on which an endpoint listens.
type EndpointPort struct {
	Name        string // the name of the service's port that it serves
	Protocol    Protocol
	Port        uint16
	AppProtocol string
}

// Endpoint is one address of a service. It is immutable once handed to the
// catalog; Ports may be shared between endpoints.
type Endpoint struct {
	Addr     netip.Addr
	Ports    []EndpointPort
	Hostname string // DNS label; empty: none
	Node     string // the node it is on; empty: not known
	Zone     string
	ForZones []string // zone hints; empty: any zone
	ForNodes []string // node hints; empty: any node

	// Ready: new traffic may go to it (already true for publishNotReadyAddresses).
	// Serving: it answers, though it may be terminating.
	Ready       bool
	Serving     bool
	Terminating bool

	// Local: the address means something on Node only (a loopback address).
	// Views on other nodes must not use it.
	Local bool

	Weight   uint16 // relative share of traffic; 100 is the norm, 0 takes no new traffic
	Target   Ref
	Origin   string // the doors it came through, comma separated: "kube", "process", "http" …
	Health   Health
	Metadata map[string]string
}

// UsableOn says whether a view on this node may show the endpoint at all.
func (e *Endpoint) UsableOn(node string) bool { return !e.Local || e.Node == node }

// Port gives the endpoint's number for a port of the service, by name and
// protocol; ok is false when the endpoint does not serve that port.
func (e *Endpoint) Port(name string, proto Protocol) (port uint16, ok bool) {
	for i := range e.Ports {
		if e.Ports[i].Name == name && e.Ports[i].Protocol == proto {
			return e.Ports[i].Port, true
		}
	}
	return 0, false
}

// Equal says whether two endpoints are the same to every view.
func (e *Endpoint) Equal(o *Endpoint) bool {
	return e.Addr == o.Addr && slices.Equal(e.Ports, o.Ports) &&
		e.Hostname == o.Hostname && e.Node == o.Node && e.Zone == o.Zone &&
		slices.Equal(e.ForZones, o.ForZones) && slices.Equal(e.ForNodes, o.ForNodes) &&
		e.Ready == o.Ready && e.Serving == o.Serving && e.Terminating == o.Terminating &&
		e.Local == o.Local && e.Weight == o.Weight && e.Target == o.Target && e.Origin == o.Origin &&
		e.Health.State == o.Health.State && e.Health.Reason == o.Health.Reason &&
		e.Health.By == o.Health.By && e.Health.Since.Equal(o.Health.Since) &&
		maps.Equal(e.Metadata, o.Metadata)
}

func endpointsEqual(a, b []Endpoint) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !a[i].Equal(&b[i]) {
			return false
		}
	}
	return true
}
