// Package runtime is the contract between the node agent and what runs its
// containers. node/runtime/process implements it with namespaces; a container
// engine (CRI) can stand here as well.
//
// # What an implementation guarantees
//
//   - Containers outlive the agent: after the agent is killed and started
//     again, List gives the same pods with the same containers, and the exit
//     code of one that ended in between.
//   - Every call is idempotent: to start what runs, or to remove what is gone,
//     is no error.
//   - RemovePod leaves nothing behind: no process, mount, cgroup or file of it.
//   - The network is not its business: a pod is started in a network namespace
//     that is there already (PodConfig.NetNS), or in the machine's own.
//   - It knows no Kubernetes type.
package runtime
