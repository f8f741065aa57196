// Package podstatus derives the phase and the conditions of a pod from what its
// containers do. It is pure: the same input gives the same status, and a
// condition whose state did not change keeps the time of its last change.
//
// Source: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/
package podstatus
