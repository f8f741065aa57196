package dns

import (
	"bytes"
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/fingerpost/fingerpost/catalog"
)

type kind uint8

const (
	virtual  kind = iota // named by its cluster IPs
	headless             // named by its endpoints
	external             // a CNAME
)

// owner is a service's place in the index; it outlives the service's entries.
type owner struct {
	key   catalog.Key
	name  string // wire form of <service>.<namespace>, without root
	space string // wire form of the namespace label
}

// entry is all that DNS knows of one service: every name at and below its own.
// It is immutable.
type entry struct {
	owner   *owner
	source  *catalog.Entry // for Explain
	kind    kind
	a, aaaa []byte // records of the service's own name, ready to send
	vips    []netip.Addr
	ports   []port // named ones
	hosts   []host // endpoints with a host name, by label
	v4, v6  []byte // addresses of endpoints without host name, sorted
	target  string // CNAME target of an external service, wire form
}

// port is a named port with its SRV records.
type port struct {
	name   string // wire form of _name._proto, without root
	proto  int    // where the _proto label starts in name
	number uint16 // of a virtual service
	srvs   []srv  // of a headless one
}

// srv is one SRV record of a headless service.
type srv struct {
	host   int        // index into hosts, -1: the endpoint is named by its address
	addr   netip.Addr // when host is -1
	port   uint16
	weight uint16
}

// host is an endpoint name that stands for one or several addresses.
type host struct {
	label string // text, lower case
	addrs []netip.Addr
}

// exists: a headless service of which nothing is ready has no name.
func (e *entry) exists() bool {
	return e.kind != headless || len(e.a)+len(e.aaaa) > 0
}

// builder makes entries.
type builder struct {
	node string
	ttl  uint32
}

func (b *builder) build(o *owner, src *catalog.Entry) *entry {
	s := src.Service
	e := &entry{owner: o, source: src}
	switch {
	case s.Type == catalog.ExternalName:
		e.kind = external
		if _, err := netip.ParseAddr(s.ExternalName); err != nil {
			// A CNAME to an address would be a name of digits that nobody has.
			if wire, labels, err := wireName(s.ExternalName); err == nil && labels > 0 {
				e.target = wire
			}
		}
		return e
	case s.Headless:
		e.kind = headless
	default:
		for _, a := range s.ClusterIPs {
			if a.IsValid() {
				e.vips = append(e.vips, plain(a))
			}
		}
	}
	eps := b.usable(src)
	b.endpoints(e, eps)
	if e.kind == headless {
		addrs := e.endpointAddrs(nil)
		e.a, e.aaaa = b.records(addrs)
	} else {
		e.a, e.aaaa = b.records(e.vips)
	}
	for i := range s.Ports {
		b.port(e, &s.Ports[i], eps)
	}
	return e
}

// plain strips what has no place in a record: 4-in-6 and zones.
func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

func (b *builder) usable(src *catalog.Entry) []*catalog.Endpoint {
	var eps []*catalog.Endpoint
	for i := range src.Endpoints {
		if ep := &src.Endpoints[i]; b.out(src.Service, ep) == "" {
			if eps == nil {
				eps = make([]*catalog.Endpoint, 0, len(src.Endpoints)-i)
			}
			eps = append(eps, ep)
		}
	}
	return eps
}

// out says why an endpoint is not named, "" if it is.
func (b *builder) out(s *catalog.Service, ep *catalog.Endpoint) string {
	switch {
	case !ep.Addr.IsValid():
		return "it has no address"
	case !ep.UsableOn(b.node):
		return "its address means something on node " + ep.Node + " only"
	case !ep.Ready && !s.PublishNotReady && ep.Terminating:
		return "it is terminating"
	case !ep.Ready && !s.PublishNotReady:
		return "it is not ready"
	case ep.Weight == 0:
		return "its weight is 0"
	}
	return ""
}

// endpointLabel gives the name of an endpoint below its service.
func endpointLabel(ep *catalog.Endpoint) string {
	if validLabel(ep.Hostname) {
		return strings.ToLower(ep.Hostname)
	}
	return string(dashed(nil, plain(ep.Addr)))
}

// endpoints fills in the names of endpoints.
func (b *builder) endpoints(e *entry, eps []*catalog.Endpoint) {
	var named map[string][]netip.Addr // most services have none
	var unnamed []netip.Addr
	for _, ep := range eps {
		if validLabel(ep.Hostname) {
			if named == nil {
				named = map[string][]netip.Addr{}
			}
			h := endpointLabel(ep)
			named[h] = append(named[h], plain(ep.Addr))
		} else {
			unnamed = append(unnamed, plain(ep.Addr))
		}
	}
	slices.SortFunc(unnamed, netip.Addr.Compare)
	for _, a := range slices.Compact(unnamed) {
		if len(named) > 0 {
			// A host name may spell another endpoint's address: the two share it.
			l := string(dashed(nil, a))
			if _, taken := named[l]; taken {
				named[l] = append(named[l], a)
				continue
			}
		}
		if a.Is4() {
			a4 := a.As4()
			e.v4 = append(e.v4, a4[:]...)
		} else {
			a16 := a.As16()
			e.v6 = append(e.v6, a16[:]...)
		}
	}
	e.v4, e.v6 = slices.Clip(e.v4), slices.Clip(e.v6)
	for label, addrs := range named {
		slices.SortFunc(addrs, netip.Addr.Compare)
		e.hosts = append(e.hosts, host{label, slices.Clip(slices.Compact(addrs))})
	}
	slices.SortFunc(e.hosts, func(x, y host) int { return strings.Compare(x.label, y.label) })
}

