package filter

import (
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/fingerpost/fingerpost/view/gateway/route"
	"github.com/fingerpost/fingerpost/view/gateway/stream"
	"github.com/fingerpost/fingerpost/wire/http"
)

// Exchange is one request on its way. Keep one per connection (or per stream)
// and begin it again for each request: its buffers are reused.
type Exchange struct {
	// Peer, Request and Now are as given to Begin. Request is changed in place.
	Peer    *stream.Peer
	Request *http.Request
	Now     time.Time
	// Captures of the path's regular expression, the whole match first; set by
	// the engine before Chain.Request. They are taken as they stand in the
	// request, percent-encoded or not.
	Captures [][]byte
	// Fetch asks an authentication server; set by the engine once.
	Fetch func(*Call) error

	// Method, Path and Authority are the request's as they came; what is sent on
	// is in Request.
	Method, Path, Authority []byte
	// Client is who asks: the peer, or whom trusted peers say they speak for.
	Client netip.Addr
	// ID is the request's id, "" before Chain.Request with ids switched off.
	ID []byte
	// User is the name of basic authentication that was let in.
	User []byte
	// Canary is the index of the rule's canary that takes the request, -1: none.
	Canary int
	// Hash is what hash balancers go by, if Hashed.
	Hash   uint64
	Hashed bool
	// Sticky is the id of the endpoint that the affinity cookie names, "": none.
	// It lives as long as the exchange.
	Sticky string

	set        *Set
	of         *stream.Peer // whom remote, … describe
	ofRemote   net.Addr
	remote     netip.Addr
	remoteText []byte // of remote
	remotePort uint16
	portText   []byte // of the local port
	trusted    bool
	https      bool   // the client's side of it
	client     []byte // text of Client
	forwarded  []byte // the incoming X-Forwarded-For, joined
	host       []byte // what the client calls us: Authority, or what a trusted proxy says
	buf        []byte
	answer     Answer
	call       Call
	held       uint64 // key of the connection limit that counts this one
	holds      bool
	group      int    // the canary that the affinity cookie names, -1: the rule's own backends, -2: no cookie
	origin     []byte // what CORS says to the client's origin, nil: nothing
	chosen     string // endpoint id to be told in a cookie
	failed     bool   // the sticky endpoint failed
	remoteBuf  [48]byte
	portBuf    [8]byte
}

// Answer is a response of the gateway itself.
type Answer struct {
	Status int
	Fields http.Fields
	Body   []byte // nil: the gateway's page for the status
	// By says which filter answered, for the log.
	By string
}

// Call is a request to an authentication server.
type Call struct {
	TLS     bool
	Host    []byte         // and port
	Backend *route.Backend // the service instead, if not nil
	Request http.Request
	// Status and Fields are filled in; they are valid until the exchange is over.
	Status int
	Fields http.Fields

	passed  http.Fields // what of the answer the endpoint gets
	cookies http.Fields // what of it the client gets
}

// mostKept is how large a buffer may be that waits for the next exchange.
const mostKept = 16 << 10

// Begin starts an exchange: it finds out who asks.
func (s *Set) Begin(x *Exchange, peer *stream.Peer, r *http.Request, now time.Time) {
	x.set, x.Peer, x.Request, x.Now = s, peer, r, now
	x.Method, x.Path, x.Authority = r.Method, r.Path, r.Authority
	x.Captures, x.ID, x.User, x.Sticky, x.chosen = nil, nil, nil, "", ""
	x.Canary, x.Hash, x.Hashed, x.failed, x.holds = -1, 0, false, false, false
	if cap(x.buf) > mostKept {
		x.buf = nil
	}
	x.buf, x.answer.By = x.buf[:0], ""
	x.forwarded, x.origin, x.group = nil, nil, noGroup
	x.call.passed, x.call.cookies = x.call.passed[:0], x.call.cookies[:0]
	if x.of != peer || x.ofRemote != peer.Remote { // a Peer may be used again for another client
		x.meet(peer)
	}
	x.Client, x.client, x.https, x.host = x.remote, x.remoteText, peer.TLS, r.Authority
	if x.trusted {
		x.believe()
	}
}

// meet works out what stays the same during a connection.
func (x *Exchange) meet(peer *stream.Peer) {
	x.of, x.ofRemote = peer, peer.Remote
	remote := addrPort(peer.Remote)
	x.remote, x.remotePort = remote.Addr().Unmap().WithZone(""), remote.Port()
	x.remoteText = x.remote.AppendTo(x.remoteBuf[:0])
	if !x.remote.IsValid() {
		x.remoteText = append(x.remoteBuf[:0], "unknown"...)
	}
	port := addrPort(peer.Local).Port()
	if peer.TLS && x.set.cfg.HTTPSPort != 0 {
		port = x.set.cfg.HTTPSPort
	} else if !peer.TLS && x.set.cfg.HTTPPort != 0 {
		port = x.set.cfg.HTTPPort
	}
	x.portText = strconv.AppendUint(x.portBuf[:0], uint64(port), 10)
	x.trusted = x.set.trusted.has(x.remote)
}

func addrPort(a net.Addr) netip.AddrPort {
	switch a := a.(type) {
	case *net.TCPAddr:
		return a.AddrPort()
	case nil:
		return netip.AddrPort{}
	}
	ap, _ := netip.ParseAddrPort(a.String())
	return ap
}

// reply fills the answer of the exchange.
func (x *Exchange) reply(status int, by string) *Answer {
	x.answer = Answer{Status: status, Fields: x.answer.Fields[:0], By: by}
	return &x.answer
}

// redirect answers with a place that was built in the buffer.
func (x *Exchange) redirect(status int, location []byte, by string) *Answer {
	a := x.reply(status, by)
	a.Fields.Add(http.Location, location)
	return a
}

// Done ends an exchange: it gives back what limits count. It may be called
// more than once.
func (x *Exchange) Done() {
	if x.holds {
		x.holds = false
		x.set.limits.release(x.held)
	}
}

// Scheme is "https" or "http", as the client sees it.
func (x *Exchange) Scheme() string {
	if x.https {
		return "https"
	}
	return "http"
}

// Remote is the text of the client's address.
func (x *Exchange) Remote() []byte { return x.client }

// Chose tells the id of the endpoint that took the request, for the affinity
// cookie. failed says that the one that the cookie named did not serve.
func (x *Exchange) Chose(id string, failed bool) { x.chosen, x.failed = id, failed }
