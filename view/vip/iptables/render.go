package iptables

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/vip"
)

// shared are the chains in which every service has rules of its own.
type shared int

const (
	natServices shared = iota
	natNodePorts
	filterServices
	filterExternal
	filterFirewall
	filterChecks
	filterClusterIPs
	sharedCount
)

func (s shared) chain() string {
	return [...]string{chainServices, chainNodePorts, chainServices, chainExternal, chainFirewall, chainNodePorts, chainClusterIPs}[s]
}

// counted: several ports of a service, or several services, may have the same
// rule there, and the last one takes it away.
func (s shared) counted() bool { return s == filterChecks || s == filterClusterIPs }

// chain is a chain of nat with its rules, without "-A NAME".
type chain struct {
	name  string
	rules []string
}

// rules is what one port of a service needs.
type rules struct {
	chains []chain // one that another jumps to comes before it
	shared [sharedCount][]string
}

// place is what rules depend on besides the catalog.
type place struct {
	v6        bool
	nodes     []netip.Addr   // of the family
	anyNode   bool           // node ports answer on every address
	pods      []netip.Prefix // of the family
	services  []netip.Prefix // of the family
	mark      uint32
	random    bool // MASQUERADE knows --random-fully
	recent    bool // there is -m recent
	protocols map[catalog.Protocol]bool
}

// render gives the rules of a port. It is pure.
func (at *place) render(p *port) rules {
	var r rules
	proto := strings.ToLower(string(p.proto))
	w := writer{at: at, port: p, rules: &r, proto: proto, name: portName(p.service, p.port)}
	w.hash = hash(w.name, proto)

	var internal, external *vip.Frontend
	for _, f := range p.fronts {
		if f.Scope == vip.Cluster && internal == nil {
			internal = f
		} else if f.Scope != vip.Cluster && external == nil {
			external = f
		}
	}
	svc, svl := prefixService+w.hash, prefixLocal+w.hash
	var all, local []vip.Backend
	internalChain := svc
	if external != nil {
		all = external.Backends
		if external.LocalOnly {
			local = external.Local
		}
	}
	if internal != nil {
		if p.internalLocal {
			local, internalChain = internal.Backends, svl
		} else {
			all = internal.Backends
		}
	}
	w.endpoints(all, local)
	if len(all) > 0 {
		w.choice(svc, all, internalChain == svc)
	}
	if len(local) > 0 {
		w.choice(svl, local, internalChain == svl)
	}
	if external != nil && len(external.Backends) > 0 {
		w.outside(external, len(local) > 0)
	}
	for _, f := range p.fronts {
		w.front(f, internalChain)
	}
	if p.check != 0 {
		w.add(filterChecks, "-m comment --comment %q -p tcp -m tcp --dport %d -j ACCEPT", clean(p.service.String())+" health check node port", p.check)
	}
	return r
}

// writer makes the rules of one port.
type writer struct {
	at    *place
	port  *port
	rules *rules
	proto string
	name  string
	hash  string
}

func (w *writer) add(to shared, format string, args ...any) {
	w.rules.shared[to] = append(w.rules.shared[to], fmt.Sprintf(format, args...))
}

func (w *writer) endpointChain(b vip.Backend) string {
	return prefixEndpoint + hash(w.name, w.proto, b.Addr.String())
}

// list names where the kernel remembers the clients of an endpoint: the same
// for all ports of the service.
func (w *writer) list(b vip.Backend) string {
	return "KUBE-AFF-" + hash(w.port.service.String(), b.Addr.Addr().String())
}

// affinity is zero if the kernel cannot do it.
func (w *writer) affinity() time.Duration {
	if !w.at.recent {
		return 0
	}
	return w.port.fronts[0].Affinity
}

func seconds(d time.Duration) string { return strconv.Itoa(max(1, int(d/time.Second))) }

