// Package cluster holds the endpoints behind the gateway's backends: which
// there are, which one a request goes to, how healthy each is, and the
// connections to it. It follows the catalog and knows no version of HTTP.
//
// # Guarantees
//
//   - A change in the catalog touches the clusters of the changed services and
//     nothing else. [Cluster.Pick] takes no lock and does not allocate; it never
//     gives an endpoint that was removed before it began.
//   - An [Endpoint] stays the same one (counters, ejection, connections) while
//     its address, port and target stay, whatever happens to others or to its
//     weight.
//   - When an endpoint is removed its idle connections are closed at once;
//     exchanges under way end undisturbed, and their connections are closed then.
//   - Endpoints are chosen as package balance guarantees: by weight, near ones
//     first, without those that failed. If none is ready, those that terminate
//     and still serve are used, as kube-proxy does.
//   - Every pick of an endpoint is followed by exactly one Done.
//   - Idle connections are bounded per endpoint and in time. One that was idle
//     for a while is looked at before it is used again, without a goroutine of
//     its own.
//   - [Problem] says in words that a person understands why there is no endpoint.
//
// Nothing here retries: the exchange does, with Query.Tried and [Cluster.Retry].
package cluster
