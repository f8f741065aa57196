// Package agent runs the pods that are bound to its node, and tells the API how
// they are: what a kubelet does, with Kubernetes' semantics.
//
// # Guarantees
//
//   - Containers outlive the agent. One that starts again finds them, takes
//     them over without a restart, and removes what has no pod any more.
//   - With the API away pods go on: probes, restarts, back-off. Statuses are
//     written when it is back.
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
package agent
