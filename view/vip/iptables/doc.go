// Package iptables serves virtual IPs with the kernel's iptables, by the
// programs of that name, in the chains that people know from kube-proxy. Both
// the legacy and the nft flavour work; legacy is much faster at size.
//
// # Guarantees
//
//   - Packets, not processes: what is programmed stays when this program ends or
//     is killed. The next one writes all its chains in one transaction for each
//     table; there is no moment without rules, and no connection is lost.
//   - Apply returns when the kernel does what the batch says. A change writes
//     the chains and rules that differ. If the programs fail, everything is
//     written anew, with growing pauses, until that succeeds.
//   - What goes from "rejected" to "served" or back is never in neither state:
//     rejections are added before and removed after translations change.
//   - Only chains whose names begin with KUBE- are written, and the jumps to
//     them from the built-in chains. [Cleanup] removes exactly those, but for
//     chains that somebody else's rules jump to.
//   - Whatever others do to them is noticed and put right: within a second when
//     the number of rules changes, within [Config].Resync otherwise.
//   - UDP flows to an endpoint that went away are cut, so that the next datagram
//     chooses anew. TCP connections are not touched.
//
// # Layout
//
// For each family, as in kube-proxy (the names end in a hash of the service's
// port, the same as kube-proxy's):
//
//	nat     KUBE-SERVICES    address, port → one of the next four; last: node ports
//	        KUBE-NODEPORTS   port → KUBE-EXT-…
//	        KUBE-FW-…        source ranges of a load balancer's address → KUBE-EXT-…
//	        KUBE-EXT-…       traffic from outside: masquerade, policy Local
//	        KUBE-SVC-…       chooses among all endpoints, by -m statistic or -m recent
//	        KUBE-SVL-…       chooses among those of this node
//	        KUBE-SEP-…       one endpoint: hairpin, DNAT
//	        KUBE-MARK-MASQ, KUBE-POSTROUTING   one bit of the packet mark
//	filter  KUBE-SERVICES, KUBE-EXTERNAL-SERVICES   no endpoints: reject, or drop for policy Local
//	        KUBE-CLUSTER-IPS      other ports of ClusterIPs: reject; addresses of no service: drop
//	        KUBE-PROXY-FIREWALL   what KUBE-FW-… did not let in
//	        KUBE-NODEPORTS        health check node ports are open
//	        KUBE-FORWARD          what was translated may pass; INVALID is dropped
//
// # Limits
//
// Session affinity is by -m recent: the kernel remembers 100 clients for each
// endpoint unless xt_recent is loaded with another ip_list_tot. The clients of
// all ports of a service share one list, so they meet the same endpoint on each.
package iptables
