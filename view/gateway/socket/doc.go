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
//
// A [Poller], on Linux, does without goroutines that wait: it calls a [Handler] for
// what has come, on one goroutine for each core.
//
//   - Events are handled in the order in which they came, so that no connection
//     waits for longer than another one.
//   - A connection belongs either to the Poller's goroutine, on which no call waits
//     and what the kernel does not take is kept ([Conn.Backlog]), or to whoever took it
//     away ([Conn.Wait]), for whom calls wait as those of any net.Conn, until it is
//     given back ([Conn.Tell]). What comes in between is not lost.
//   - A descriptor is closed when no call uses it any more, so that its number is
//     never somebody else's during one.
//   - Connections that are served at once are never registered with epoll; one that
//     takes its time is, so that its end is seen ([Conn.Late], [Conn.Leaves]).
//
// # Files
//
// buffer.go: the pool; conn.go, direct_*.go, loop.go: calls; reactor_linux.go,
// desc_linux.go, poller_linux.go: the Poller; told.go: calls that do not wait.
package socket
