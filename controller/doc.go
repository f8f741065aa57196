// Package controller composes the controllers that run inside the server and
// gives them what they share: one set of informers whose objects are trimmed
// to what is used.
//
//   - endpointslice: EndpointSlices from Pods and Instances
//   - endpoints: legacy Endpoints from those slices
//   - mirror: EndpointSlices from hand-made Endpoints
//   - instance: heartbeats, checks, Services and the end of Instances
//
// # Guarantees
//
//   - [All] registers everything with the informers but starts nothing; run
//     the informers after it, then the list, all until the same context ends.
//   - Objects in the informers of [NewInformers] lack managedFields; Pods and
//     Nodes keep only what service discovery reads (see [Trim]). Writers of
//     other kinds may send such an object back: the API server keeps the fields
//     that it knows of.
//   - No controller writes before it has seen everything there is.
package controller
