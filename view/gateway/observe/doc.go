// Package observe tells what the gateway did: one line of access log and a few
// counters for each exchange.
//
// # Guarantees
//
//   - Neither ever waits for anything but another exchange that copies a line: a
//     log that nobody reads loses lines, which are counted, and stops nobody.
//   - Recording an exchange does not allocate. What belongs to a route is looked
//     up when the route is compiled ([Metrics.Route]), not for each request.
//   - Label values come from the configuration, never from clients, so that no
//     client makes series. Series of routes that are gone go with them.
//   - What clients sent is escaped: a line of the log is one exchange.
//
// Metrics are called fingerpost_gateway_…; those of ingress-nginx that mean the
// same are there under its names too, so that dashboards go on working.
package observe
