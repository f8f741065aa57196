package userspace

import (
	"context"
	"net"
	"net/netip"
)

// network opens sockets and reports what arrives on them. There are two: one
// that watches any number of sockets with a few goroutines (Linux, epoll), and
// a portable one with a goroutine per socket. Callbacks may come from several
// goroutines, but those of one socket come one after the other.
type network interface {
	// listen takes a TCP address. The socket refuses clients until it is
	// opened.
	listen(at netip.AddrPort, accept acceptFunc) (server, error)
	// packets takes a UDP address. The socket refuses clients until it is
	// opened.
	packets(at netip.AddrPort, receive packetFunc) (packetServer, error)
	// connect makes a UDP socket that talks to one address only.
	connect(to netip.AddrPort, receive packetFunc, failed func(error)) (packetConn, error)
	// run serves all sockets until ctx ends.
	run(ctx context.Context) error
	// close closes every socket. It comes after run, or in place of it.
	close()
}

// server is a socket that holds an address. Refusing, a client's kernel gets a
// "connection refused" at once, while nobody else can take the address.
type server interface {
	setOpen(bool) error
	close()
}

type packetServer interface {
	server
	send(p []byte, to netip.AddrPort) error
}

type packetConn interface {
	send(p []byte) error
	close()
}

// acceptFunc is told of a client. It must return at once, and may call open
// later, on another goroutine, exactly once.
type acceptFunc func(open func() (*net.TCPConn, error))

// packetFunc gets a datagram. p is valid until it returns.
type packetFunc func(p []byte, from netip.AddrPort)

const (
	// maxDatagram is the largest UDP payload there is, with room to spare.
	maxDatagram = 64 << 10
	// backlog is how many clients may wait to be accepted; the kernel lowers
	// it to net.core.somaxconn.
	backlog = 4096
)
