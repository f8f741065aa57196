// Package vip says what a service proxy must do, without doing it: it turns
// entries of the catalog into frontends (an address and port that clients use)
// with the backends behind each. The drivers below this directory make it
// true: userspace with sockets, others with the kernel's packet filters. All
// drivers use this package, so all of them choose the same endpoints.
//
// # Guarantees
//
//   - [Compile] is pure: the same entry and place give the same frontends, in
//     the same order, with the backends sorted. It never modifies the entry.
//   - [Table] keeps what was compiled and gives the difference that a batch of
//     changes makes. A batch costs what it changes; a change that matters to no
//     frontend (a health reason, a label) gives an empty difference.
//   - Two services never own one frontend. A ClusterIP beats an address that
//     another service merely names, the older service beats the younger; the
//     other is reported as a [Conflict] and gets it when the first lets go.
//   - A frontend in a difference is immutable and may be kept for ever.
//
// # Which endpoints
//
// For each port and address family of a service, of the endpoints usable on
// this node, with a number for that port, an address of that family and a
// weight above zero:
//
//   - Ready ones; when no endpoint is ready, those that are terminating but
//     still serve (KEP-1669). publishNotReadyAddresses is already in Ready.
//   - Of the ready ones, those hinted for this node, if every ready one carries
//     node hints and at least one names this node; else the same for the zone;
//     else, without hints, trafficDistribution: PreferSameNode takes those of
//     this node, then of this zone; PreferSameZone and PreferClose those of this
//     zone. Where that leaves none, all.
//   - internalTrafficPolicy Local: the ClusterIP uses endpoints of this node
//     only, with no fallback and no regard to hints.
//   - externalTrafficPolicy Local: traffic from outside uses endpoints of this
//     node only ([Frontend].Local); traffic that starts on this node uses the
//     same as everybody.
//
// Headless and ExternalName services, and services that name another proxy,
// have no frontends.
//
// Source: Kubernetes "Virtual IPs and Service Proxies", KEP-1669, KEP-2086,
// KEP-4444, KEP-3015.
package vip
