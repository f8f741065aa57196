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
package claim
