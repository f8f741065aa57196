// Package announce makes this machine the one that answers for load balancer
// addresses on its local network.
//
// # Guarantees
//
//   - An address that this node owns is on the device whose subnet it is in, so
//     that the kernel answers ARP and neighbour solicitations for it; on lo if
//     there is none, so that this machine itself reaches it.
//   - When it gets an address, everybody on the network is told, three times
//     within two seconds: by gratuitous ARP, or an unsolicited neighbour
//     advertisement. Clients go on with the new owner at once.
//   - An address that is given up is off the device when Set returns, and
//     all of them when Run does.
//   - The kernel is told that the addresses are good for [Lifetime] only, and
//     told again in time: if this process is killed or hangs, the kernel takes
//     them away by itself.
//   - The addresses are never chosen as the source of this machine's own
//     connections (they are deprecated from the start), and none that was on a
//     device before is touched.
package announce
