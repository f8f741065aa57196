package conntrack

import (
	"net/netip"

	"github.com/fingerpost/fingerpost/catalog"
)

// Flow is one entry.
type Flow struct {
	Proto   catalog.Protocol
	Client  netip.Addr
	To      netip.AddrPort // of the client's packets
	Backend netip.AddrPort // who answers, or would
	State   State          // of TCP
}

// State is how far a TCP connection is.
type State uint8

// The states that somebody asks about.
const (
	Other State = iota
	Begun       // the client was not answered yet
	Over        // it ended, and the entry waits for its end
)

// Untranslated says whether a connection was begun without any rule that would
// have led it elsewhere.
func (f *Flow) Untranslated() bool { return f.State == Begun && f.Backend == f.To }
