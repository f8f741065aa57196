// Package nftables serves virtual IPs with the kernel's nftables, over netlink.
//
// # Guarantees
//
//   - Packets, not processes: what is programmed stays when this program ends,
//     is killed or is replaced. The next one adopts the rules that it finds and
//     changes only what differs; there is no moment without rules.
//   - Apply returns when the kernel does what the batch says. A batch of up to
//     200 frontends is one transaction: no packet meets half of it.
//   - The cost of a change does not depend on how many services there are. There
//     is no chain per service or endpoint, nothing is listed on the way, and no
//     change makes the kernel check its rules again but the first use of a
//     number of endpoints.
//   - Established connections are not touched. TCP to an endpoint that went away
//     goes on until its ends close it; UDP flows to it are cut, so that the next
//     datagram chooses anew: before Apply returns, or within a second where
//     conntrack is so large that looking would take most of the time.
//   - Only the tables named in [Config] are written, one for each family.
//     Whatever others do to them is noticed, within a second if rules or sets
//     are gone and within [Config].Resync otherwise, and put right.
//   - When the kernel refuses a transaction, the whole table is compared with
//     what it should be and corrected, until that succeeds.
//
// # Layout
//
// For each family a table with these maps (ip shown; K is
// "daddr . l4proto . dport", for node ports without daddr and with names
// beginning with node-):
//
//	svc    K : plan             what happens to a frontend
//	local  K : plan             the same for traffic from outside, externalTrafficPolicy Local
//	slots  K . slot : addr . port
//	plans  plan : goto chain    one chain per kind of frontend and number of slots
//	aff    saddr . daddr : id   which endpoint a client has (dynamic, with time-outs)
//	local-aff                   the same for traffic from outside, policy Local
//	picks  K . slot : id        slots of frontends with affinity
//	ids    K . id : addr . port
//
// A plan's chain chooses a random slot and rewrites the destination. The plan
// and the endpoint's id travel between two lookups in the packet's priority
// (skb->priority), because nft cannot list nested lookups; only the first packet of
// a connection is affected, and the chain sets it back to zero. Masquerading is
// decided where the destination is, and carried to postrouting by one bit of
// the packet mark, which is cleared there.
//
// An endpoint's id is a hash of its address and target: it is the same for all
// ports of a service, so a client with affinity meets the same endpoint on all
// of them, and the same after a restart. When an endpoint leaves, its entries
// in ids go, and with them every client's affinity to it, at once.
//
// With [Config].Counters the elements of slots and ids have counters, which the
// first packet of each connection moves on.
//
// # Traffic policy Local
//
// Traffic that starts on this node, and that of pods (from Config.PodCIDRs, if
// known), uses all endpoints of the service although it goes to an external
// address. Traffic from elsewhere uses the node's own, keeps the client's
// address, and is dropped when the node has none but others do.
//
// # Packets that conntrack calls invalid
//
// A reply of a local endpoint that is out of its window is not translated back,
// and the client answers it with a reset (kubernetes #74839). The forward chain
// drops such packets; those of everybody else pass.
package nftables
