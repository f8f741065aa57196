// Package apiserver is the Kubernetes API: k8s.io/apiserver and
// k8s.io/apiextensions-apiserver with the REST storages, validation,
// defaulting and table printers of k8s.io/kubernetes, assembled by hand, and
// our own kind Instance beside them. All imports of k8s.io/kubernetes that
// serve requests live here, so that an upgrade touches one place.
//
// What differs from a kube-apiserver, and why:
//
//   - ClusterIPs are allocated by our own [allocator]: upstream's lists every
//     address twice per allocation. The API is the same: ServiceCIDR and
//     IPAddress objects, the same messages.
//     With the embedded etcd a new Service and the IPAddress that locks its
//     address are one transaction (pair.go); with an external one two writes.
//   - EndpointSlices and Endpoints may hold loopback addresses when our own
//     controller writes them and each endpoint names its node: processes on
//     laptops listen on 127.0.0.1 only. Slices made by hand keep the refusal.
//   - Ingress is also served as extensions/v1beta1 and networking.k8s.io/v1beta1
//     (there IngressClass too), as Kubernetes did until 1.21: one storage, the
//     leniency and the words of the version, a deprecation warning, and v1
//     preferred. Other than there, the default IngressClass is also set for
//     Ingresses of extensions, and these have no short name; see ingress.go.
//   - Heartbeats (the renew subresource of Instances, and renewals, which takes
//     many in one call) are answered before the filter chain, from memory: see
//     renew.go. A right that was taken back, or a token that was revoked, works
//     for heartbeats for up to 10 s more. HTTP/1.1 connections over which they
//     come are read without net/http for as long as nothing else comes: beat.go.
//   - Our own kinds are stored and served as protobuf (api/v1alpha1) and as JSON,
//     as every kind of Kubernetes; what was stored as JSON is read.
//   - The server talks to itself without a socket: see loopback.go.
//   - What a node may is decided by Kubernetes' Node authorizer and NodeRestriction
//     plugin, fed from informers that keep references only: see node.go and
//     noderestriction.go. Certificates for the ports of nodes come from a CA of
//     their own, so that no node can stand in for the server.
//   - Anonymous requests are refused except for health and version.
//   - Writes are refused with 507 while the disk is full.
package apiserver
