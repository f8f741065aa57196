// Package mirror copies Endpoints that people make by hand into
// EndpointSlices, so that every reader of slices sees them.
//
// # Guarantees
//
//   - Mirrored are the Endpoints of a Service without selector, unless they
//     carry the label endpointslice.kubernetes.io/skip-mirror=true, the
//     annotation of a leader election, or are kept by the endpoints controller.
//   - Each subset becomes one slice per address family, with at most
//     [MaxAddresses] endpoints. Subsets with the same ports are one; an address
//     that is both ready and not ready in it counts as not ready.
//   - The slices are owned by the Endpoints, carry their labels and annotations,
//     and go when the Endpoints or the Service goes or the Service gets a
//     selector.
//   - Only slices with its own managed-by label are written or deleted, and
//     only when they differ from what they should be.
package mirror
