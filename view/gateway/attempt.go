package gateway

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fingerpost/fingerpost/balance"
	"github.com/fingerpost/fingerpost/view/gateway/cluster"
	"github.com/fingerpost/fingerpost/view/gateway/h1"
	"github.com/fingerpost/fingerpost/view/gateway/h2"
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
	waiting                // the Poller will tell of the answer
	handed                 // the answer has to be waited for in a goroutine
)

// course is how far the attempts of an exchange came.
type course struct {
	c       *cluster.Cluster
	picked  *cluster.Endpoint // to be asked next
	expect  bool
	start   time.Time // of the attempt
	problem error     // of the last one
	tally
}

// deliver asks endpoints until one answers. true: one was asked, and will answer.
func (x *exchange) deliver(c *cluster.Cluster) (pending bool) {
	if c == nil {
		return x.unavailable(503, "the route has no backend")
	}
	x.c, x.expect = c, x.req.Expect
	x.req.Expect, x.req.Close = false, false
	if !x.collect(x.expect) {
		return false
	}
	if x.f.Hashed {
		x.cq.Hash = x.f.Hash
	}
	if x.f.Sticky != "" {
		x.cq.Sticky = x.f.Sticky
		x.cq.Persistent = x.at.policy.Affinity != nil && x.at.policy.Affinity.Persistent
	}
	return x.try()
}

// try asks endpoints, one after the other.
func (x *exchange) try() (pending bool) {
	c := x.c
	for {
		ep, problem := x.picked, cluster.Problem("")
		x.picked = nil
		if ep == nil {
			ep, problem = c.Pick(&x.cq)
		}
		if ep == nil {
			if x.problem == nil {
				return x.unavailable(503, string(problem))
			}
			if c.Problem() == "" && x.anew(c) {
				continue // all were asked: begin again with any
			}
			return x.unavailable(statusOf(x.problem), x.problem.Error())
		}
		var u stream.Upstream
		var err error
		if !x.told {
			u, err = ep.Connect(context.Background(), x.at.connect)
		} else if u = ep.Kept(x.plain.Socket()); u == nil {
			x.picked = ep
			return x.hand(x.try)
		}
		x.attempts++
		x.endpoint = ep
		if err != nil {
			x.problem = err
			result := balance.Failure
			if errors.Is(err, cluster.ErrRemoved) || errors.Is(err, cluster.ErrFull) {
				result = balance.Nothing
			}
			ep.Done(cluster.Outcome{Result: result})
			x.refused(err)
			if x.timeouts >= x.at.tries || x.late() || x.refusals > maxConnects && !x.anew(c) {
				return x.unavailable(statusOf(err), err.Error())
			}
			if x.refusals > 0 { // else it has begun anew
				x.fail(ep)
			}
			continue
		}
		c.Reached()
		if x.at.policy.Affinity != nil {
			x.f.Chose(ep.ID(), x.cq.Sticky != "" && x.cq.Sticky != ep.ID() && len(x.tried) > 0)
		}
		v, err := x.attempt(ep, u)
		switch {
		case v == waiting:
			return true
		case v == handed:
			return x.hand(func() bool { return x.proceed(false, nil, false) })
		case v == over:
			return false
		case !x.another(v, err):
			return x.unavailable(statusOf(err), err.Error())
		}
	}
}

// another says that after an attempt that came to v another one is to be made.
func (x *exchange) another(v verdict, err error) bool {
	c, ep := x.c, x.endpoint
	switch v {
	case stale:
		if x.stales++; x.stales <= maxStale {
			x.problem = err
			if x.stales > 1 && len(c.Endpoints()) > 1 {
				x.fail(ep)
			}
			return true
		}
	case again:
		// What was refused or turned out to be closed is no try.
		x.losses++
		if x.problem = err; x.losses < x.at.tries && !x.late() && c.Retry() {
			x.fail(ep)
			return true
		}
	}
	return false
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
func (x *exchange) attempt(ep *cluster.Endpoint, u stream.Upstream) (verdict, error) {
	x.u = u
	x.single, _ = u.(*h1.Client)
	if !x.attend(u) {
		return x.abandon(), nil
	}
	x.start = x.now
	if x.attempts > 1 {
		x.start = time.Now()
	}
	u.SetWriteDeadline(x.start.Add(x.at.send))
	u.SetReadDeadline(x.start.Add(x.at.read))
	err := x.send(u, x.expect)
	if x.told && err == nil {
		if !x.single.CanPost() {
			return handed, nil
		}
		// From here on the answer may come.
		ready, err := x.single.Post(x, x.plain.Socket())
		if ready {
			x.plain.Pending(x)
			x.plain.Socket().Late()
			return waiting, nil
		}
		if err == nil {
			return handed, nil
		}
		return x.outcome(false, err)
	}
	interim := false
	if err == nil {
		interim, err = x.receive(u)
	}
	return x.outcome(interim, err)
}

// abandon ends an exchange whose client is gone.
func (x *exchange) abandon() verdict {
	x.u.Abort(errGone)
	x.release()
	x.endpoint.Done(cluster.Outcome{Result: balance.Nothing})
	x.gone = true
	x.d.Abort(errGone)
	return over
}

// outcome is what follows when the head of a response is there, or an error.
func (x *exchange) outcome(interim bool, err error) (verdict, error) {
	u, ep := x.u, x.endpoint
	// Since looks at one clock of the system, Now at two.
	x.waited = time.Since(x.start)
	now := x.start.Add(x.waited)
	x.answered = now
	x.e.clusters.Note(now)
	if err != nil {
		return x.lost(ep, u, err, interim)
	}
	if x.watch == &x.own {
		x.watch.attend(nil) // what is written will tell
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
	fresh, begun, unread := u.Fresh(), false, false
	if x.single != nil {
		begun, unread = x.single.Begun(), x.single.Unread()
	} else {
		// An endpoint that ends one of many exchanges has looked at it.
		var reset *h2.ResetError
		begun = errors.As(err, &reset)
	}
	u.Abort(err)
	x.release()
	src := x.pump.src
	if src == nil && (x.watch.left() || x.left.Load() && isTimeout(err)) {
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
	refusal := errors.Is(err, stream.ErrRefused) || closed && unread
	// A kept connection that ends without a word was most likely ended before the
	// request came; but an endpoint may have died of it, too.
	kept := closed && !fresh && !begun
	result := balance.Failure
	if refusal || kept {
		result = balance.Nothing
	}
	ep.Done(cluster.Outcome{Result: result})
	if !x.replayable() {
		return refused, err
	}
	retry := &x.at.policy.Retry
	switch {
	case refusal, kept && x.may():
		// Another connection may do, be it to the same endpoint.
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
	return x.await(u, x.single == nil || x.pump.kind == streamed)
}

func (x *exchange) await(u stream.Upstream, asked bool) (interim bool, err error) {
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
