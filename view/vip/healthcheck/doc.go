// Package healthcheck answers on the health check node ports of services with
// externalTrafficPolicy Local, so that a load balancer sends traffic only to
// nodes that have an endpoint. All drivers share it.
//
// # Guarantees
//
//   - 200 when a ready endpoint of the service is on this node, else 503;
//     endpoints that are terminating do not count.
//   - The answer is that of kube-proxy: a JSON body with the service and the
//     number of endpoints, and the header X-Load-Balancing-Endpoint-Weight.
//   - A port that cannot be had is tried again every few seconds, and told once.
package healthcheck
