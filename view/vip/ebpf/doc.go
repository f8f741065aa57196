// Package ebpf serves virtual IPs where a connection begins: programs at the
// control group translate the address that a socket connects or sends to, so
// that packets carry the endpoint's address from the start. There is nothing to
// do per packet, no conntrack entry, and no rule to look through.
//
// # Guarantees
//
//   - Apply returns when every new connection and datagram of this machine's
//     sockets follows the batch. Its cost does not depend on how many services
//     there are.
//   - A change is made of single writes in an order that is right at every
//     moment: slots, then their number, then what is left over is deleted. No
//     connection is made to an endpoint after the Apply that took it out.
//   - Established TCP connections are not touched. A connected UDP socket whose
//     endpoint went away is closed by the kernel (ECONNABORTED on its next call),
//     in whichever network namespace it is; an unconnected one sends its next
//     datagram to another endpoint.
//   - An application sees the virtual IP only: getpeername, and the source of
//     datagrams, are translated back. That holds for IPv4, IPv6 and for IPv4 on
//     IPv6 sockets. The last [Config].MaxFlows sockets are remembered.
//   - No endpoints: ECONNREFUSED at once. The same for a port of a ClusterIP that
//     no service has.
//   - An unconnected UDP socket stays with its endpoint for a virtual IP while it
//     sends at least every two minutes.
//   - Session affinity is by network namespace, which is what a pod is, and by
//     service. It lasts while its endpoint is usable and ends with it.
//   - With [Config].PinPath the programs and maps outlive this process. The next
//     one takes the maps as they are, exchanges the programs one by one, and
//     changes what differs; there is no moment without translation. What no
//     service wants any more goes once the catalog says that it is complete.
//   - Node ports answer in every namespace on the node's addresses, and on
//     127.0.0.1 and ::1 in the node's own.
//   - Maps are bounded. A service that does not fit is named in an event and
//     keeps what it had; the others go on.
//
// # What it leaves to another driver
//
// Sockets of this machine only, in the control groups below Config.CgroupPath.
// What comes from outside, SCTP, load balancer addresses with source ranges (a
// socket that connects has no source address yet), and, from pods, frontends with
// an endpoint on a loopback address (it would be the pod's own) pass untouched,
// for a driver such as nftables beside it. The two do not meet: what was translated
// here has an endpoint's address, which no rule of the other names.
//
// A packet socket, or a program in another control group hierarchy that
// translates after this one, sees endpoints.
//
// # Maps
//
//	svc    address, port, protocol, scope : id, number of slots, affinity
//	slot   id, slot                       : address, port, identity
//	pick   id, identity                   : the same, to find a client's endpoint again
//	addr   address                        : the node's, or a ClusterIP
//	flow   socket, address, port          : virtual IP (least recently used go)
//	client owner, namespace or socket     : identity, last use (least recently used go)
//	hits   id, identity                   : connections and flows, for each processor
//
// IPv4 addresses are stored as ::ffff:a.b.c.d, so that sockets of both families
// find one entry.
package ebpf
