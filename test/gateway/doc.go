// Package gateway shows the gateway to programs of others: clients and servers
// that were not written for it speak through it, while everything around them
// changes.
//
// An engine is composed in the test process from package view/gateway with
// routes and endpoints that the test sets (rig_test.go); it listens on
// 127.0.0.1, for HTTP and for TLS. Endpoints are servers of others too:
// net/http, grpc-go, gorilla/websocket, or bytes of the test's own where a
// server misbehaves.
//
// What is shown:
//
//   - grpc_test.go, grpc_life_test.go: grpc-go on both ends.
//   - websocket_test.go, websocket_life_test.go: gorilla/websocket on both ends,
//     over HTTP/1, TLS and HTTP/2 (RFC 8441).
//   - curl_test.go, vendor_test.go: curl, nghttp, h2load, node, Python.
//   - matrix_test.go, stream_test.go: every protocol of clients to every one of
//     endpoints; what is streamed arrives while it goes on.
//   - bulk_test.go: large bodies with flat memory.
//   - churn_test.go: endpoints come, go and are killed, certificates are
//     replaced, and nobody notices. FINGERPOST_CHURN=60s makes it longer.
//   - bad_test.go, smuggle_test.go: input that is wrong, slow or hostile.
//
// At the end of all tests no goroutine is left (main_test.go).
package gateway
