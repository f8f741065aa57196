package relay

import (
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/internal/kernel"
	"github.com/fingerpost/fingerpost/view/vip"
)

// Where the numbers of relays' ports begin: above those that the kernel gives
// to sockets by itself, and above node ports, so that few programs want them on
// all addresses.
const (
	firstPort = 61000
	portCount = 1<<16 - firstPort
)

func (r *Relay) relays(e *catalog.Endpoint) bool {
	return e.Local && e.Node == r.cfg.Node && e.Addr.Unmap().IsLoopback() && e.Weight > 0
}

// concerns says whether an entry has an endpoint to relay to.
func (r *Relay) concerns(e *catalog.Entry) bool {
	return e != nil && e.Service != nil && !e.Service.Headless &&
		slices.ContainsFunc(e.Endpoints, func(e catalog.Endpoint) bool { return r.relays(&e) })
}

// rewrite gives the entry as the driver gets it, with the relays that it needs.
// Those that are new go to opened.
func (r *Relay) rewrite(c catalog.Change, opened *[]catalog.Change) (*catalog.Entry, []target) {
	if !r.concerns(c.New) {
		delete(r.told, c.Key)
		return c.New, nil
	}
	e := *c.New
	e.Endpoints = slices.Clone(e.Endpoints)
	var need []target
	var failed error
	for i := range e.Endpoints {
		ep := &e.Endpoints[i]
		if !r.relays(ep) {
			continue
		}
		addr, ports := netip.Addr{}, make([]catalog.EndpointPort, 0, len(ep.Ports))
		for _, p := range ep.Ports {
			if p.Protocol == catalog.SCTP || p.Port == 0 {
				continue
			}
			t := target{netip.AddrPortFrom(ep.Addr.Unmap(), p.Port), p.Protocol}
			at, err := r.open(t, opened)
			if err != nil {
				failed, addr = err, netip.Addr{}
				break
			}
			if !slices.Contains(need, t) {
				need = append(need, t)
				r.used[t].users++
			}
			addr, p.Port = at.Addr(), at.Port()
			ports = append(ports, p)
		}
		if addr.IsValid() {
			ep.Addr, ep.Ports = addr, ports
		}
	}
	switch {
	case failed == nil:
		delete(r.told, c.Key)
	case r.told[c.Key] != failed.Error():
		r.told[c.Key] = failed.Error()
		r.cfg.Log.Warn("relay: an endpoint is reached from this machine only", "service", c.Key, "error", failed)
		r.mu.Tell(c.Key, ReasonCannotRelay, failed.Error())
	}
	return &e, need
}

// open gives the address of the relay to a target.
func (r *Relay) open(t target, opened *[]catalog.Change) (netip.AddrPort, error) {
	if u := r.used[t]; u != nil {
		return u.at, nil
	}
	i := slices.IndexFunc(r.cfg.Addresses, func(a netip.Addr) bool { return a.Is4() == t.addr.Addr().Is4() })
	if i < 0 {
		return netip.AddrPort{}, fmt.Errorf("there is no address for a relay to %s; pods and other machines do not reach it", t.addr)
	}
	a, family := r.cfg.Addresses[i], 0
	if a.Is6() {
		family = 1
	}
	if !r.ready[family] {
		if err := kernel.AddLocalRange(netip.PrefixFrom(a, a.BitLen())); err != nil {
			return netip.AddrPort{}, fmt.Errorf("the address of relays cannot be had, so pods and other machines do not reach %s: %w", t.addr, err)
		}
		r.ready[family] = true
	}
	h := fnv.New32a()
	b, _ := t.addr.MarshalBinary()
	_, _ = h.Write(b)
	begin := h.Sum32() % portCount
	for n := range uint32(portCount) {
		s := spot{netip.AddrPortFrom(a, uint16(firstPort+(begin+n)%portCount)), t.proto}
		if _, taken := r.ports[s]; taken || !free(s) {
			continue
		}
		r.ports[s] = t
		r.used[t] = &relayed{at: s.addr}
		*opened = append(*opened, catalog.Change{Key: t.key(), New: t.entry(s.addr)})
		return s.addr, nil
	}
	return netip.AddrPort{}, fmt.Errorf("no port of %s is free for a relay to %s; pods and other machines do not reach it", a, t.addr)
}

// String is for people.
func (t target) String() string { return t.addr.String() + "/" + string(t.proto) }

// key names the service that stands for a relay among the sockets.
func (t target) key() catalog.Key { return catalog.Key{Namespace: "relay", Name: t.String()} }

// entry is that service: the relay's address, with one endpoint.
func (t target) entry(at netip.AddrPort) *catalog.Entry {
	return &catalog.Entry{
		Service: &catalog.Service{
			Key: t.key(), Type: catalog.ClusterIP, ClusterIPs: []netip.Addr{at.Addr()},
			Ports: []catalog.Port{{Protocol: t.proto, Port: at.Port()}},
		},
		Endpoints: []catalog.Endpoint{{
			Addr: t.addr.Addr(), Ports: []catalog.EndpointPort{{Protocol: t.proto, Port: t.addr.Port()}},
			Ready: true, Serving: true, Weight: 100,
		}},
	}
}

// Relays gives the endpoint that each relay leads to. The keys are like
// "192.0.0.8:61234/TCP".
func (r *Relay) Relays() map[string]netip.AddrPort {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make(map[string]netip.AddrPort, len(r.ports))
	for s, t := range r.ports {
		out[s.String()] = t.addr
	}
	return out
}

// Hits implements [vip.HitCounter], for a driver that does, too: those of a relay
// are its endpoint's.
func (r *Relay) Hits() ([]vip.Hit, bool, error) {
	c, ok := r.to.(vip.HitCounter)
	if !ok {
		return nil, false, nil
	}
	hits, ok, err := c.Hits()
	relays := r.Relays()
	for i := range hits {
		if to, relayed := relays[target{hits[i].Backend, hits[i].Proto}.String()]; relayed {
			hits[i].Backend = to
		}
	}
	return hits, ok, err
}
