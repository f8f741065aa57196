// Package v1alpha1 is the API group fingerpost.dev/v1alpha1: the kinds that
// Fingerpost adds to the Kubernetes API.
//
// An [Instance] is one registered endpoint that is not a pod. Doors write it,
// the endpoint slice controller projects it into EndpointSlices, and every
// view shows it.
//
// +k8s:deepcopy-gen=package
// +k8s:openapi-gen=true
// +k8s:openapi-model-package=dev.fingerpost.v1alpha1
// +groupName=fingerpost.dev
package v1alpha1
