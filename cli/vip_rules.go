package cli

import (
	"fmt"

	"github.com/fingerpost/fingerpost/server"
	"github.com/fingerpost/fingerpost/view/vip"
)

// rules names, for a mode, where a packet meets what: chains and maps that
// people find with nft, iptables-save or bpftool.
type rules struct{ mode string }

func rulesOf(mode string) rules { return rules{mode} }

// pick gives the word for this mode; plain is for one that has no rules.
func (r rules) pick(nft, ipt, plain string) string {
	switch r.mode {
	case server.ProxyNFTables:
		return nft
	case server.ProxyIPTables:
		return ipt
	case server.ProxyEBPF:
		return plain + " (sockets of this node: map svc; from outside: as nftables)"
	}
	return plain
}

func (r rules) entry(from string) string {
	if from == fromNode {
		return r.pick("chain output", "nat OUTPUT", "arrival")
	}
	return r.pick("chain prerouting", "nat PREROUTING", "arrival")
}

func (r rules) guard(*vip.Frontend) string {
	return r.pick("sets guarded, allowed", "KUBE-FW-…, KUBE-PROXY-FIREWALL", "source ranges")
}

func (r rules) find(f *vip.Frontend, local bool) string {
	set, chain := "svc", "KUBE-SERVICES"
	if local {
		set, chain = "local", "KUBE-EXT-…"
	}
	if f.Scope == vip.Node {
		set, chain = "node-"+set, "KUBE-NODEPORTS"
	}
	return r.pick("map "+set, chain, "socket")
}

func (r rules) refuse(_ *vip.Frontend, drop bool) string {
	if drop {
		return r.pick("chain drop", "filter KUBE-EXTERNAL-SERVICES", "policy")
	}
	return r.pick("chain reject", "filter KUBE-SERVICES", "policy")
}

func (r rules) masquerade(string) string {
	return r.pick("mark, chain masquerade", "KUBE-MARK-MASQ, KUBE-POSTROUTING", "masquerade")
}

func (r rules) affinity() string { return r.pick("map aff", "-m recent in KUBE-SVC-…", "affinity") }

func (r rules) choose(n int, f *vip.Frontend) string {
	set := "slots"
	if f.Affinity > 0 {
		set = "picks, ids"
	}
	if f.Scope == vip.Node {
		set = "node-" + set
	}
	return r.pick(fmt.Sprintf("plan of %d, map %s, dnat", n, set), "KUBE-SVC-… (statistic), KUBE-SEP-… (DNAT)", "endpoint")
}

func (r rules) undefined() string {
	return r.pick("set cluster-ips, chain reject", "filter KUBE-CLUSTER-IPS", "socket")
}

func (r rules) unallocated() string {
	return r.pick("set ranges", "filter KUBE-CLUSTER-IPS", "service ranges")
}
