package gateway

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fingerpost/fingerpost/balance"
	"github.com/fingerpost/fingerpost/view/gateway/cluster"
	"github.com/fingerpost/fingerpost/view/gateway/h1"
	"github.com/fingerpost/fingerpost/view/gateway/stream"
	"github.com/fingerpost/fingerpost/wire/http"
)

// verdict is what an attempt came to.
type verdict uint8

const (
	over    verdict = iota // the client was answered, or is gone
	again                  // another endpoint may be asked
	stale                  // a kept connection was closed: ask again, anywhere
	refused                // nobody else is asked
)

// Bounds of attempts, besides what a policy says.
const (
	maxConnects = 8  // connections refused for one request
	maxStale    = 16 // kept connections that turned out to be closed
)

// deliver asks endpoints until one answers.
func (x *exchange) deliver(c *cluster.Cluster) {
	if c == nil {
		x.unavailable(503, "the route has no backend")
		return
	}
	expect := x.req.Expect
	x.req.Expect, x.req.Close = false, false
	if !x.collect(expect) {
		return
	}
	if x.f.Hashed {
		x.cq.Hash = x.f.Hash
	}
	if x.f.Sticky != "" {
		x.cq.Sticky = x.f.Sticky
		x.cq.Persistent = x.at.policy.Affinity != nil && x.at.policy.Affinity.Persistent
	}
	var last error
	refusals, stales, timeouts := 0, 0, 0
	for {
		ep, problem := c.Pick(&x.cq)
		if ep == nil {
			if stales > 0 && stales <= maxStale && refusals == 0 && len(x.tried) > 0 && c.Problem() == "" {
				// Nobody refused: endpoints have closed connections, as when all
				// of them are started anew.
				stales++
				x.tried, x.cq.Tried = x.tried[:0], nil
				continue
			}
			if last == nil {
				x.unavailable(503, string(problem))
			} else {
				x.unavailable(statusOf(last), last.Error())
			}
			return
		}
		x.attempts++
		x.endpoint = ep
		u, err := ep.Connect(context.Background(), x.at.connect)
		if err != nil {
			last = err
			result := balance.Failure
			if errors.Is(err, cluster.ErrRemoved) || errors.Is(err, cluster.ErrFull) {
				result = balance.Nothing
			}
			ep.Done(cluster.Outcome{Result: result})
			if isTimeout(err) {
				timeouts++
			}
			if refusals++; refusals > maxConnects || timeouts >= x.at.tries || x.late() {
				x.unavailable(statusOf(err), err.Error())
				return
			}
			x.fail(ep)
			continue
		}
		if x.at.policy.Affinity != nil {
			x.f.Chose(ep.ID(), x.cq.Sticky != "" && x.cq.Sticky != ep.ID() && len(x.tried) > 0)
		}
		v, err := x.attempt(ep, u, expect)
		switch v {
		case over:
			return
		case stale:
			if stales++; stales <= maxStale {
				last = err
				if stales > 1 && len(c.Endpoints()) > 1 {
					x.fail(ep)
				}
				continue
			}
		case again:
			if last = err; x.attempts < x.at.tries && !x.late() && c.Retry() && x.others(c, ep) {
				x.fail(ep)
				continue
			}
		}
		x.unavailable(statusOf(err), err.Error())
		return
	}
}

// others says that there is an endpoint that was not tried.
func (x *exchange) others(c *cluster.Cluster, last *cluster.Endpoint) bool {
next:
	for _, ep := range c.Endpoints() {
		for _, t := range x.tried {
			if t == ep {
				continue next
			}
		}
		if ep != last {
			return true
		}
	}
	return false
}

// fail remembers an endpoint that is not to be asked again.
func (x *exchange) fail(ep *cluster.Endpoint) {
	x.tried = append(x.tried, ep)
	x.cq.Tried = x.tried
}

// late says that the time for further attempts is over.
func (x *exchange) late() bool {
	w := x.at.policy.Retry.Within
	return w > 0 && time.Since(x.now) > w
}

