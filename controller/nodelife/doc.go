// Package nodelife notices that a node is gone, and cleans up after it.
//
// What is promised:
//
//   - A node whose Lease stands still for 40 seconds is marked unknown and
//     tainted, and its pods are not ready: their endpoints leave every view.
//     Silence is measured with this machine's clock, from when the Lease was
//     last seen to move: a wrong clock on the node does no harm, and a server
//     that was away gives everybody a full period.
//   - After five minutes of silence its pods are deleted, so that others take
//     their place. Those that tolerate it, and those of DaemonSets, stay.
//   - A node that is back is untainted; its agent says which pods are ready.
//   - Pods of a Node object that is deleted are deleted at once, and a pod that
//     ends on a node that does not exist does not wait for anybody.
//   - A node without a Lease in kube-node-lease is somebody else's, and left
//     alone.
package nodelife
