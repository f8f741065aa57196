// Package balance chooses one of several backends. It is shared by every part
// that sends traffic somewhere: the userspace proxy, the gateway and the Go
// client.
//
// It knows nothing of addresses or connections: a balancer is made from a list
// of weights and answers with an index into that list. It imports only the
// standard library.
//
// # Guarantees
//
//   - Every balancer is safe for use by any number of goroutines at once, and
//     picking does not allocate.
//   - A weight is a relative share. Weight 0 is never picked. When nothing can
//     be picked the answer is -1.
//   - [Random] is immutable and takes no lock: a changed list is a new Random.
//   - [RoundRobin] gives each backend exactly its share in every full turn, and
//     spreads a heavy backend's turns between the others' (smooth weighted
//     round robin) instead of sending it a burst.
package balance

// Picker chooses an index, -1 when there is nothing to choose.
type Picker interface {
	// Len is the length of the list that the index points into.
	Len() int
	// Next gives the index to use for the next request.
	Next() int
}
