package vip

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/fingerpost/fingerpost/catalog"
)

// Scope says what kind of address a frontend has.
type Scope uint8

// The scopes, the stronger claim first: an address of a service's own cannot be
// taken by another that names it in externalIPs (CVE-2020-8554).
const (
	Cluster      Scope = iota // a ClusterIP
	Node                      // a node port: every address of the node that the driver serves
	LoadBalancer              // a load balancer's address, from status
	External                  // one of externalIPs
)

// String gives the word that Kubernetes uses.
func (s Scope) String() string {
	switch s {
	case Cluster:
		return "ClusterIP"
	case Node:
		return "NodePort"
	case External:
		return "ExternalIP"
	default:
		return "LoadBalancerIP"
	}
}

// Front is what clients send to, and identifies a frontend. The address
// 0.0.0.0 or :: belongs to a node port and stands for the node's addresses of
// that family.
type Front struct {
	Addr  netip.AddrPort
	Proto catalog.Protocol
}

// String is for people: "10.96.0.7:80/TCP".
func (f Front) String() string { return f.Addr.String() + "/" + string(f.Proto) }

// Backend is one endpoint as a frontend uses it.
type Backend struct {
	Addr   netip.AddrPort
	Weight uint16 // above zero
	Node   string
	Target catalog.Ref
}

// Frontend is what one Front must do. It is immutable.
type Frontend struct {
	Front
	Scope    Scope
	Service  catalog.Key
	Port     string         // the name of the service's port
	Affinity time.Duration  // by client address; 0: none
	Sources  []netip.Prefix // who may come; empty: everybody
	Backends []Backend      // sorted by address
	Local    []Backend      // for traffic from outside, if LocalOnly
	Created  time.Time      // of the service: the older one wins a conflict

	// LocalOnly: externalTrafficPolicy Local, so traffic from outside the node
	// uses Local, even when that is empty.
	LocalOnly bool
}

// Equal says whether two frontends do the same.
func (f *Frontend) Equal(o *Frontend) bool {
	return f.Front == o.Front && f.Scope == o.Scope && f.Service == o.Service && f.Port == o.Port &&
		f.Affinity == o.Affinity && f.LocalOnly == o.LocalOnly && f.Created.Equal(o.Created) &&
		slices.Equal(f.Sources, o.Sources) &&
		slices.Equal(f.Backends, o.Backends) && slices.Equal(f.Local, o.Local)
}

// For gives the backends for traffic that starts outside this node or on it.
func (f *Frontend) For(outside bool) []Backend {
	if outside && f.LocalOnly {
		return f.Local
	}
	return f.Backends
}

// Allowed says whether a client may use the frontend at all.
func (f *Frontend) Allowed(client netip.Addr) bool {
	return len(f.Sources) == 0 || slices.ContainsFunc(f.Sources, func(p netip.Prefix) bool { return p.Contains(client) })
}

// Place is where the proxy runs.
type Place struct {
	Node string
	Zone string // empty: not known, so zones play no part
}

// Compile gives the frontends of one service, nil if it has none.
func Compile(e *catalog.Entry, at Place) []*Frontend {
	if e == nil || e.Service == nil {
		return nil
	}
	s := e.Service
	if s.Headless || s.Type == catalog.ExternalName || s.ProxyName != "" || len(s.ClusterIPs) == 0 {
		return nil
	}
	var out []*Frontend
	for i := range s.Ports {
		p := &s.Ports[i]
		for _, ip := range s.ClusterIPs {
			ip = ip.Unmap()
			if !ip.IsValid() {
				continue
			}
			out = appendPort(out, e, at, p, ip)
		}
	}
	return out
}

// appendPort adds the frontends of one port in the family of clusterIP.
func appendPort(out []*Frontend, e *catalog.Entry, at Place, p *catalog.Port, clusterIP netip.Addr) []*Frontend {
	s := e.Service
	c := candidates(e, at, p, clusterIP.Is4())
	everybody, local := c.cluster(s), []Backend(nil)
	add := func(scope Scope, addr netip.Addr, port uint16, change func(*Frontend)) {
		f := &Frontend{
			Front:    Front{netip.AddrPortFrom(addr, port), p.Protocol},
			Scope:    scope,
			Service:  s.Key,
			Port:     p.Name,
			Affinity: s.Affinity,
			Created:  s.Created,
			Backends: everybody,
		}
		if change != nil {
			change(f)
		}
		out = append(out, f)
	}
	add(Cluster, clusterIP, p.Port, func(f *Frontend) {
		if s.InternalLocal {
			f.Backends = c.local()
		}
	})
	if s.ExternalLocal {
		local = c.local()
	}
	outside := func(f *Frontend) {
		if s.ExternalLocal {
			f.LocalOnly, f.Local = true, local
		}
	}
	if p.NodePort != 0 {
		any := netip.IPv4Unspecified()
		if clusterIP.Is6() {
			any = netip.IPv6Unspecified()
		}
		add(Node, any, p.NodePort, outside)
	}
	for _, ip := range sameFamily(s.ExternalIPs, clusterIP) {
		add(External, ip, p.Port, outside)
	}
	for _, ip := range sameFamily(s.LoadBalancerIPs, clusterIP) {
		add(LoadBalancer, ip, p.Port, func(f *Frontend) {
			outside(f)
			f.Sources = s.SourceRanges
		})
	}
	return out
}

func sameFamily(all []netip.Addr, like netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, a := range all {
		if a = a.Unmap(); a.IsValid() && a.Is4() == like.Is4() && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

func compareBackends(a, b Backend) int {
	return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(b.Weight, a.Weight))
}
