package gateway

import (
	"errors"
	"os"
	"time"

	"github.com/fingerpost/fingerpost/balance"
	"github.com/fingerpost/fingerpost/view/gateway/stream"
	"github.com/fingerpost/fingerpost/wire/http"
)

// respond gives the endpoint's response to the client.
func (x *exchange) respond(u stream.Upstream, now time.Time) balance.Result {
	r := &x.resp
	if x.to != nil && x.to.errors != nil && x.to.chain.Intercepts(r.Status) && r.Status != 101 {
		status := r.Status
		x.pump.halt(x)
		u.Abort(nil)
		x.release()
		if !x.fromErrors(status) {
			x.answer(status, nil, nil, "")
		}
		return balance.Success
	}
	if x.to != nil {
		x.to.chain.Response(&x.f, r)
	}
	x.status = r.Status
	d := x.d
	d.SetWriteDeadline(now.Add(x.e.cfg.Timeouts.Write))
	if r.Status == 101 || r.Status < 300 && string(x.req.Method) == "CONNECT" && len(x.req.Upgrade) == 0 {
		return x.tunnel(u)
	}
	r.Close, r.Version = false, http.HTTP11
	bare := r.Length == 0 || r.Status == 204 || r.Status == 304 || string(x.req.Method) == "HEAD"
	if err := d.Respond(r, bare); err != nil {
		return x.cut(u, err, true)
	}
	var err error
	client := false
	if bare {
		// Trailers may follow no body, and the end must be read in any case.
		err, client = x.drain(u)
	} else {
		err, client = x.relay(u)
	}
	if err != nil {
		return x.cut(u, err, client)
	}
	x.pump.halt(x)
	x.release()
	if err := d.Flush(); err != nil {
		x.gone = true
		d.Abort(err)
	}
	return balance.Success
}

// relay carries the body from the endpoint to the client. client says whose
// fault an error is.
func (x *exchange) relay(u stream.Upstream) (err error, client bool) {
	d := x.d
	hold := x.at.policy.BufferResponse
	if !hold && !u.Ready() {
		// The body may begin much later: a stream of events that has none yet.
		if err := d.Flush(); err != nil {
			return err, true
		}
	}
	for {
		p, end, err := u.Next()
		if err != nil {
			if isTimeout(err) && x.pump.busy() {
				u.SetReadDeadline(time.Now().Add(x.at.read))
				continue
			}
			return err, false
		}
		x.sent += int64(len(p))
		if end {
			if t := u.Trailers(); len(t) > 0 {
				if err = d.Write(p, false); err == nil {
					err = d.End(t)
				}
			} else {
				err = d.Write(p, true)
			}
			if x.sent == int64(len(p)) {
				x.last = x.answered // it came with the head
			}
			return err, true
		}
		if err := d.Write(p, false); err != nil {
			return err, true
		}
		if !u.Ready() {
			if !hold {
				if err := d.Flush(); err != nil {
					return err, true
				}
			}
			now := time.Now()
			u.SetReadDeadline(now.Add(x.at.read))
			d.SetWriteDeadline(now.Add(x.e.cfg.Timeouts.Write))
		} else if x.sent&(1<<20-1) < int64(len(p)) {
			d.SetWriteDeadline(time.Now().Add(x.e.cfg.Timeouts.Write))
		}
	}
}

// drain reads the end of a response without body.
func (x *exchange) drain(u stream.Upstream) (err error, client bool) {
	for {
		_, end, err := u.Next()
		if err != nil || end {
			return err, false
		}
	}
}

// cut ends an exchange whose response cannot be completed: the client must see
// that.
func (x *exchange) cut(u stream.Upstream, err error, client bool) balance.Result {
	x.broken = true
	x.d.Abort(err)
	x.pump.halt(x)
	fresh := u.Fresh()
	u.Abort(err)
	x.release()
	if client || x.pump.src != nil || x.watch.left() {
		x.gone = true
		return balance.Nothing
	}
	if fresh || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, stream.ErrClosed) || errors.Is(err, stream.ErrMalformed) {
		return balance.Failure
	}
	return balance.Nothing
}
