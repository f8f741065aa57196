// Package scheduler gives pods a node.
//
// What is promised:
//
//   - A pod gets a node that takes it: name and labels (nodeSelector, node
//     affinity), taints, readiness, resources asked for, host ports, required
//     affinity and anti-affinity of pods, topology spread. Among those, the one
//     with the best score: preferences, even spread of the pods of one owner or
//     service, most room left.
//   - Two pods are never given the same room: what is decided counts at once,
//     before the API has it.
//   - A pod that no node takes says why, in the words of kube-scheduler, as its
//     condition PodScheduled and as an Event. It is tried again when something
//     changes that may help.
//   - Higher spec.priority goes first; then who waits longest.
//
// Not done, in contrast to kube-scheduler: preemption (a pod of higher priority
// takes nobody's place), volumes that exist on some nodes only, devices, images
// that a node has already, profiles and extenders. A pod with another
// schedulerName is left for that scheduler.
package scheduler
