// Package claim puts one door's claim on an Instance and takes it off again.
//
// # Guarantees
//
//   - Only the caller's own claim (door, id) is written. Claims of other doors
//     survive, also when both write at the same time: every write carries the
//     resource version it was made from, and a conflict is resolved by reading
//     again.
//   - An Instance that claims made is deleted together with its last claim,
//     never while another claim is on it. One that was written by hand, without
//     claims, is left as it was found.
//   - What the Instance says besides its claims (ports, weight, metadata, …) is
//     updated only by whoever is alone on it; otherwise the first registrant's
//     word stands.
//   - A [Keeper] writes the newest state it was given, however long the API was
//     away; states between may never be written. It renews every TTL/3 and
//     registers again when the API does not know the claim. While the API is
//     away it tries again after 50 ms, then ever later: up to 1 s in the first
//     30 s, 5 s after that, 10 s when the API says no.
package claim
