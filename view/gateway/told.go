package gateway

import (
	"time"

	"github.com/fingerpost/fingerpost/view/gateway/h1"
	"github.com/fingerpost/fingerpost/view/gateway/socket"
)

// An exchange of HTTP/1 on both sides, without TLS, runs on the goroutine of a
// Poller as long as nothing has to be waited for: that is most of them, and then
// it costs no goroutine. When something has to, the exchange is handed to a
// goroutine, where it goes on as any other.

var (
	_ socket.Handler = (*exchange)(nil)
	_ h1.Leaver      = (*exchange)(nil)
)

// hand goes on with f in a goroutine. It is true: the exchange is pending.
func (x *exchange) hand(f func() bool) bool {
	c := x.plain
	c.Pending(nil)
	x.told = false
	c.Detach(func() {
		x.guarded(func() bool {
			if x.u != nil {
				x.attend(x.u)
			}
			return f()
		})
		c.Detached()
	})
	return true
}

// guarded calls f and ends the exchange, if it is over then: true. A panic ends it, too.
func (x *exchange) guarded(f func() bool) (done bool) {
	over := false
	defer func() {
		if !over {
			x.failed(recover())
			done = true
		}
	}()
	if f() {
		over = true
		return false
	}
	x.end()
	over = true
	return true
}

// Readable is of socket.Handler: the endpoint has answered, or will not.
func (x *exchange) Readable(bool) {
	if c := x.plain; x.guarded(x.resume) {
		c.Done()
	}
}

// resume goes on with what the endpoint sent. true: the exchange is not over.
func (x *exchange) resume() (pending bool) {
	p, err := x.single.Answer(&x.resp)
	if p == h1.Nothing && err == nil {
		return true
	}
	x.plain.Pending(nil)
	r := &x.resp
	if err != nil || p != h1.Whole || r.Status == 101 || x.at.retries(r.Status) || x.to.errors != nil {
		return x.hand(func() bool { return x.proceed(p != h1.Some, err, true) })
	}
	_, _ = x.outcome(false, nil)
	return false
}

// proceed goes on with an attempt in a goroutine: known says that the head of the
// response was read or err met, posted that the request was sent.
func (x *exchange) proceed(known bool, err error, posted bool) (pending bool) {
	interim := false
	if !known {
		asked := posted || x.single.Posted() || x.pump.kind == streamed
		interim, err = x.await(x.u, asked)
	}
	v, err := x.outcome(interim, err)
	switch {
	case v == over:
		return false
	case x.another(v, err):
		return x.try()
	}
	return x.unavailable(statusOf(err), err.Error())
}

// leaving is how long the endpoint may take yet when the client sends nothing more:
// it may have closed only its half of the connection, which nobody can tell.
const leaving = 2 * time.Second

// ClientLeft is of h1.Leaver.
func (x *exchange) ClientLeft() {
	if x.left.CompareAndSwap(false, true) {
		x.single.SetReadDeadline(time.Now().Add(leaving))
	}
}
