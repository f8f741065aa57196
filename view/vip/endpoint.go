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
	node, zone := c.at.Node, c.at.Zone
	for _, rule := range []struct {
		on bool
		// covers: the endpoint says something about this rule. One that does
		// not means that the hints are incomplete, and then they are ignored,
		// or it would never get any traffic.
		covers, fits func(*catalog.Endpoint) bool
	}{
		{node != "",
			func(ep *catalog.Endpoint) bool { return len(ep.ForNodes) > 0 },
			func(ep *catalog.Endpoint) bool { return slices.Contains(ep.ForNodes, node) }},
		{zone != "",
			func(ep *catalog.Endpoint) bool { return len(ep.ForZones) > 0 },
			func(ep *catalog.Endpoint) bool { return slices.Contains(ep.ForZones, zone) }},
		{node != "" && s.Distribution == "PreferSameNode", always,
			func(ep *catalog.Endpoint) bool { return ep.Node == node }},
		{zone != "" && (s.Distribution == "PreferSameNode" || s.Distribution == "PreferSameZone" || s.Distribution == "PreferClose"), always,
			func(ep *catalog.Endpoint) bool { return ep.Zone == zone }},
	} {
		if rule.on && c.all(rule.covers) && c.any(rule.fits) {
			return rule.fits
		}
	}
	return nil
}

func always(*catalog.Endpoint) bool { return true }

func (c *choice) any(f func(*catalog.Endpoint) bool) bool {
	return slices.ContainsFunc(c.ready, func(o option) bool { return f(o.from) })
}

func (c *choice) all(f func(*catalog.Endpoint) bool) bool {
	return !slices.ContainsFunc(c.ready, func(o option) bool { return !f(o.from) })
}

// backends gives the sorted list of those that pass, each address once.
func backends(from []option, pass func(*catalog.Endpoint) bool) []Backend {
	var out []Backend
	for _, o := range from {
		if pass == nil || pass(o.from) {
			out = append(out, o.backend)
		}
	}
	slices.SortFunc(out, compareBackends)
	return slices.CompactFunc(out, func(a, b Backend) bool { return a.Addr == b.Addr })
}
