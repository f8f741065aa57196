// Package keeper is the process that has all containers of a node: their
// parent, the reader of their output, the one who knows how they ended. The
// agent is its client and may come and go.
//
// # Guarantees
//
//   - A process whose name is [Name] is a keeper and nothing else; like a stage
//     it starts while the program is being initialised, before the packages of
//     Kubernetes, which it does without. That saves most of its memory.
//   - One keeper for a directory, by a lock on it. It listens on a unix socket
//     in the directory, which only its user may enter.
//   - What it knows is on disk before anybody is told. A keeper that was killed
//     is followed by one that finds the containers that still run by number and
//     start time, reads on where their output stands (pipes have names in the
//     directory, and a container holds its own end open, so it waits and does
//     not die), and says of those that ended in between that nobody saw how.
//   - Output never waits for a reader who attached: what a slow one does not
//     take is lost to that one.
//   - It ends by itself when it has no pods and no clients.
package keeper
