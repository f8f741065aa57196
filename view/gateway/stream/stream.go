package stream

import (
	"errors"
	"net"
	"time"

	"github.com/fingerpost/fingerpost/wire/http"
)

// Body is the reading half of either side.
type Body interface {
	// Next gives the next bytes of the body and waits for them if there are
	// none; end says that no more follow. With a failed body it gives an error;
	// what was given before is valid. After the end it gives nothing and end.
	Next() (p []byte, end bool, err error)
	// Ready says that Next would not wait.
	Ready() bool
	// Trailers are the fields after the body, once it has ended.
	Trailers() http.Fields
}

// Sink is the writing half of either side.
type Sink interface {
	// Write sends a part of the body; end says that it is the last one. An empty
	// p with end ends the body.
	Write(p []byte, end bool) error
	// End ends the body with trailers.
	End(trailers http.Fields) error
	// Flush sends what is buffered.
	Flush() error
}

// Downstream is one request of a client.
type Downstream interface {
	Body
	Sink
	// Request is the head; valid until the exchange is over. The exchange may
	// change it.
	Request() *http.Request
	// Respond sends the head of the final response, or of one with a status of
	// 1xx before it. end says that there is no body. Framing is the callee's
	// business: it derives it from Length, and leaves the body out for HEAD, 204
	// and 304.
	Respond(r *http.Response, end bool) error
	// Hijack ends HTTP on this side after a 101, or a 2xx to CONNECT: what
	// is read and written from here on are bytes. Nothing else may be called after.
	Hijack() (Tunnel, error)
	// Abort breaks the exchange: the client sees that the response is incomplete.
	Abort(err error)
	// SetDeadlines limits waiting for the client; zero: no limit. They are
	// moments, set anew when there was progress.
	SetReadDeadline(t time.Time)
	SetWriteDeadline(t time.Time)
}

// Upstream is one request to an endpoint.
type Upstream interface {
	Body
	Sink
	// Send sends the head. end says that there is no body.
	Send(r *http.Request, end bool) error
	// Receive reads the head of a response into r: any number of 1xx, then the
	// final one. Its slices are valid until the exchange is over.
	Receive(r *http.Response) error
	// Fresh says that the connection was opened for this request. One that was
	// kept may have been closed by the endpoint at the same moment: if nothing
	// of a response came, the request may be sent again.
	Fresh() bool
	// Hijack is as that of Downstream.
	Hijack() (Tunnel, error)
	// Release ends the exchange. The connection is kept for other requests if
	// the response was read to its end and all was well.
	Release()
	// Abort breaks the exchange and tells the endpoint as far as possible.
	Abort(err error)
	SetReadDeadline(t time.Time)
	SetWriteDeadline(t time.Time)
}

// Tunnel is a connection, or a stream of HTTP/2, that carries bytes.
type Tunnel interface {
	Read(p []byte) (int, error)
	Write(p []byte) (int, error)
	// CloseWrite says that no more bytes follow.
	CloseWrite() error
	Close() error
	SetReadDeadline(t time.Time) error
	SetWriteDeadline(t time.Time) error
}

// Peer is who is at the other end of a client's connection.
type Peer struct {
	Remote net.Addr // of the client; as the PROXY protocol says, if that is on
	Local  net.Addr // where it was accepted
	TLS    bool
	// ServerName is the name that the client asked for in TLS (SNI), lower case.
	ServerName string
	// Protocol is that of ALPN: "h2", "http/1.1" or "".
	Protocol string
	// Client is what is known of a client certificate; nil: none was given.
	Client *Identity
}

// Identity is of a client certificate.
type Identity struct {
	Verified bool   // by the authorities of the host
	Problem  string // why it is not verified
	Subject  string // RFC 2253
	Issuer   string
	Serial   string
	Digest   string // SHA-1 of the certificate, hex
	PEM      string // the certificate, URL-encoded PEM
}

// The errors by which an exchange decides what to tell the client.
var (
	// ErrMalformed: the peer sent what is not HTTP. From a client: 400, and from
	// an endpoint: 502.
	ErrMalformed = errors.New("malformed message")
	// ErrTooLarge: a head is larger than allowed: 431 (or 414).
	ErrTooLarge = errors.New("head too large")
	// ErrClosed: the peer ended the connection, or reset the stream.
	ErrClosed = errors.New("closed by the peer")
	// ErrRefused: the endpoint did not take the request (h2: REFUSED_STREAM,
	// GOAWAY below it): it may be sent again, whatever its method.
	ErrRefused = errors.New("refused by the endpoint")
)
