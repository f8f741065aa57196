// Package h2 serves and opens connections of HTTP/2 (RFC 9113) for the gateway.
// [Serve] is the side of clients, [Client] that of endpoints; both give streams
// of the contract in package stream.
//
// # Guarantees
//
//   - Frames of all streams of a connection collect in one buffer. A Flush lets
//     everyone who can run add to it, then it is written: one write for many
//     streams, and at most one under way.
//   - Memory is bounded: what is received and not read yet by the window of the
//     stream, what is to be sent by the buffer. A window opens further only for a
//     stream whose reader keeps up. A connection that is quiet holds no buffers,
//     also while streams are open.
//   - Streams, buffers and goroutines are used again: a request costs no
//     allocation and starts no goroutine in the steady state.
//   - Shutting down loses no request: GOAWAY comes twice, and between them
//     requests that were under way are still taken. What is above the last
//     stream was not looked at, and a client may send it again.
//   - Floods (resets, pings, settings, empty frames, continuations, tiny windows)
//     end the connection with ENHANCE_YOUR_CALM.
//   - WebSockets and other upgrades over HTTP/2 (RFC 8441) look as those of
//     HTTP/1 do: a request with Upgrade, a response with 101.
package h2
