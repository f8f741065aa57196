// Package housekeeping runs the Kubernetes controllers that any Kubernetes API
// needs and that service discovery has no opinion on, borrowed from
// k8s.io/kubernetes: namespace deletion, garbage collection by owner
// reference, the default service account and the CA's ConfigMap of each
// namespace, aggregated cluster roles, and the life of ServiceCIDRs.
//
// They get informers that keep as little as they need: the garbage collector
// sees names and owners only, the CA publisher sees its own ConfigMaps only.
package housekeeping
