// Package runtimetest holds what tests of a container runtime and of its
// callers need: a runtime that only pretends, and the tests that every runtime
// must pass.
//
// # Guarantees
//
//   - [Fake] keeps the contract of package runtime: the suite of this package
//     runs against it as it runs against the real one.
//   - [Fake] starts no goroutine and takes time only in StopContainer, so it
//     works inside a testing/synctest bubble.
//   - [Fake.Dump] is the same text for the same state.
package runtimetest
