// Package network gives every pod of a node a network namespace with an
// address of its own, over netlink, without a helper program.
//
// Each pod has a veth pair: eth0 in its namespace, the other end on the node's
// bridge. The bridge carries the first address of each of the node's pod
// ranges, which is the pods' gateway. A pod's own address has a full-length
// prefix, so that whatever pods send, also to each other, passes through the
// node's routing. Address translation (virtual IPs, host ports) therefore sees
// both directions of every connection, whether the kernel has br_netfilter or
// not, and a pod always sees who really called it.
//
// # Guarantees
//
//   - Attach, Detach, Setup, SetRoutes, SetHostPorts and Teardown can be
//     repeated: each makes the machine look as it should, from whatever state
//     a crash, or somebody's hand, has left.
//   - Namespaces, addresses and host ports outlive the process. What is kept
//     in Config.Dir and what the kernel has are compared by Setup; where the
//     files are damaged, the running pods tell their addresses.
//   - An address that was given back is the last of its range to be used again.
//   - Calls may come at the same time, also for one pod.
//   - Detach leaves nothing of the pod, Teardown nothing at all but the
//     forwarding sysctls, which others may rely on by then.
//
// # What it changes on the machine
//
// The bridge; links named fpv… with the pod's UID as alias; files in
// Config.NetNSDir, each holding a namespace; routes with protocol number 103;
// the nftables table "inet fingerpost-pods"; ip_forward and its IPv6 twin.
// Where forwarding of IPv6 is switched on, interfaces that took their routes
// from router advertisements continue to (accept_ra=2).
//
// # Host ports
//
// A host port answers on the addresses of the node, for callers outside, on
// the node and in pods, by destination NAT. 127.0.0.1 and ::1 cannot be
// translated without weakening the loopback network (route_localnet), so for
// TCP a relay in this process answers there, while it runs; UDP host ports do
// not answer on loopback addresses.
//
// A firewall that drops forwarded packets by default (Docker sets one up)
// stands above all of this: it must let the pods' ranges pass.
package network
