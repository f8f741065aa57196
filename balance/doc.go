// Package balance chooses one of several backends. It is shared by every part
// that sends traffic somewhere: the userspace proxy, the gateway and the Go
// client.
//
// It knows nothing of addresses or connections: a balancer is made from a list
// of weights and answers with an index into that list. It imports only the
// standard library. Time is passed in.
//
// [Random] and [RoundRobin] know weights only. A [Group] has all algorithms
// and looks at what is known of the backends: their [Load], and by [Health]
// which of them fail. [Budget] bounds retries.
//
// # Guarantees
//
//   - Every balancer is safe for use by any number of goroutines at once, and
//     picking does not allocate.
//   - A weight is a relative share. Weight 0 is never picked. When nothing can
//     be picked the answer is -1.
//   - [Random] and [Group] are immutable but for counters: a changed list is a
//     new one, with the same Loads and Health. Picking takes no lock (a Group in
//     turn with weights whose common turn is very long takes one).
//   - Turns give each backend exactly its share in every full turn, and spread a
//     heavy backend's turns between the others' (smooth weighted round robin)
//     instead of sending it a burst.
//   - A backend that fails at once never looks idle: failures count as load for
//     10 s, and one that could not be reached is ejected at its first failure,
//     for 5 s, 10 s, 20 s … After that it gets one request, not many, to show
//     that it is back.
//   - When more than half are ejected, those that answer (though badly) are used
//     as if they were well; those that cannot be reached get one request a
//     second. When all are, any is tried: an answer is never "nobody" because of
//     ejections.
//   - Near backends get everything while at least 70 % of their weight is well;
//     below that a growing part goes to the others.
//   - A hash leads to the same backend on every machine. When one of n leaves,
//     [RingHash] moves only what was its own, [Maglev] a few per cent more at
//     most. With a bound nobody has more than that part of the mean load,
//     give or take the picks that are made at the same moment.
package balance

// Picker chooses an index, -1 when there is nothing to choose.
type Picker interface {
	// Len is the length of the list that the index points into.
	Len() int
	// Next gives the index to use for the next request.
	Next() int
}