func (w *writer) endpoints(lists ...[]vip.Backend) {
	done := map[netip.AddrPort]bool{}
	for _, l := range lists {
		for _, b := range l {
			if done[b.Addr] {
				continue
			}
			done[b.Addr] = true
			remember := ""
			if w.affinity() > 0 {
				remember = " -m recent --set --name " + w.list(b)
			}
			c := chain{name: w.endpointChain(b)}
			if !b.Addr.Addr().IsLoopback() { // on this machine itself there is nothing to lead back
				c.rules = append(c.rules, fmt.Sprintf("-s %s -m comment --comment %q -j %s", b.Addr.Addr(), w.name, chainMarkMasq))
			}
			c.rules = append(c.rules, fmt.Sprintf("-p %s -m comment --comment %q%s -m %s -j DNAT --to-destination %s", w.proto, w.name, remember, w.proto, b.Addr))
			w.rules.chains = append(w.rules.chains, c)
		}
	}
}

// choice is a KUBE-SVC or KUBE-SVL chain.
func (w *writer) choice(name string, backends []vip.Backend, ofClusterIP bool) {
	c := chain{name: name}
	for _, f := range w.port.fronts {
		if f.Scope == vip.Cluster && ofClusterIP && !f.Addr.Addr().IsLoopback() {
			c.rules = append(c.rules, w.offCluster(f)...)
		}
	}
	if d := w.affinity(); d > 0 {
		for _, b := range backends {
			c.rules = append(c.rules, fmt.Sprintf("-m comment --comment %q -m recent --rcheck --seconds %s --reap --name %s -j %s",
				w.name+" -> "+b.Addr.String(), seconds(d), w.list(b), w.endpointChain(b)))
		}
	}
	left := 0
	for _, b := range backends {
		left += int(b.Weight)
	}
	for i, b := range backends {
		odds := ""
		if i < len(backends)-1 {
			odds = fmt.Sprintf(" -m statistic --mode random --probability %0.10f", float64(b.Weight)/float64(left))
		}
		left -= int(b.Weight)
		c.rules = append(c.rules, fmt.Sprintf("-m comment --comment %q%s -j %s", w.name+" -> "+b.Addr.String(), odds, w.endpointChain(b)))
	}
	w.rules.chains = append(w.rules.chains, c)
}

// offCluster marks what comes to a ClusterIP from where no reply would find
// its way back through this node.
func (w *writer) offCluster(f *vip.Frontend) []string {
	to := fmt.Sprintf("-d %s -p %s -m comment --comment %q -m %s --dport %d", f.Addr.Addr(), w.proto, w.name+" cluster IP", w.proto, f.Addr.Port())
	switch len(w.at.pods) {
	case 0:
		return []string{to + " -m addrtype --src-type LOCAL -j " + chainMarkMasq}
	case 1:
		return []string{fmt.Sprintf("! -s %s %s -j %s", w.at.pods[0], to, chainMarkMasq)}
	}
	return []string{to + " -j " + chainOffCluster}
}

// outside is the KUBE-EXT chain.
func (w *writer) outside(f *vip.Frontend, local bool) {
	c := chain{name: prefixExternal + w.hash}
	svc := prefixService + w.hash
	say := func(format string, args ...any) { c.rules = append(c.rules, fmt.Sprintf(format, args...)) }
	if !f.LocalOnly {
		say("-m comment --comment %q -j %s", "masquerade traffic for "+w.name+" external destinations", chainMarkMasq)
		say("-j %s", svc)
	} else {
		for _, p := range w.at.pods {
			say("-s %s -m comment --comment %q -j %s", p, "pod traffic for "+w.name+" external destinations", svc)
		}
		say("-m comment --comment %q -m addrtype --src-type LOCAL -j %s", "masquerade LOCAL traffic for "+w.name+" external destinations", chainMarkMasq)
		say("-m comment --comment %q -m addrtype --src-type LOCAL -j %s", "route LOCAL traffic for "+w.name+" external destinations", svc)
		if local {
			say("-j %s", prefixLocal+w.hash)
		}
	}
	w.rules.chains = append(w.rules.chains, c)
}

