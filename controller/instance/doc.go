// Package instance looks after Instances: their heartbeats, their health
// checks, the Service they name, and their end.
//
// # Heartbeats: Liveness
//
//   - [Liveness.Renew] is called by the API server for each heartbeat, in
//     process. It writes nothing, allocates nothing, and takes a few hundred
//     nanoseconds. Only transitions are written: a claim that expired, is held
//     by the mass-expiry guard, or came back.
//   - Each claim with a ttl has its own lease, and so has a ttl check. The guard
//     judges the claims of one door in one zone together.
//   - A lease lives in memory. After a start every claim has a full TTL; a claim
//     that was written as expired stays so until it is heard of again.
//   - A claim that its door registers or changes counts as heard of.
//   - A heartbeat for an Instance that is not known is looked up in the API
//     before it is refused, so that it may follow a registration at once.
//
// # Checks, status and end: Controller
//
//   - http, tcp and grpc checks run here. The result is written when it changes.
//   - Writes are merge patches of status.check and status.expired, nothing else;
//     the API server derives the rest (v1alpha1.Evaluate). A patch names the
//     uid, so that it never hits a later Instance of the same name.
//   - An Instance whose heartbeats stopped is deleted after
//     spec.check.deregisterAfter, 10 minutes if that is not given; one whose
//     check fails only if it is given. Counted from the start of this process if
//     that was later. A heartbeat that arrives meanwhile wins.
//   - The Service that an Instance names is made when it does not exist: no
//     selector, the Instance's ports, annotation fingerpost.dev/created-by. A
//     Service made that way gets the further ports of later Instances; one made
//     by people is never changed. A Service that somebody deletes is not made
//     again before the next Instance is registered or changed.
package instance
