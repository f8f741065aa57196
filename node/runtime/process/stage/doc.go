// Package stage is the last thing that runs before a container's command: it
// builds the container around itself from inside its namespaces, and becomes
// the command by execve.
//
// # Guarantees
//
//   - A process whose name is [Name] is a stage and nothing else: the package's
//     variables take over while the program is being initialised, before the
//     packages of Kubernetes are (Go initialises a package as soon as those it
//     imports are, so this one imports little). That saves 50 ms a container.
//   - Whatever fails is told to the keeper through descriptor 3, with the
//     words of the system, and the process ends with code 127.
//   - No descriptor but 0, 1 and 2 reaches the command, and nothing of the
//     environment of the keeper.
//   - Targets of mounts are resolved by the kernel inside the container's root:
//     a link of an image leads nowhere else.
package stage
