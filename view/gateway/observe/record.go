package observe

import (
	"net/netip"
	"time"

	"github.com/fingerpost/fingerpost/wire/http"
)

// Record is one exchange that is over. Slices need to be valid only during
// the call that takes it.
type Record struct {
	Begin    time.Time     // when the head of the request was there
	Took     time.Duration // until the end of the response
	Remote   []byte        // text of the client's address
	User     []byte        // of basic authentication
	Method   []byte
	Path     []byte // with query, as it came
	Host     []byte // and port, as it came
	Version  http.Version
	TLS      bool
	Referer  []byte
	Agent    []byte // User-Agent
	ID       []byte // of the request
	Status   int    // told to the client; 0: it was gone before, and 499 is logged
	Sent     int64  // bytes of the response's body
	Received int64  // bytes of the request's body
	By       string // which filter answered; "": none did

	Route *Route // nil: no rule matched

	// Of the endpoint; Attempts is 0 if none was asked.
	Attempts       int
	Upstream       netip.AddrPort
	UpstreamStatus int
	UpstreamTook   time.Duration // until the head of its response
	UpstreamSent   int64         // bytes of its response's body
	Canary         *Route        // that of the canary that took it; nil: none
}

// status as nginx tells it.
func (r *Record) status() int {
	if r.Status < 100 || r.Status > 599 {
		return 499
	}
	return r.Status
}
