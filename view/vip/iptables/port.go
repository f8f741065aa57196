package iptables

import (
	"cmp"
	"slices"
	"strings"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/vip"
)

// portKey is one port of a service in one family: what has a KUBE-SVC chain.
type portKey struct {
	service catalog.Key
	port    string
	proto   catalog.Protocol
	v6      bool
}

func (k portKey) compare(o portKey) int {
	v6 := func(k portKey) int {
		if k.v6 {
			return 1
		}
		return 0
	}
	return cmp.Or(k.service.Compare(o.service), strings.Compare(k.port, o.port),
		strings.Compare(string(k.proto), string(o.proto)), cmp.Compare(v6(k), v6(o)))
}

func keyOf(f *vip.Frontend) portKey {
	return portKey{f.Service, f.Port, f.Proto, f.Addr.Addr().Is6()}
}

// port is what the rules of a portKey are made from. It is immutable.
type port struct {
	portKey
	fronts []*vip.Frontend // by scope, then address
	extra
}

// extra is what rules need of a service besides its frontends.
type extra struct {
	internalLocal bool
	check         uint16 // health check node port
}

func extraOf(e *catalog.Entry) extra {
	if e == nil || e.Service == nil {
		return extra{}
	}
	x := extra{internalLocal: e.Service.InternalLocal}
	if e.Service.ExternalLocal && e.Service.Type == catalog.LoadBalancer {
		x.check = e.Service.HealthCheckNodePort
	}
	return x
}

func (p *port) equal(o *port) bool {
	return p.portKey == o.portKey && p.extra == o.extra && slices.Equal(p.fronts, o.fronts)
}

// portsOf groups the frontends that a service has.
func portsOf(fronts []*vip.Frontend, x extra) []*port {
	byKey := map[portKey]*port{}
	var out []*port
	for _, f := range fronts {
		k := keyOf(f)
		p := byKey[k]
		if p == nil {
			p = &port{portKey: k, extra: x}
			byKey[k] = p
			out = append(out, p)
		}
		p.fronts = append(p.fronts, f)
	}
	for _, p := range out {
		slices.SortFunc(p.fronts, func(a, b *vip.Frontend) int {
			return cmp.Or(cmp.Compare(a.Scope, b.Scope), a.Addr.Compare(b.Addr))
		})
	}
	slices.SortFunc(out, func(a, b *port) int { return a.compare(b.portKey) })
	return out
}
