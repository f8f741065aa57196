package vip

import (
	"net/netip"
	"slices"

	"github.com/fingerpost/fingerpost/catalog"
)

// choice holds the endpoints that could stand behind one port in one family.
type choice struct {
	at    Place
	ready []option
	going []option // terminating, but still serving
}

type option struct {
	backend Backend
	from    *catalog.Endpoint
}

func candidates(e *catalog.Entry, at Place, p *catalog.Port, v4 bool) choice {
	c := choice{at: at}
	for i := range e.Endpoints {
		ep := &e.Endpoints[i]
		addr := ep.Addr.Unmap()
		if !addr.IsValid() || addr.Is4() != v4 || addr.IsUnspecified() || addr.IsMulticast() ||
			ep.Weight == 0 || !ep.UsableOn(at.Node) {
			continue
		}
		number, ok := ep.Port(p.Name, p.Protocol)
		if !ok || number == 0 {
			continue
		}
		o := option{Backend{netip.AddrPortFrom(addr, number), ep.Weight, ep.Node, ep.Target}, ep}
		switch {
		case ep.Ready && c.ready == nil:
			c.ready = append(make([]option, 0, len(e.Endpoints)-i), o)
		case ep.Ready:
			c.ready = append(c.ready, o)
		case ep.Serving && ep.Terminating:
			c.going = append(c.going, o)
		}
	}
	return c
}

// cluster chooses for traffic that may go to any node.
func (c *choice) cluster(s *catalog.Service) []Backend {
	if len(c.ready) == 0 {
		return backends(c.going, nil)
	}
	return backends(c.ready, c.near(s))
}

// local chooses for traffic that must stay on this node.
func (c *choice) local() []Backend {
	here := func(ep *catalog.Endpoint) bool { return ep.Node == c.at.Node }
	if b := backends(c.ready, here); len(b) > 0 {
		return b
	}
	return backends(c.going, here)
}

// near gives the filter for the ready endpoints to prefer, nil for all.
func (c *choice) near(s *catalog.Service) func(*catalog.Endpoint) bool {
	ready := make([]*catalog.Endpoint, len(c.ready))
	for i, o := range c.ready {
		ready[i] = o.from
	}
	return catalog.Near(s, ready, c.at.Node, c.at.Zone)
}

// backends gives the sorted list of those that pass, each address once.
func backends(from []option, pass func(*catalog.Endpoint) bool) []Backend {
	var out []Backend
	if pass == nil && len(from) > 0 { // it is kept, so it is as long as it must be
		out = make([]Backend, 0, len(from))
	}
	for _, o := range from {
		if pass == nil || pass(o.from) {
			out = append(out, o.backend)
		}
	}
	slices.SortFunc(out, compareBackends)
	return slices.CompactFunc(out, func(a, b Backend) bool { return a.Addr == b.Addr })
}
