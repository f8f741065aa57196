// Package kube is the door that fills a catalog from a Kubernetes API:
// Fingerpost's own or that of any cluster.
//
// It watches Services, EndpointSlices and Namespaces, the Instances of
// fingerpost.dev/v1alpha1 where the server has them, and, if asked, Pods for
// the reasons they give.
//
// # Guarantees
//
//   - Nothing of an API object is kept but what the catalog shows: each is
//     converted when it is decoded and dropped. There is no informer cache.
//   - The endpoints of a service are the union of its slices. The same address
//     with the same ports appears once; of two, the ready one wins. Their order
//     depends on the objects only (slice name, then place in the slice).
//   - An Instance whose status says no, or that was deleted, is out at once,
//     though its slice has not followed yet. An Instance that says yes never
//     puts in what the slice says is out.
//   - Synced is closed, and the catalog's Freshness says so, after everything
//     was listed once and applied; not before.
//   - A catalog that is not empty when the door starts (the state of an earlier
//     run) stands as it is until the server has been read. Then, in one
//     revision, it gets what differs and loses what is gone. If services and
//     slices have been read for 5 s and something else has not, it does not
//     stand any longer.
//   - A list read again (after an expired watch, a dropped connection, a server
//     restart) is compared with what is known: only differences reach the
//     catalog.
//   - With the API gone the last state stays. After the grace time (3 s unless
//     told otherwise) Freshness.StaleSince says since when; it is cleared when
//     every source is being read again.
//   - Events that come together are applied in one revision; an event that
//     comes alone is not held back.
//   - An object that makes no sense (a bad address, a port out of range) costs
//     the part that makes none, is counted, and never stops the door.
package kube