// reject is how a client is turned away at once. ICMP errors are limited in
// their rate, so TCP gets a reset.
func (w *writer) reject() string {
	if w.port.proto == catalog.TCP {
		return "REJECT --reject-with tcp-reset"
	}
	return "REJECT"
}

// front is what leads to the chains of a port, or turns away.
func (w *writer) front(f *vip.Frontend, internalChain string) {
	to := fmt.Sprintf("-p %s -m %s --dport %d", w.proto, w.proto, f.Addr.Port())
	match := func(comment string) string {
		return fmt.Sprintf("-d %s -m comment --comment %q %s", f.Addr.Addr(), w.name+" "+comment, to)
	}
	// Where nothing is translated, what arrives in the filter still has the
	// frontend's address.
	refuse := func(in shared, why, target string) {
		if f.Scope != vip.Node {
			w.add(in, "%s -j %s", match(why), target)
			return
		}
		for _, d := range w.at.nodeMatches() {
			w.add(in, "%s -m comment --comment %q %s -j %s", d, w.name+" "+why, to, target)
		}
	}
	const none, noneHere = "has no endpoints", "has no local endpoints"
	if f.Scope == vip.Cluster {
		if len(f.Backends) > 0 {
			w.add(natServices, "%s -j %s", match("cluster IP"), internalChain)
		} else {
			refuse(filterServices, none, w.reject())
		}
		if len(w.at.services) > 0 {
			why := clean(f.Service.String()) + " has no such port"
			w.add(filterClusterIPs, "-d %s -p tcp -m comment --comment %q -j REJECT --reject-with tcp-reset", f.Addr.Addr(), why)
			w.add(filterClusterIPs, "-d %s ! -p tcp -m comment --comment %q -j REJECT", f.Addr.Addr(), why)
		}
		return
	}
	if len(f.Backends) == 0 {
		refuse(filterExternal, none, w.reject())
		return
	}
	if f.LocalOnly && len(f.Local) == 0 {
		refuse(filterExternal, noneHere, "DROP")
	}
	ext := prefixExternal + w.hash
	switch {
	case f.Scope == vip.Node:
		w.add(natNodePorts, "-m comment --comment %q %s -j %s", w.name, to, ext)
	case f.Scope == vip.External:
		w.add(natServices, "%s -j %s", match("external IP"), ext)
	case len(f.Sources) == 0:
		w.add(natServices, "%s -j %s", match("loadbalancer IP"), ext)
	default:
		fw := w.firewall(f, ext)
		w.add(natServices, "%s -j %s", match("loadbalancer IP"), fw)
		w.add(filterFirewall, "%s -j DROP", match("traffic not accepted by "+fw))
	}
}

// firewall makes sure of the KUBE-FW chain: what it does not let in is not
// translated, and dropped by the filter.
func (w *writer) firewall(f *vip.Frontend, ext string) string {
	name := prefixFirewall + w.hash
	i := slices.IndexFunc(w.rules.chains, func(c chain) bool { return c.name == name })
	if i < 0 {
		c := chain{name: name}
		for _, p := range ofFamily(f.Sources, w.at.v6) {
			c.rules = append(c.rules, fmt.Sprintf("-s %s -m comment --comment %q -j %s", p, w.name+" loadbalancer IP", ext))
		}
		i = len(w.rules.chains)
		w.rules.chains = append(w.rules.chains, c)
	}
	// A node that may come may have the address on a device of its own, and
	// then that is where its packets come from.
	if slices.ContainsFunc(w.at.nodes, f.Allowed) {
		c := &w.rules.chains[i]
		c.rules = append(c.rules, fmt.Sprintf("-s %s -m comment --comment %q -j %s", f.Addr.Addr(), w.name+" loadbalancer IP", ext))
	}
	return name
}

// nodeMatches gives what matches packets to this node's addresses.
func (at *place) nodeMatches() []string {
	if at.anyNode {
		if at.v6 {
			return []string{"! -d ::1/128 -m addrtype --dst-type LOCAL"}
		}
		return []string{"! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL"}
	}
	var out []string
	for _, a := range at.nodes {
		out = append(out, "-d "+a.String())
	}
	return out
}
