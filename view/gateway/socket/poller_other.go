//go:build !linux

package socket

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"time"
)

// Elsewhere than on Linux there is no Poller: what follows is never called.

var (
	errClosed = net.ErrClosed
	errNone   = errors.ErrUnsupported
)

type desc struct{ r struct{ expired atomic.Bool } }

func (*desc) use() bool                { return false }
func (*desc) watch()                   {}
func (*desc) unuse()                   {}
func (*desc) number() uintptr          { return 0 }
func (*desc) news() bool               { return false }
func (*desc) recv([]byte) (int, error) { return 0, io.EOF }

// Handler is told of connections of a Poller.
type Handler interface{ Readable(left bool) }

// Poller watches descriptors on Linux.
type Poller struct{}

// NewPoller fails.
func NewPoller() (*Poller, error) { return nil, errNone }

// Close does nothing.
func (*Poller) Close() {}

// Listen fails.
func (*Poller) Listen(*net.TCPListener, func(*Accepted), func(error) time.Duration) (interface{ Close() error }, error) {
	return nil, errNone
}

// Dial fails.
func (*Poller) Dial(context.Context, netip.AddrPort) (*Conn, error) { return nil, errNone }

// Polled is a Conn of a Poller.
type Polled struct{ Conn }

// Accepted is a connection that was accepted.
type Accepted struct{}

// Open does nothing.
func (*Polled) Open(*Accepted, net.Addr) {}

// Ready does nothing.
func (*Polled) Ready(Handler) {}

// Watch does nothing.
func (*Polled) Watch(Handler) {}

// Near is true.
func (*Accepted) Near() bool { return true }

// Leaver is told that a peer sends nothing more.
type Leaver interface{ PeerLeft() }

// Leaves does nothing.
func (*Conn) Leaves(Leaver) {}

// Late does nothing.
func (*Conn) Late() {}

// Refuse does nothing.
func (*Accepted) Refuse() {}

// Tell does nothing.
func (*Conn) Tell(Handler) {}

// Hush does nothing.
func (*Conn) Hush() {}

// Wait does nothing.
func (*Conn) Wait() {}

// Polled is false.
func (*Conn) Polled() bool { return false }

// Near is true.
func (*Conn) Near(*Conn) bool { return true }

// Join fails.
func (*Conn) Join(*Conn) error { return errNone }
