// Package viptest is the conformance suite of service proxies. The oracle is
// packets: every driver runs in a network namespace that stands for a node, and
// what is compared is who answered, and which address it saw.
//
// # The world
//
//	o ──┐                     outside host, 192.168.77.9 and fd77::9
//	    ├── lan ── a          the node under test, .1: br0 with pods p1 p2 p3
//	    ├───────── b          another node, .2:        br0 with pods q1 q2
//	    └───────── s          a stranger, .66: what is for 127.0.0.1, and for relays, it sends to a
//
// Pods have 10.244.1.x (a) and 10.244.2.x (b), and fd24:0:0:1::x, fd24:0:0:2::x.
// Each answers on TCP and UDP 80, 8080, 9376 and 5353 with its name and the
// address it sees; so do a, b and o, on 9000. The route to 10.96.0.0/16,
// fd96::/112, 203.0.113.0/24 and 2001:db8:77::/64 leads from o to a: ClusterIPs
// from off the cluster, external and load balancer addresses.
//
// # The driver
//
// A driver's test binary calls [Main] in TestMain. The suite starts that binary
// again inside the namespace of node a, as a process of its own, feeds it
// catalog changes, kills it and starts it again. So a restart is a real one.
//
// # On a busy machine
//
// What should come may take 20 s; only where a script says "no answer", and tries
// once (×1), is nothing waited for, 0.3 s long. Answers have the number of their
// question. A client has a port of its own, as it would be translated as the last
// one was that had it. [Main] runs all tests in a network namespace ([Alone]), and
// up to four worlds at once if their tests are parallel: they mostly wait for the
// kernel.
//
// # The scripts
//
// The scenarios are in testdata/*.txt, in the form of package internal/script.
// Each file begins with an empty catalog. The commands:
//
//	service NAME ports=[NAME:]PORT[/PROTO][@NODEPORT],… [clusterip=IP,…] [externalip=IP,…] [lb=IP,…] [sources=PREFIX,…]
//	        [affinity=10s] [internal-local] [external-local] [distribution=…] [proxy-name=…] [check=PORT] [headless]
//	endpoint NAME POD [NAME=]PORT[/PROTO],… [failing|terminating|gone-terminating] [zone=Z] [weight=N] [forzones=…] [fornodes=…]
//	remove NAME POD              the endpoint goes
//	delete NAME                  the service goes, with its endpoints
//	together … apply             what is between is one batch
//	connect FROM ADDR:PORT[/udp] [×N]   N new connections (30): the answers, sorted, each once:
//	                             "p1 sees p2" (who answered, whose address it saw), "refused", "no answer"
//	open ID FROM ADDR:PORT[/udp] a connection that stays; the answer is who it leads to
//	talk ID                      who answers on it now, or how it failed
//	spread FROM ADDR:PORT[/udp]… [×N]   how many different outcomes N connections (20) to each have
//	note ID FROM ADDR:PORT[/udp] remembers who answers; "remove NAME @ID" removes that endpoint
//	noted ID FROM ADDR:PORT[/udp] "the same" or "another" one than noted answers
//	renewed FROM ADDR:PORT[/udp] TIMEOUT   "the same" endpoint or "another" answers a client that connects
//	             for longer than an affinity's time-out, never pausing that long
//	await FROM ADDR:PORT[/udp] ANSWER   connects until that is the only answer, at most a minute
//	invalid ID POD:PORT          the pod sends a segment far out of the window on the other side of the
//	                             connection ID (IPv4): "stopped" on the way, or "arrived"
//	check PORT                   status of the health check node port, from o
//	restart                      kill -9 the driver, start it again with the same catalog
//	stop, start                  the same in two steps: what stays while nobody is there
//	absent CHANGE…               a change between stop and start
//	require WORD                 only for drivers that can: source (clients' addresses are kept), check,
//	                             affinity, udp-cleanup, kept (connections survive a restart), ipv6,
//	                             drop (no answer, instead of a refusal), shortcut (pods use all endpoints
//	                             behind an external address of a service with policy Local),
//	                             loopback (everybody reaches the node's endpoints on loopback addresses),
//	                             relay (by package relay)
//	run PROGRAM ARGS…            on node a, while a script is written
//
// # Beside the scripts
//
// [Suite].Random makes random changes and after each batch compares who answers,
// from inside and outside, with what package vip says should. [Suite].Churn
// changes endpoints under a load of connections: none may be refused or meet an
// endpoint that was out before the connection began. [Suite].Extra has scripts
// for what only one driver can do.
//
// For a driver that cannot keep clients' addresses, what comes after "sees" is
// left out of all answers. One that can "own" translates in the client's socket:
// clients of node a are seen with their own address where others masquerade
// them. One that can "closes" has the kernel close connected UDP sockets whose
// endpoint left, within moments; "talk" then connects anew, as a program would.
package viptest
