// Package agent runs the pods that are bound to its node, and tells the API how
// they are: what a kubelet does, with Kubernetes' semantics.
//
// # Guarantees
//
//   - Containers outlive the agent. One that starts again finds them, takes
//     them over without a restart, and removes what has no pod any more.
//   - With the API away pods go on: probes, restarts, back-off. Statuses are
//     written when it is back. That holds for an agent that is started meanwhile,
//     too, once one has run with the API (see below).
//   - A pod is told not ready at once when a container of it ends or its
//     readiness probe fails; other changes may wait 30 ms for company. Nothing
//     is written that did not change.
//   - One pod's trouble is its own: each has a worker, whose panics end the
//     pod's step, not the agent.
//   - When a pod object is removed, nothing of the pod is left on the machine.
//
// # How a pod is run
//
// The worker of a pod looks at what is and what should be (step) and starts
// tasks for what takes time: one for the volumes and the network, one for each
// container that is to be started or stopped. When a task ends, when a
// container ends, when a probe changes its mind, the worker looks again. The
// status is derived from the worker's state after each change (publish).
//
// # What is kept
//
// Beside each pod's files lie its object and newest status (pod.json, 200 ms
// late), the Node object lies in the agent's directory, and ConfigMaps and
// Secrets that pods use lie in the file system in memory that holds the volumes
// made from them; tokens are in those. An agent asks the API first. If that does
// not answer within 3 s, it goes on with these. When the API is back its word
// counts: pods that were deleted meanwhile end, statuses are written.
package agent
