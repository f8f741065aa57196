// Package ingress is the gateway's source of routes in Kubernetes: Ingresses,
// with the Services, Secrets and ConfigMaps that they refer to, become the
// model of package route.
//
// Three things live here. [Translate] is pure: objects in, hosts, certificates
// and problems out. [Source] follows an API server and hands over what changed.
// [Lint] reads manifests, of old API versions too, and says what will be done
// with each annotation. What is known of the annotations of ingress-nginx is one
// table, in package annotation; the lint and doc/ingress-nginx.md are held to it.
// Package manifest splits what Lint reads into objects, and package disk keeps the
// objects of the last run.
//
// # Guarantees
//
//   - What [Source] hands over, added up, is what [Translate] makes of the same
//     objects. A change of an object costs the hosts that it touches.
//   - An Ingress is ours by its class: the annotation kubernetes.io/ingress.class,
//     else spec.ingressClassName, else the default class, else ours unless
//     [Options].OnlyWithClass. A class is ours if its IngressClass names our
//     controller, or if it is one of [Options].Classes and no IngressClass of that
//     name belongs to somebody else than ingress-nginx, whose place we take.
//   - Of two Ingresses that claim the same host and path the older one has it, by
//     creation, then by name. The younger is told.
//   - Nothing is left open by mistake: where an annotation that keeps people out
//     cannot be understood, or its Secret is not there, the rules of that Ingress
//     answer 503. Where a harmless one cannot be understood the default holds.
//     Snippets are never honoured; one that is part of an authentication closes
//     the rules.
//   - Every problem is told in an Event on the Ingress, once for each cause, and
//     costs no other Ingress anything.
//   - A Secret is used in the namespace of the Ingress only, unless
//     [Options].AllowCrossNamespace.
//   - With the API server gone, the last state stays. With Config.File it is kept
//     on disk, within a second or two: a start without the API server makes its routes
//     of that, by the rules of its own version and flags, and [Source].Stale says so.
//   - An Ingress that is ours gets the addresses of all living gateways into its
//     status; one that was ours and is not any more loses them. One gateway, that
//     holds the Lease, writes.
package ingress
