// Package ipvs serves virtual IPs with the kernel's IPVS, over netlink: a
// virtual server for each frontend, whose address is on a device, and a table
// of nftables for what IPVS does not decide.
//
// # Guarantees
//
//   - Packets, not processes: what is programmed stays when this program ends or
//     is killed. The next one takes it over, so that a restart loses no
//     connection; what nobody wants any more goes when the catalog is synced.
//   - Apply returns when the kernel does what the batch says. It is a message for
//     each server that differs, and one transaction of nftables; nothing but UDP
//     flows is listed on the way.
//   - An endpoint that leaves keeps its TCP connections: it gets weight 0, and
//     goes when it has none, or when [Config].Drain is over. UDP flows to it are
//     cut.
//   - Only virtual servers of addresses on [Device], or that our table names, are
//     ours, and only the tables "fingerpost-ipvs" are written. What others do to
//     them is noticed and put right: within a second when rules are gone, within
//     [Config].Resync otherwise.
//
// # Layout
//
// Node ports have a virtual server for each address of the node. The addresses
// of the others are on the device, so they are this machine's own: its programs
// are kept from being reached there by a refusal of all ports that no service
// has. The table decides for the first packet of a connection, before IPVS does:
// refuse, drop, mark for masquerading, or, for this node's own traffic and its
// pods' to a service with externalTrafficPolicy Local, send it to the ClusterIP,
// which leads to all endpoints.
//
// # Limits
//
// Session affinity is IPVS's persistence: for each port by itself (it can join
// ports only where endpoints have the service's own port numbers), and it may
// last longer than asked for while connections of the client end. A service with
// both traffic policies Local has no such shortcut by its ClusterIP. Weights
// count with schedulers that know them, which rr does not. Two pods on one bridge
// need br_netfilter. A UDP node port that is removed is refused by a rule for a few
// seconds, whoever listens there next. Counts of connections are those of up to two
// seconds ago. The kernel
// module is often not there: [Probe] says so.
package ipvs
