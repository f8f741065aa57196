// Package object keeps the ConfigMaps and Secrets that the pods of a node use,
// each watched by its name: a node may read no others.
//
// # Guarantees
//
//   - One watch for each object, however many pods use it, and none for an
//     object that nobody uses.
//   - A holder is told after each change.
//   - With the API away, the last that was seen goes on being given, also if
//     that was seen by an earlier store of the same directory.
//   - A refusal is tried again soon: the API learns of a pod's node a little
//     after the node does.
package object
