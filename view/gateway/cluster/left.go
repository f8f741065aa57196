package cluster

import (
	"net/netip"
	"strings"

	"github.com/fingerpost/fingerpost/catalog"
)

// Left is an endpoint of the cluster's service that picks do not choose from.
type Left struct {
	Addr   netip.AddrPort // port 0: it has none of that name
	Target catalog.Ref
	Why    string
}

// Left lists them, in no order.
func (c *Cluster) Left() []Left {
	if c.key.External != "" {
		return nil
	}
	c.set.mu.Lock()
	e := c.set.snap.Get(c.key.Service)
	c.set.mu.Unlock()
	if e == nil || e.Service == nil {
		return nil
	}
	p, _ := portOf(e.Service, c.key.Port, catalog.TCP)
	in := map[identity]bool{}
	for _, ep := range c.Endpoints() {
		in[ep.identity] = true
	}
	var out []Left
	for i := range e.Endpoints {
		ep := &e.Endpoints[i]
		var number uint16
		if p != nil {
			number, _ = ep.Port(p.Name, p.Protocol)
		}
		at := netip.AddrPortFrom(ep.Addr.Unmap(), number)
		if in[identity{at, ep.Target}] {
			continue
		}
		out = append(out, Left{at, ep.Target, c.why(ep, number)})
	}
	return out
}

func (c *Cluster) why(ep *catalog.Endpoint, port uint16) string {
	switch {
	case !ep.Addr.IsValid() || ep.Addr.IsUnspecified() || ep.Addr.IsMulticast():
		return "its address is none to connect to"
	case port == 0:
		return "it has no port " + c.key.Port
	case ep.Weight == 0:
		return "its weight is 0"
	case !ep.UsableOn(c.set.cfg.Node):
		return "it is for requests of its own node only"
	case ep.Terminating && ep.Serving:
		return "it is being ended, and others are ready"
	case ep.Terminating:
		return "it is being ended"
	case !ep.Ready:
		why := "it is not ready"
		if h := ep.Health; h.Reason != "" {
			why += ": " + h.Reason
			if h.By != "" {
				why += " (" + strings.TrimSpace(h.By) + ")"
			}
		}
		return why
	}
	return "another entry has its address"
}
