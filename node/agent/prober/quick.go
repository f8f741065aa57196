package prober

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"

	"github.com/fingerpost/fingerpost/health/probe"
)

// maxQuick is how much of an answer is taken at once.
const maxQuick = 16 << 10

// Quick is a question to an address that costs little: its request is made
// once, and it is asked by as few calls to the kernel as there can be.
type Quick struct {
	addr netip.AddrPort

	// For HTTP; else it is enough that a connection can be made.
	http HTTP
	url  *url.URL
	req  *http.Request
	text []byte // of the request
}

// QuickHTTP makes a quick question of a GET; nil if it needs TLS or a name
// that must be looked up, or cannot be asked at all.
func QuickHTTP(h HTTP) *Quick {
	q := quick(h.Addr, h.Port)
	u, err := h.url()
	if q == nil || h.TLS || err != nil {
		return nil
	}
	q.http, q.url, q.req = h, u, h.request(u)
	var b bytes.Buffer
	if err := q.req.Write(&b); err != nil {
		return nil
	}
	q.text = b.Bytes()
	return q
}

// QuickTCP makes a quick question of a connection; nil if there is a name to be
// looked up.
func QuickTCP(addr string, port uint16) *Quick { return quick(addr, port) }

func quick(addr string, port uint16) *Quick {
	ip, err := netip.ParseAddr(addr)
	if err != nil || ip.Zone() != "" || port == 0 {
		return nil
	}
	return &Quick{addr: netip.AddrPortFrom(ip.Unmap(), port)}
}

// failed says that there is no answer, as the slow ways do.
func (q *Quick) failed(ctx context.Context, err error) probe.Result {
	if q.req == nil {
		return probe.Result{Output: reason(ctx, err)}
	}
	return unanswered(ctx, q.url, err)
}

// during names the step of a connection that failed.
func (q *Quick) during(step string, err error) error {
	return &net.OpError{Op: step, Net: "tcp", Addr: net.TCPAddrFromAddrPort(q.addr), Err: err}
}

// connected is the answer to a question about a connection.
func (q *Quick) connected() probe.Result {
	return probe.Result{OK: true, Output: "connected to " + q.addr.String()}
}

// errShort ends what has come so far.
var errShort = errors.New("more is to come")

// part is the beginning of an answer, or all of it.
type part struct {
	bytes.Reader
	all bool
}

// Read implements io.Reader.
func (p *part) Read(b []byte) (int, error) {
	n, err := p.Reader.Read(b)
	if err == io.EOF && !p.all {
		err = errShort
	}
	return n, err
}

// scratch is what looking at an answer needs.
type scratch struct {
	buf  []byte
	part part
	r    *bufio.Reader
}

func newScratch() *scratch {
	return &scratch{buf: make([]byte, maxQuick), r: bufio.NewReader(nil)}
}

// judge looks at what has come; done is false if that is not enough.
func (q *Quick) judge(ctx context.Context, s *scratch, got []byte, all bool) (r probe.Result, next *url.URL, done bool) {
	s.part.all = all || len(got) >= maxAnswer
	s.part.Reset(got)
	s.r.Reset(&s.part)
	res, err := answer(s.r, q.req)
	switch {
	case errors.Is(err, errShort):
		return r, nil, false
	case err != nil:
		return q.failed(ctx, err), nil, true
	}
	r, next = judge(q.url, res)
	return r, next, true
}
