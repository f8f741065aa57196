// Package workload runs what turns Deployments, StatefulSets, DaemonSets, Jobs
// and the like into pods, and gives pods a node.
//
// The controllers are Kubernetes' own, borrowed from k8s.io/kubernetes: their
// behaviour is what manifests rely on, and not what this project is for. The
// scheduler is our own, see controller/scheduler.
//
// What is promised:
//
//   - A server that runs no workloads pays for none: until the first object of
//     one of these kinds exists, there is a watch of each kind and nothing else.
//   - All of them share one set of informers, with whole objects: the
//     controllers write back what they read.
//
// PersistentVolumeClaims are not served, so a StatefulSet with
// volumeClaimTemplates says in an Event that it cannot make them.
package workload