// attempt sends the request to one endpoint and, if that answers, the response
// to the client.
func (x *exchange) attempt(ep *cluster.Endpoint, u stream.Upstream, expect bool) (verdict, error) {
	x.u = u
	x.single, _ = u.(*h1.Client)
	if !x.attend(u) {
		u.Abort(errGone)
		x.release()
		ep.Done(cluster.Outcome{Result: balance.Nothing})
		x.gone = true
		x.d.Abort(errGone)
		return over, nil
	}
	start := x.now
	if x.attempts > 1 {
		start = time.Now()
	}
	u.SetWriteDeadline(start.Add(x.at.send))
	u.SetReadDeadline(start.Add(x.at.read))
	err := x.send(u, expect)
	interim := false
	if err == nil {
		interim, err = x.receive(u)
	}
	// Since looks at one clock of the system, Now at two.
	x.waited = time.Since(start)
	now := start.Add(x.waited)
	x.answered = now
	x.e.clusters.Note(now)
	if err != nil {
		return x.lost(ep, u, err, interim)
	}
	r := &x.resp
	x.upstream = r.Status
	if r.Status == 101 && len(x.req.Upgrade) == 0 {
		return x.lost(ep, u, errUnasked, interim)
	}
	if r.Status != 101 && x.at.retries(r.Status) && !interim && x.replayable() && x.may() && x.attempts < x.at.tries && x.others(ep.Cluster(), ep) {
		x.pump.halt(x)
		u.Abort(nil)
		x.release()
		ep.Done(cluster.Outcome{Result: balance.Bad, Status: r.Status, Latency: x.waited})
		return again, errStatus
	}
	result := x.respond(u, now)
	ep.Done(cluster.Outcome{Result: result, Status: r.Status, Latency: x.waited})
	return over, nil
}

var errUnasked = fmt.Errorf("%w: an upgrade that nobody asked for", stream.ErrMalformed)

var errStatus = errors.New("gateway: the endpoint's status asks for another one")

// may says that the request can be sent although an endpoint may have acted
// on it.
func (x *exchange) may() bool {
	return x.at.policy.Retry.NonIdempotent || idempotent(x.req.Method)
}

func idempotent(method []byte) bool {
	switch string(method) {
	case "GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE":
		return true
	}
	return false
}

// lost decides what follows from an attempt without response.
func (x *exchange) lost(ep *cluster.Endpoint, u stream.Upstream, err error, interim bool) (verdict, error) {
	x.pump.halt(x)
	fresh := u.Fresh()
	u.Abort(err)
	x.release()
	src := x.pump.src
	if x.watch.left() && src == nil {
		src = errGone
	}
	if src != nil {
		// The client's fault.
		ep.Done(cluster.Outcome{Result: balance.Nothing})
		x.clientFailed(src)
		return over, nil
	}
	timeout := isTimeout(err)
	closed := errors.Is(err, stream.ErrClosed) && !interim
	refusal := errors.Is(err, stream.ErrRefused)
	result := balance.Failure
	if closed && !fresh || refusal {
		result = balance.Nothing
	}
	ep.Done(cluster.Outcome{Result: result})
	if !x.replayable() {
		return refused, err
	}
	retry := &x.at.policy.Retry
	switch {
	case refusal, closed && !fresh:
		// It was not looked at, and another connection may do, be it to the same endpoint.
		return stale, err
	case retry.Off:
		return refused, err
	case closed && retry.Reset && x.may(), timeout && retry.TimeOut && x.may() && !interim:
		return again, err
	}
	return refused, err
}

// receive reads the head of the final response, and passes those before it.
func (x *exchange) receive(u stream.Upstream) (interim bool, err error) {
	asked := x.single == nil || x.pump.kind == streamed
	for {
		if !asked {
			err, asked = x.single.Ask(&x.resp), true
		} else {
			err = u.Receive(&x.resp)
		}
		if err != nil {
			if isTimeout(err) && x.pump.busy() {
				// The endpoint waits for the rest of the request, as we do.
				u.SetReadDeadline(time.Now().Add(x.at.read))
				continue
			}
			return interim, err
		}
		if x.resp.Status >= 200 || x.resp.Status == 101 {
			return interim, nil
		}
		if x.resp.Status == 100 {
			continue // that was between the endpoint and us
		}
		interim = true
		if x.resp.Version = http.HTTP11; x.d.Respond(&x.resp, true) != nil {
			return interim, errGone
		}
	}
}

var errGone = errors.New("gateway: the client went away")
