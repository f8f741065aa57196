package catalog

import "slices"

// Near gives the filter for those of a service's ready endpoints that a view on
// a node in a zone prefers: by the endpoints' hints, else by the service's
// trafficDistribution. nil: all are alike. node and zone may be empty: not known.
func Near(s *Service, ready []*Endpoint, node, zone string) func(*Endpoint) bool {
	for _, rule := range []struct {
		on bool
		// covers: the endpoint says something about this rule. One that does
		// not means that the hints are incomplete, and then they are ignored,
		// or it would never get any traffic.
		covers, fits func(*Endpoint) bool
	}{
		{node != "",
			func(ep *Endpoint) bool { return len(ep.ForNodes) > 0 },
			func(ep *Endpoint) bool { return slices.Contains(ep.ForNodes, node) }},
		{zone != "",
			func(ep *Endpoint) bool { return len(ep.ForZones) > 0 },
			func(ep *Endpoint) bool { return slices.Contains(ep.ForZones, zone) }},
		{node != "" && s.Distribution == "PreferSameNode", always,
			func(ep *Endpoint) bool { return ep.Node == node }},
		{zone != "" && (s.Distribution == "PreferSameNode" || s.Distribution == "PreferSameZone" || s.Distribution == "PreferClose"), always,
			func(ep *Endpoint) bool { return ep.Zone == zone }},
	} {
		not := func(ep *Endpoint) bool { return !rule.covers(ep) }
		if rule.on && !slices.ContainsFunc(ready, not) && slices.ContainsFunc(ready, rule.fits) {
			return rule.fits
		}
	}
	return nil
}

func always(*Endpoint) bool { return true }
