// Package runtimetest holds a container runtime that only pretends, for tests
// of its callers.
//
// # Guarantees
//
//   - [Fake] keeps the contract of package runtime.
//   - [Fake] starts no goroutine and takes time only in StopContainer, so it
//     works inside a testing/synctest bubble.
//   - [Fake.Dump] is the same text for the same state.
package runtimetest
