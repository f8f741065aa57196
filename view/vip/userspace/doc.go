// Package userspace serves virtual IPs with ordinary sockets: it listens on
// every service's address and passes connections and datagrams on to an
// endpoint. It needs no root and no kernel feature beyond sockets, so it works
// on any laptop; it costs more per connection than the kernel's drivers do.
//
// # Guarantees
//
//   - New traffic goes only to endpoints that [vip.Compile] names. An endpoint
//     that refuses or does not answer within DialTimeout costs the client
//     nothing but time: another is tried, each at most once, and the failed one
//     is avoided for a few seconds unless no other is left.
//   - A TCP connection, once made, stays with its endpoint until one side ends
//     it, also when the endpoint or the service is removed, as with kube-proxy.
//     Each direction is closed by itself; a reset is passed on as a reset.
//   - A UDP flow (one client address and port) stays with its endpoint while
//     datagrams come at least every UDPIdle, and leaves at the next datagram
//     once the endpoint may not be used any more or answers "port unreachable".
//     Replies come from the virtual IP. Datagrams up to 65,507 bytes pass whole.
//   - Session affinity is by client address and service, so that all ports of a
//     service lead a client to the same endpoint. It survives other endpoints
//     coming and going and ends with its endpoint, or at the time-out.
//   - No endpoint: the client's kernel gets "connection refused" (TCP) or "port
//     unreachable" (UDP) at once. On Linux the socket stays bound meanwhile but
//     does not listen, so no other program can slip onto a service's address.
//     A client that the policy keeps out (source ranges, externalTrafficPolicy
//     Local with no endpoint here) is reset after the accept, because the kernel
//     does not ask before.
//   - An endpoint whose address is one that this proxy itself listens on would
//     be a loop: it is passed over and reported.
//   - An address that cannot be had (a privileged port, another program) is
//     reported once, tried again with back-off, and holds up nothing else.
//   - Tables are bounded: MaxFlows, MaxAffinity, and MaxConnections if set. At
//     the bound the flow or session unused for longest (of a sample) goes, and a
//     new connection is reset.
//
// # Where it listens
//
// ClusterIPs: always; they must be addresses of this machine, which everything
// in 127.0.0.0/8 is, and everything that kernel.AddLocalRange made so. Node
// ports: on Config.NodeAddresses. ExternalIPs and load balancer addresses: if
// Config.Owned says that they are ours to serve.
//
// Each endpoint's clients are counted, see [Driver.Hits]. With Config.Admit a
// proxy serves only whom its owner lets in, with Config.NodePortsOnly nothing
// but node ports.
//
// The client's address is not kept: an endpoint sees the address of this
// machine. SCTP is not served.
package userspace
