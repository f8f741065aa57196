// Package endpoints keeps the legacy v1 Endpoints object of every Service that
// has EndpointSlices of the endpointslice controller, for readers that know
// nothing newer.
//
// # Guarantees
//
//   - Endpoints are derived from those slices only, so the two never tell
//     different stories; pods and instances are not looked at again.
//   - A Service without selector whose Endpoints somebody made by hand keeps
//     them untouched, whatever Instances it has.
//   - At most [MaxAddresses] addresses, ready ones first; beyond that the
//     annotation endpoints.kubernetes.io/over-capacity says "truncated".
//   - Written only when something changed; the first change at once, then at
//     most once per [Config.MinInterval] for one Service.
//   - When a Service is deleted its Endpoints go too, hand-made ones included,
//     as Kubernetes does it; those of a leader election stay.
//   - Addresses that the API refuses in Endpoints are left out: link-local ones,
//     and loopback ones that do not name their node.
package endpoints
