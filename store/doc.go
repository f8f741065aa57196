// Package store is where the state lives: etcd, embedded in the process by
// default, or an external one when users outgrow one machine.
//
// # Guarantees
//
//   - An acknowledged write is on disk: the embedded etcd syncs its log before
//     it answers (unless Config.UnsafeNoSync says otherwise, for tests).
//   - The embedded etcd listens on unix sockets inside the data directory,
//     which only its owner can enter: no local user reads Secrets around the
//     API server.
//   - One process per data directory: a second one gets an error that names
//     the first.
//   - A data directory written by another layout version is refused before
//     anything in it is touched.
//   - When the disk is nearly full, [Guard] says so before etcd would fail, so
//     that writes are refused one by one and nothing already accepted is lost.
package store
