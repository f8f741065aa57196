// Package stream is the contract between the two sides of the gateway: a
// Downstream is one request of a client, an Upstream one request to an
// endpoint, each in HTTP/1 or HTTP/2. The exchange between them knows no
// version.
//
// # Guarantees
//
//   - Slices that a method returns are valid until the next call of a reading
//     method of the same side. Slices handed in are not kept after the method
//     returns.
//   - One goroutine calls the reading methods and one the writing methods; they
//     may be two. Abort may be called by any.
//   - Nothing is sent before Flush, but for what does not fit the buffer.
//     A buffer is bounded, so a writing method blocks while the peer does not
//     read: that is the back-pressure.
//   - Deadlines are of the whole side: each blocking call ends with
//     os.ErrDeadlineExceeded after it.
package stream
