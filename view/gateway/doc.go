// Package gateway is the way in from outside: it takes connections of clients,
// finds the route for each request and carries it to an endpoint of the
// service and the answer back.
//
// # Guarantees
//
//   - A change of routes, certificates, services or endpoints is an exchange of
//     a pointer: it closes no connection and fails no request. An exchange keeps
//     the route that it began with.
//   - A request that could not be delivered is answered: 503 with Retry-After
//     if no endpoint is there (and before routes and services are known), 502 or
//     504 if endpoints failed. Nothing waits without a deadline.
//   - It is sent again only if that is safe: it did not reach an endpoint, or the
//     endpoint refused it or had closed the connection before it came, or the method
//     is idempotent and no whole head of a response came. Up to 64 KiB of a body are
//     kept for this. What is sent again is bounded by a budget per cluster.
//   - Endpoints that refuse connections are asked again, with pauses, for as long as
//     connecting may take: by then they may listen. Where nobody could be reached for
//     that long the answer comes at once, until somebody can.
//   - A response is complete, or the client sees that it is not: a body that
//     breaks off breaks the client's connection or stream.
//   - Bodies of any size flow through buffers of at most 64 KiB for each
//     direction, as fast as the slower side; bytes do not wait while the sender
//     has nothing more ready. A policy with BufferRequest collects up to 1 MiB
//     before an endpoint is chosen; larger bodies are streamed from there on.
//     BufferResponse saves flushes; it keeps no whole responses and no files.
//   - "Expect: 100-continue" is answered here when an endpoint was reached.
//   - A connection that waits for a request holds no buffers.
//   - A client that leaves while an endpoint thinks ends the endpoint's request, two
//     seconds later if its connection is one of HTTP/1: it may have closed only its half.
//   - A mistake of ours that panics breaks the request that it meets, and no other.
//   - Shutting down: no new connections, idle ones are closed, others end with
//     the response under way; tunnels and long exchanges have until the deadline.
//
// # Files
//
// config.go, engine.go: what it is; target.go: a rule, made ready when it is needed
// first; keep.go: clusters that are needed; listen.go, serve.go, crew.go: connections; told.go: exchanges without a goroutine;
// exchange.go, attempt.go, patience.go, send.go, relay.go, tunnel.go: a request; answer.go: own
// answers; explain.go: what people ask.
package gateway
