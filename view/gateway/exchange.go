package gateway

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fingerpost/fingerpost/view/gateway/cluster"
	"github.com/fingerpost/fingerpost/view/gateway/filter"
	"github.com/fingerpost/fingerpost/view/gateway/h1"
	"github.com/fingerpost/fingerpost/view/gateway/observe"
	"github.com/fingerpost/fingerpost/view/gateway/route"
	"github.com/fingerpost/fingerpost/view/gateway/stream"
	"github.com/fingerpost/fingerpost/wire/http"
)

// exchange is one request and its response. It is used again, with the memory
// that it has.
type exchange struct {
	e    *Engine
	d    stream.Downstream
	u    stream.Upstream
	req  *http.Request
	now  time.Time // when the request's head was there
	resp http.Response
	f    filter.Exchange
	q    route.Query
	cq   cluster.Query
	to   *target
	at   *place
	pump pump

	plain *h1.Conn    // d, if that speaks HTTP/1
	told  bool        // the Poller's goroutine is here: nothing may wait
	left  atomic.Bool // the client will not send any more, and may be gone
	course
	single *h1.Client // u, if that does
	// watch hears when the client gives up; nil: it cannot tell.
	watch *watch
	own   watch // of a client of HTTP/1

	captures [][]byte
	tried    []*cluster.Endpoint

	// What the log and the metrics tell.
	endpoint *cluster.Endpoint // the last one that was asked
	attempts int
	status   int   // told to the client; 0: nothing was
	upstream int   // status of the endpoint
	sent     int64 // bytes of the body to the client
	received int64 // bytes of the body from the client
	waited   time.Duration
	gone     bool      // the client went away
	broken   bool      // the response was cut off
	by       string    // which filter answered
	answered time.Time // when the head of the response was there
	last     time.Time // when all of it was, if that is known
	rec      observe.Record
}

var exchanges = sync.Pool{New: func() any {
	return &exchange{
		resp:  http.Response{Fields: make(http.Fields, 0, 24)},
		tried: make([]*cluster.Endpoint, 0, 4),
		pump:  pump{done: make(chan struct{}, 1)},
	}
}}

// serve answers a request, whatever happens. false: that is not over yet, and the
// connection of the client will be told.
func (e *Engine) serve(peer *stream.Peer, d stream.Downstream) (done bool) {
	x := exchanges.Get().(*exchange)
	over := false
	defer func() {
		if !over {
			x.failed(recover())
			done = true
		}
	}()
	x.e, x.d, x.req = e, d, d.Request()
	if x.plain, _ = d.(*h1.Conn); x.plain != nil {
		x.told = x.plain.Told()
	}
	x.now = e.clock.now()
	e.clusters.Note(x.now)
	if x.f.Fetch == nil {
		x.f.Fetch = x.fetch
	}
	if x.run(peer) {
		over = true
		return false
	}
	x.end()
	over = true
	return true
}

// end ends an exchange.
func (x *exchange) end() {
	if x.watch == &x.own {
		x.plain.Socket().Leaves(nil)
		x.own.forget()
	}
	x.f.Done()
	x.record()
	if x.plain != nil {
		x.plain.Noted(x.last)
	}
	x.reset()
	exchanges.Put(x)
}

// failed ends an exchange that met a mistake of ours. The others go on, and what
// it held is not used again.
func (x *exchange) failed(why any) {
	x.e.log.Error("a request ended in a panic, which is a mistake in the gateway: please report it", "why", fmt.Sprint(why),
		"method", string(x.req.Method), "host", string(x.req.Authority), "stack", string(debug.Stack()))
	x.e.metrics.Broken.Add(1)
	if x.u != nil {
		x.u.Abort(errPanic)
	}
	x.d.Abort(errPanic)
}

var errPanic = errors.New("gateway: the exchange ended in a panic")

