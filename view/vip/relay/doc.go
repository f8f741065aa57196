// Package relay lets everybody reach endpoints on loopback addresses through a
// driver that translates packets.
//
// A process of this machine may listen on 127.0.0.1 only. A packet from a pod or
// from another machine cannot be sent there: the kernel takes 127.0.0.0/8 from
// outside for forged, unless route_localnet is set, and then takes it from
// anybody; for ::1 there is no such switch at all. So such an endpoint gets
// another address, one that only this machine has, where this process passes
// connections and datagrams on. The driver below sees that address in the place
// of the loopback one, and has nothing to know: it is the same for each driver,
// both families, TCP and UDP.
//
// # Guarantees
//
//   - Only what the driver's rules have translated is served. The kernel's
//     connection tracking is asked where each client meant to go: who sends to
//     the relay itself, by a forged route or from a pod, is reset (TCP) or not
//     answered (UDP). No sysctl is changed, and 127.0.0.0/8 and ::1 stay as closed
//     as they were.
//   - Endpoints of other nodes, and other addresses, pass through unchanged. While
//     no endpoint is on loopback there is no relay, no address and no socket.
//   - A relay is there before the rules lead to it, and is closed after.
//   - The number of its port comes from the endpoint's address, so that rules
//     which outlive this process lead to the same endpoint when the next one
//     begins. Meanwhile clients are refused.
//   - An endpoint for which there is no relay (the address belongs to somebody
//     else, ports have run out) keeps its own, which programs of this machine
//     reach, and is named in an event.
//
// # What it costs
//
// The endpoint sees 127.0.0.1 or ::1 as the client's address. Connections end
// with this process. Each costs what one through the userspace driver does.
package relay
