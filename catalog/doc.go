// Package catalog is the in-memory read model of service discovery: which
// services exist, which endpoints each has, whether an endpoint may receive
// traffic, and if not, who said so, when, and why.
//
// It knows no Kubernetes type and no protocol, and imports only the standard
// library. Doors write to it, views read from it.
//
// # Guarantees
//
//   - A [Snapshot] is immutable. Whoever holds one may read it for ever, from
//     any goroutine, without a lock. Everything reachable from it ([Service],
//     [Endpoint] and the slices and maps inside) must not be modified, neither
//     by readers nor by the door that handed it in.
//   - [Catalog.Snapshot] takes no lock and does not allocate.
//   - All changes made in one [Catalog.Update] become visible at once.
//     Revisions grow by one for each Update that changed something; an Update
//     that changed nothing is invisible.
//   - A change costs what changed: the tree under a snapshot shares everything
//     else with the snapshot before.
//   - Every subscriber sees, for each service, the last state; it may miss
//     states between ([Batch] coalesces), and it never sees an older state
//     after a newer one. Old in a [Change] is always what that subscriber was
//     given before, so a view can undo exactly what it did.
//   - A slow subscriber costs memory bounded by the number of services (those
//     it was given last and those there are now, not those that came and went
//     between) and never blocks a writer or another subscriber.
//   - An endpoint whose Service is unknown is kept, invisible, until the
//     Service arrives: the order in which a door learns of the two is free.
//   - The catalog never forgets by itself. When the source is gone the last
//     state stays, and [Freshness] says since when it is stale.
package catalog
