package cluster

import (
	"net/netip"
	"slices"
	"strconv"

	"github.com/fingerpost/fingerpost/catalog"
)

// candidate is an endpoint as the catalog has it.
type candidate struct {
	identity
	weight uint16
	near   bool
}

// candidates gives the endpoints that a cluster's requests may go to, sorted by
// address, each once; or why there are none.
func candidates(e *catalog.Entry, k Key, node, zone string, proto catalog.Protocol) ([]candidate, Problem) {
	name := "service " + k.Service.String()
	if e == nil || e.Service == nil {
		return nil, Problem(name + " does not exist")
	}
	if e.Service.Type == catalog.ExternalName {
		return nil, Problem(name + " is of type ExternalName, which is not allowed here")
	}
	p, problem := portOf(e.Service, k.Port, proto)
	if p == nil {
		return nil, Problem(name + " " + problem)
	}
	var ready, going []*catalog.Endpoint
	for i := range e.Endpoints {
		ep := &e.Endpoints[i]
		addr := ep.Addr
		if !addr.IsValid() || addr.IsUnspecified() || addr.IsMulticast() || ep.Weight == 0 || !ep.UsableOn(node) {
			continue
		}
		if number, ok := ep.Port(p.Name, p.Protocol); !ok || number == 0 {
			continue
		}
		switch {
		case ep.Ready:
			ready = append(ready, ep)
		case ep.Serving && ep.Terminating:
			going = append(going, ep)
		}
	}
	near := catalog.Near(e.Service, ready, node, zone)
	if len(ready) == 0 {
		ready, near = going, nil
	}
	if len(ready) == 0 {
		return nil, Problem(name + " has no ready endpoint")
	}
	out := make([]candidate, 0, len(ready))
	for _, ep := range ready {
		number, _ := ep.Port(p.Name, p.Protocol)
		out = append(out, candidate{
			identity: identity{netip.AddrPortFrom(ep.Addr.Unmap(), number), ep.Target},
			weight:   ep.Weight,
			near:     near != nil && near(ep),
		})
	}
	slices.SortStableFunc(out, func(a, b candidate) int { return a.addr.Compare(b.addr) })
	return slices.CompactFunc(out, func(a, b candidate) bool { return a.addr == b.addr }), ""
}

// portOf finds the port of a service by name or number.
func portOf(s *catalog.Service, want string, proto catalog.Protocol) (*catalog.Port, string) {
	number := uint64(0)
	if want != "" {
		number, _ = strconv.ParseUint(want, 10, 16)
	}
	var found *catalog.Port
	for i := range s.Ports {
		p := &s.Ports[i]
		switch {
		case p.Protocol != proto:
		case want == "":
			if found != nil {
				return nil, "has several ports: name one"
			}
			found = p
		case p.Name == want || number != 0 && uint64(p.Port) == number:
			return p, ""
		}
	}
	if found == nil {
		if want == "" {
			return nil, "has no port"
		}
		return nil, "has no port " + want
	}
	return found, ""
}
