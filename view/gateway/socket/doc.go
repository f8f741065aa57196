// Package socket makes TCP connections cheap for whoever serves thousands of
// them with a goroutine each.
//
// # Guarantees
//
//   - [ReadBuffer] takes a buffer from a pool only when bytes are there: a
//     connection that waits holds none.
//   - Deadlines cost nothing until a call has to wait. They are then set in the
//     runtime only if the one that is set there comes too late; one that comes
//     too early is moved when it strikes. Whoever sets a deadline sees no
//     difference, also when the call it is for waits already.
//   - A call that does not wait enters the kernel once, and does not allocate.
package socket
