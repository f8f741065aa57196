package iptables

import "fmt"

// Tables of iptables.
const (
	tableFilter = "filter"
	tableNAT    = "nat"
)

// fixedChain is a chain that is there whatever the catalog says. The rules of
// services go between head and tail.
type fixedChain struct {
	name       string
	of         []shared // whose rules it holds
	head, tail []string
}

// jump leads from a built-in chain into one of ours.
type jump struct {
	from, to, match string
}

func (at *place) filterChains() []fixedChain {
	bit := fmt.Sprintf("%#x/%#x", at.mark, at.mark)
	services := fixedChain{name: chainServices, of: []shared{filterServices}}
	clusterIPs := fixedChain{name: chainClusterIPs, of: []shared{filterClusterIPs}}
	for _, p := range at.services {
		// What has been translated goes elsewhere by now, and skips the chain.
		services.tail = append(services.tail, fmt.Sprintf("-d %s -m comment --comment \"addresses of services\" -j %s", p, chainClusterIPs))
		clusterIPs.tail = append(clusterIPs.tail, fmt.Sprintf("-d %s -m comment --comment \"no service has this address\" -j DROP", p))
	}
	return []fixedChain{
		clusterIPs,
		services,
		{name: chainExternal, of: []shared{filterExternal}},
		{name: chainFirewall, of: []shared{filterFirewall}},
		{name: chainNodePorts, of: []shared{filterChecks}},
		{name: chainForward, head: []string{
			// A reply of a local endpoint that is out of its window is not
			// translated back, and the client would answer it with a reset.
			"-m conntrack --ctstate INVALID -j DROP",
			"-m comment --comment \"kubernetes forwarding rules\" -m mark --mark " + bit + " -j ACCEPT",
			"-m comment --comment \"kubernetes forwarding conntrack rule\" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
		}},
	}
}

func (at *place) natChains() []fixedChain {
	masquerade := "-m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE"
	if at.random {
		masquerade += " --random-fully"
	}
	off := fixedChain{name: chainOffCluster}
	for _, p := range at.pods {
		off.head = append(off.head, fmt.Sprintf("-s %s -j RETURN", p))
	}
	off.head = append(off.head, "-j "+chainMarkMasq)
	services := fixedChain{name: chainServices, of: []shared{natServices}}
	for _, d := range at.nodeMatches() {
		services.tail = append(services.tail, d+" -m comment --comment \"kubernetes service nodeports; NOTE: this must be the last rule in this chain\" -j "+chainNodePorts)
	}
	return []fixedChain{
		{name: chainMarkMasq, head: []string{fmt.Sprintf("-j MARK --or-mark %#x", at.mark)}},
		{name: chainPostrouting, head: []string{
			fmt.Sprintf("-m mark ! --mark %#x/%#x -j RETURN", at.mark, at.mark),
			// The packet may come by again, when it is tunnelled.
			fmt.Sprintf("-j MARK --xor-mark %#x", at.mark),
			masquerade,
		}},
		off,
		{name: chainNodePorts, of: []shared{natNodePorts}},
		services,
	}
}

func jumps(table string) []jump {
	const fresh = "-m conntrack --ctstate NEW "
	if table == tableNAT {
		const portals = "-m comment --comment \"kubernetes service portals\""
		return []jump{
			{"PREROUTING", chainServices, portals},
			{"OUTPUT", chainServices, portals},
			{"POSTROUTING", chainPostrouting, "-m comment --comment \"kubernetes postrouting rules\""},
		}
	}
	say := func(s string) string { return fresh + "-m comment --comment \"kubernetes " + s + "\"" }
	var out []jump
	// Each is put first, so the order here is from last to first.
	for _, from := range []string{"INPUT", "FORWARD", "OUTPUT"} {
		out = append(out, jump{from, chainExternal, say("externally-visible service portals")})
		if from != "INPUT" {
			out = append(out, jump{from, chainServices, say("service portals")})
		}
		switch from {
		case "INPUT":
			out = append(out, jump{from, chainNodePorts, "-m comment --comment \"kubernetes health check service ports\""})
		case "FORWARD":
			out = append(out, jump{from, chainForward, "-m comment --comment \"kubernetes forwarding rules\""})
		}
		out = append(out, jump{from, chainFirewall, say("load balancer firewall")})
	}
	return out
}
