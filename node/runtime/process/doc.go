// Package process runs containers as plain processes of this machine: with
// namespaces, overlayfs and, where there are any, cgroups. No container engine
// is needed, and no other program than our own.
//
// # How
//
// Three kinds of processes are our own program. The agent is a client: it has
// a [Runtime]. The keeper (package keeper) is the parent of all containers and
// stays when the agent goes. A stage (package stage) builds a container from
// inside and becomes its command.
//
// # Guarantees
//
//   - What package runtime promises. A container's output and its end are kept
//     by the keeper, with nobody of the agent there.
//   - The keeper is started when it is needed, and again when it was killed;
//     one that has no pods and no agent ends by itself.
//   - RemovePod also removes the logs of the pod's containers. Of one container
//     the last two attempts are kept, with their logs.
//   - Nothing is mounted on the machine itself: all mounts are of namespaces
//     that end with their containers.
//   - An image mapped to a program (a Root without layers) sees the machine's
//     root file system with a layer in memory over it that takes all changes,
//     and read-only the file system that the program is on, if it is another.
//
// # What it needs
//
// Linux 5.6 and root. Recursive read-only mounts are from 5.12 on; before,
// mounts below a read-only one stay writable. Exit codes across the death of a
// keeper are from 6.15 on; before, they are not known, and the container says so.
package process
