// Package loadbalancer gives Services of type LoadBalancer addresses of
// AddressPools, and each address a node that announces it.
//
// # Guarantees
//
//   - A Service gets one address of each family that it has, if a pool that it
//     may use has one: the one it asks for in spec.loadBalancerIP, else the one
//     it has, else the lowest free one. The annotation
//     fingerpost.dev/address-pool chooses the pool.
//   - No two Services get the same address. An address in a Service's status
//     stays with it over restarts, for as long as a pool has it; where two have
//     one (hands wrote it), the older Service keeps it.
//   - A Service that is deleted, or is no LoadBalancer any more, gives its
//     addresses back. Services of another class are left alone.
//   - Whoever cannot get what it wants is told why in an event, once per cause.
//   - Each address has one owner among the nodes, written down in a Lease: a
//     Ready node whose heartbeat moved within Config.Silence, with a ready
//     endpoint of the Service if externalTrafficPolicy is Local. It is chosen
//     by rendezvous hashing, so that addresses spread and few move when a node
//     comes or goes.
//   - An owner that lives is asked to let go by the Lease; one that is silent
//     gives up by itself before Config.Silence has passed (it loses sight of
//     the Lease), so that two never announce an address at once for longer than
//     their clocks' rates differ.
package loadbalancer
