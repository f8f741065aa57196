// Package health decides whether something is alive from what was observed:
// results of checks ([Threshold]) and heartbeats ([Leases]). It has no clock,
// no goroutine, no network and no disk: time is passed in. Package probe beside
// it does the observing.
//
// # Threshold
//
// A threshold turns single results into a state with hysteresis: rise successes
// in a row make it Passing, fall failures in a row make it Failing, and until
// the first of the two happens it is Starting.
//
// # Leases
//
// A lease is kept alive by heartbeats: each is good for the lease's TTL.
//
//   - [Leases.Renew] takes one lock of many, allocates nothing, and does not
//     touch the queue of deadlines: a lease found due although it was renewed
//     is queued again. The work of [Leases.Expire] is in proportion to what is
//     due: each lease is looked at about twice per TTL, renewed or not.
//   - A lease that is not renewed expires at its deadline: Expire called at
//     [Leases.Next] tells it at most Granularity later. That holds for a single
//     dead lease always, whatever the guard does with others (see below).
//   - Every Put gives a full TTL. As leases live in memory only, that is also
//     what happens to all of them after a restart: nobody is expired for the
//     time in which nobody listened.
//   - A lease that expired stays in the table until Remove, and a renewal
//     revives it.
//   - Every change of a lease is told once, in order, by Expire: Expired, Held,
//     Revived. A key that is not told is alive.
//
// # The mass-expiry guard
//
// When many leases of one group (a door and a zone, say) run out together, the
// likely cause is on the way to us, not in them. Then they are held: told as
// Held (state Stale: still used, but shown), not Expired. The rule:
//
// A lease is out when it ran out; and it counts as out already when it has been
// silent for three quarters of its TTL, so that the first lease of many is
// judged together with those about to follow. (A client that is known to renew
// that late counts only when it runs out.) An expired lease goes on counting as
// a member of its group and as out for one more TTL, the window of the rule;
// then it counts as neither.
//
// There is a mass expiry in a group while, of its members,
//
//   - more than Share (15 %) are out, and
//   - at least MinOut (3) are out, and
//   - it has at least MinGroup (10) members: in smaller groups a few processes
//     stopped together are not a sign of anything, and everything expires on
//     time.
//
// A lease that runs out while there is one is Held, otherwise Expired. So a
// single dead lease, and any number up to 15 %, expire on time.
//
// A held lease
//
//   - is Revived by a renewal, or ends by Remove;
//   - is Expired when the mass expiry is over because enough of the others came
//     back, and it itself stayed silent for a whole TTL after that: the way to
//     us was fine again, so this one is dead;
//   - is Expired when it was held for HoldFor (10 minutes) — unless no lease of
//     its service is alive. Then it stays held until one of them is, or it is
//     removed: running out of patience never empties a service, and so never a
//     group of services either. Leases expired in this way count as out until
//     they are renewed or removed, so that they do not end the mass expiry for
//     those that are left.
package health
