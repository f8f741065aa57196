// Package h1 serves HTTP/1 connections of clients, and sends requests over
// HTTP/1 connections to endpoints. The bytes are the business of wire/http/h1;
// here is who reads when, and what may follow what.
//
// # Guarantees
//
//   - A request whose head and body came together, and a response likewise,
//     cost one read and one write on each side, and no allocation.
//   - A connection that waits for a request holds no buffer.
//   - The end of a body is never made up: a body that breaks off is an error to
//     its reader, and an aborted response is seen as one by the client.
//   - After a head that cannot be understood nothing of a connection is read
//     any more: what follows may be somebody else's request.
//   - On a connection that a Poller tells of, everything that needs no waiting is
//     done on the Poller's goroutine (told.go), and the rest in one that gives the
//     connection back when it waits for a request: an idle one has no goroutine.
//   - One goroutine reads and one writes, as package stream says; neither
//     waits for the other.
package h1
