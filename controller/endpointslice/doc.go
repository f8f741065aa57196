// Package endpointslice keeps the EndpointSlices of every Service: from the
// Pods that its selector matches and the Instances that name it.
//
// # Guarantees
//
//   - It writes only slices that carry its managed-by label; slices made by
//     people or by another controller are never touched.
//   - A slice holds one address family and one set of ports, and at most
//     [Config.MaxEndpoints] endpoints. An endpoint stays in its slice for as
//     long as its ports stay; one changed endpoint is one write.
//   - A Service with a selector always has a slice per address family, if need
//     be an empty one. A Service without selector gets slices when the first
//     Instance names it, and keeps them, possibly empty, from then on.
//   - The first change after a quiet time is written at once; changes that come
//     while a write is under way, or within [Config.MinInterval] of it, go out
//     together.
//   - Additions are written before removals: an endpoint that moves between
//     slices is never missing from all of them.
//   - What others do to its slices (delete, edit, relabel) is undone.
//
// # How
//
// Events are reduced to "this pod or instance of that service may have
// changed" ([events.go], by an index over selectors), and a service is worked
// on by one goroutine at a time. Its layout (layout.go) knows where each
// endpoint sits, so that a change costs what changed and not the size of the
// service. Everything else — a new Service, another selector, a slice edited
// by somebody — rebuilds the layout from the slices that exist, by the same
// code that the golden tests run.
//
// Differences from Kubernetes' own controller, all on purpose: no fixed delay
// before a write; a Pod whose Node object does not exist stays, without zone;
// no placeholder for a Service without selector that no Instance names.
package endpointslice