// endpointAddrs adds the addresses of all endpoints to addrs, sorted, each once.
func (e *entry) endpointAddrs(addrs []netip.Addr) []netip.Addr {
	for i := 0; i < len(e.v4); i += 4 {
		addrs = append(addrs, netip.AddrFrom4([4]byte(e.v4[i:])))
	}
	for i := 0; i < len(e.v6); i += 16 {
		addrs = append(addrs, netip.AddrFrom16([16]byte(e.v6[i:])))
	}
	for i := range e.hosts {
		addrs = append(addrs, e.hosts[i].addrs...)
	}
	if len(e.hosts) > 0 {
		slices.SortFunc(addrs, netip.Addr.Compare)
		addrs = slices.Compact(addrs)
	}
	return addrs
}

// addrs gives every address that leads back to the service, sorted, each once.
func (e *entry) addrs() []netip.Addr {
	a := e.endpointAddrs(slices.Clone(e.vips))
	slices.SortFunc(a, netip.Addr.Compare)
	return slices.Compact(a)
}

// records prepares A and AAAA records of the name in the question.
func (b *builder) records(addrs []netip.Addr) (a, aaaa []byte) {
	for _, addr := range addrs {
		if addr.Is4() {
			a4 := addr.As4()
			a = append(appendHead(a, typeA, b.ttl, 4), a4[:]...)
		} else {
			a16 := addr.As16()
			aaaa = append(appendHead(aaaa, typeAAAA, b.ttl, 16), a16[:]...)
		}
	}
	return slices.Clip(a), slices.Clip(aaaa)
}

func appendHead(b []byte, typ uint16, ttl uint32, length int) []byte {
	m := message{b: b}
	m.head(questionAt, typ, ttl, length)
	return m.b
}

func (b *builder) port(e *entry, p *catalog.Port, eps []*catalog.Endpoint) {
	name, ok := wireLabel("_" + p.Name)
	if p.Name == "" || !ok {
		return
	}
	proto, _ := wireLabel("_" + string(p.Protocol))
	out := port{name: name + proto, proto: len(name), number: p.Port}
	if e.kind == headless {
		if out.srvs = b.srvs(e, p, eps); len(out.srvs) == 0 {
			return
		}
	} else if p.Port == 0 {
		return
	}
	e.ports = append(e.ports, out)
}

// srvs makes one record per endpoint name and port number. The weights share
// 100 in proportion, and are never 0: that would mean almost never (RFC 2782).
func (b *builder) srvs(e *entry, p *catalog.Port, eps []*catalog.Endpoint) []srv {
	var all []srv
	for _, ep := range eps {
		number, ok := ep.Port(p.Name, p.Protocol)
		if !ok || number == 0 {
			continue
		}
		r := srv{host: -1, addr: plain(ep.Addr), port: number, weight: ep.Weight}
		if r.host = e.findHost([]byte(endpointLabel(ep))); r.host >= 0 {
			r.addr = netip.Addr{}
		}
		all = append(all, r)
	}
	slices.SortFunc(all, func(x, y srv) int {
		return cmp.Or(cmp.Compare(x.host, y.host), x.addr.Compare(y.addr), cmp.Compare(x.port, y.port), cmp.Compare(y.weight, x.weight))
	})
	all = slices.CompactFunc(all, func(x, y srv) bool { return x.host == y.host && x.addr == y.addr && x.port == y.port })
	sum := 0
	for i := range all {
		sum += int(all[i].weight)
	}
	for i := range all {
		all[i].weight = uint16(max(1, 100*int(all[i].weight)/sum))
	}
	return all
}

// findHost gives the index of a host name, -1 if there is none.
func (e *entry) findHost(label []byte) int {
	lo, hi := 0, len(e.hosts)
	for lo < hi {
		mid := (lo + hi) / 2
		if e.hosts[mid].label < string(label) {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo < len(e.hosts) && e.hosts[lo].label == string(label) {
		return lo
	}
	return -1
}

// unnamed says whether an endpoint without host name has the address.
func (e *entry) unnamed(a netip.Addr) bool {
	if a.Is4() {
		a4 := a.As4()
		return contains(e.v4, a4[:])
	}
	a16 := a.As16()
	return contains(e.v6, a16[:])
}

func contains(sorted, key []byte) bool {
	lo, hi := 0, len(sorted)/len(key)
	for lo < hi {
		mid := (lo + hi) / 2
		switch c := bytes.Compare(sorted[mid*len(key):(mid+1)*len(key)], key); {
		case c == 0:
			return true
		case c < 0:
			lo = mid + 1
		default:
			hi = mid
		}
	}
	return false
}
