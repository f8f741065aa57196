// Package stream is the port of a node: logs, exec, attach and port-forward of
// its pods, with the paths, parameters and protocols of a kubelet, so that the
// API server's pod subresources work with it.
//
// # Guarantees
//
//   - Nobody gets in without a client certificate of the cluster's CA, and of
//     those only the API server and administrators: users come through the API
//     server, which asks for the RBAC verb first.
//   - A stream that its client left ends; one that the client does not read
//     holds no memory but its own buffers.
//   - Logs are read from the files that the runtime writes (CRI's format), in
//     the order of rotation, so they are there while the container is not.
package stream