func (x *exchange) reset() {
	x.e, x.d, x.u, x.req, x.to, x.at, x.endpoint = nil, nil, nil, nil, nil, nil, nil
	clear(x.tried)
	x.tried = x.tried[:0]
	x.cq = cluster.Query{}
	x.captures = x.captures[:0]
	x.q.Host, x.q.Path, x.q.Method, x.q.Fields = nil, nil, nil, nil
	x.attempts, x.status, x.upstream, x.sent, x.received, x.waited = 0, 0, 0, 0, 0, 0
	x.gone, x.broken, x.by, x.last = false, false, "", time.Time{}
	x.watch, x.plain, x.single, x.told = nil, nil, nil, false
	x.left.Store(false)
	x.course = course{}
	x.pump.reset()
}

// run does what has to be done before an endpoint is asked, and has one asked.
// true: the exchange is not over.
func (x *exchange) run(peer *stream.Peer) (pending bool) {
	e := x.e
	e.filters.Begin(&x.f, peer, x.req, x.now)
	s := e.state.Load()
	if !s.ready {
		return x.answer(503, nil, nil, "The gateway does not know its routes yet.")
	}
	if string(x.req.Method) == "TRACE" {
		// It would echo what scripts must not see, such as cookies.
		return x.answer(405, nil, nil, "")
	}
	q := &x.q
	q.Host, q.Path, q.Method, q.Fields = x.req.Authority, x.req.Path, x.req.Method, x.req.Fields
	m := s.table.Match(q)
	if m.Refused != "" {
		return x.answer(400, nil, nil, m.Refused)
	}
	l, _ := m.Data.(*lazy)
	if l == nil {
		return x.unmatched()
	}
	t := l.of(s)
	x.to = t
	if t.chain == nil {
		return x.answer(503, nil, nil, "The route cannot be served as it is configured.")
	}
	if m.Forward != nil {
		x.forward(m.Forward)
	}
	if n := m.Captures(); n > 0 {
		for i := 0; i <= n; i++ {
			x.captures = append(x.captures, m.Capture(i))
		}
		x.f.Captures = x.captures
	}
	if x.told && t.slow {
		return x.hand(x.admit)
	}
	return x.admit()
}

// admit lets the filters decide, and goes on.
func (x *exchange) admit() (pending bool) {
	t := x.to
	if a := t.chain.Request(&x.f); a != nil {
		x.by = a.By
		return x.answer(a.Status, a.Fields, a.Body, "")
	}
	x.at = &t.primary
	if t.problem != "" {
		return x.unavailable(503, t.problem)
	}
	if c := x.f.Canary; c >= 0 && c < len(t.canaries) {
		x.at = &t.canaries[c]
	}
	if x.at.body >= 0 && x.req.Length > x.at.body {
		return x.answer(413, nil, nil, "")
	}
	return x.deliver(x.at.choose())
}

// forward replaces the path by what was matched, and keeps the query.
func (x *exchange) forward(path []byte) {
	p := append(make([]byte, 0, len(x.req.Path)+len(path)), path...)
	for i, c := range x.req.Path {
		if c == '?' {
			p = append(p, x.req.Path[i:]...)
			break
		}
	}
	x.req.Path = p
}

// unmatched answers what no rule takes.
func (x *exchange) unmatched() (pending bool) {
	if string(x.req.Path) == "/healthz" && (string(x.req.Method) == "GET" || string(x.req.Method) == "HEAD") {
		return x.answer(200, nil, []byte("ok\n"), "")
	}
	return x.answer(404, nil, nil, "")
}

// unavailable answers when no endpoint can: by the service for that, if the
// rule has one.
func (x *exchange) unavailable(status int, reason string) (pending bool) {
	x.e.cfg.Log.Debug("request not delivered", "host", string(x.f.Authority), "path", string(x.f.Path), "status", status, "reason", reason)
	if x.to != nil && x.to.errors != nil && !x.pump.started {
		if x.told {
			return x.hand(func() bool { return x.unavailable(status, reason) })
		}
		if x.fromErrors(status) {
			return false
		}
	}
	return x.answer(status, nil, nil, "")
}

// statusOf is what a client is told about an error of an endpoint.
func statusOf(err error) int {
	if errors.Is(err, os.ErrDeadlineExceeded) || isTimeout(err) {
		return 504
	}
	return 502
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}
