// Package dns is the cluster DNS as a view of the catalog: the Kubernetes DNS
// specification 1.1.0 over UDP, TCP, TLS (RFC 7858) and HTTPS (RFC 8484), and a
// forwarder for everything else.
//
// # Guarantees
//
//   - What is answered is a function of the catalog's last batch. A change
//     costs its own names: one service is one immutable entry that is swapped
//     in one step, so no client ever sees half a change of a service.
//   - Readers take no lock and the path of a name in the zone does not
//     allocate.
//   - Only endpoints that are ready (or of a service that publishes unready
//     ones), carry weight and mean something on this node are named.
//   - Before the catalog is synced a name below svc or pod that is not known
//     is SERVFAIL, never NXDOMAIN: it may exist. Known names are answered.
//     A stale catalog goes on answering with its last state.
//   - A packet, whatever it holds, cannot make the server panic, answer to an
//     answer, or keep memory. Names that are asked for leave no trace.
//   - Settings change while questions are answered (Reload): all of them or,
//     if one makes no sense, none. No question is lost for it.
//   - The query log never holds up an answer: lines for which there is no room
//     are dropped and counted.
//   - When it is told to stop, the server answers what it has been asked,
//     upstreams included.
//   - A dead upstream never holds up names of the zone: forwarding runs on a
//     bounded number of goroutines beside the answering ones.
//
// # Names
//
//	web.shop.svc.<zone>                A, AAAA: cluster IPs, or ready endpoints (headless)
//	_http._tcp.web.shop.svc.<zone>     SRV: named ports
//	host.web.shop.svc.<zone>           A, AAAA: the endpoint with that host name
//	10-0-0-7.web.shop.svc.<zone>       A: an endpoint without host name
//	1-2-3-4.shop.pod.<zone>            A: any address, if the namespace exists
//	dns-version.<zone>                 TXT: version of the specification
//	7.0.0.10.in-addr.arpa, …ip6.arpa   PTR: cluster IPs and endpoints
//
// The wire code of the zone is the package's own; github.com/miekg/dns is used
// off that path only: upstreams' answers, Resolve and Explain, names of types.
package dns
