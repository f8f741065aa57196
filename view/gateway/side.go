package gateway

import (
	"context"
	"errors"
	"net"
	"strings"
	"time"

	"github.com/fingerpost/fingerpost/balance"
	"github.com/fingerpost/fingerpost/view/gateway/cluster"
	"github.com/fingerpost/fingerpost/view/gateway/filter"
	"github.com/fingerpost/fingerpost/view/gateway/route"
	"github.com/fingerpost/fingerpost/view/gateway/stream"
	"github.com/fingerpost/fingerpost/wire/http"
)

// Requests of the gateway's own beside the client's: to authentication servers
// and to the backend of error pages.

// ask sends a request without body and gives the endpoint with the response's head
// in r. The caller releases the exchange and ends the pick.
func (x *exchange) ask(c *cluster.Cluster, req *http.Request, r *http.Response) (*cluster.Endpoint, stream.Upstream, error) {
	t := &x.e.cfg.Timeouts
	q := cluster.Query{}
	var last error
	// What was refused or had been closed is no try.
	for losses, refusals, stales := 0, 0, 0; losses < 3; {
		ep, problem := c.Pick(&q)
		if ep == nil {
			if last == nil {
				last = errors.New("gateway: " + string(problem))
			}
			return nil, nil, last
		}
		u, err := ep.Connect(context.Background(), t.Connect)
		if err != nil {
			ep.Done(cluster.Outcome{Result: balance.Failure})
			q.Tried = append(q.Tried, ep)
			if last = err; isTimeout(err) {
				losses++
			}
			if refusals++; refusals > maxConnects {
				break
			}
			continue
		}
		now := time.Now()
		u.SetWriteDeadline(now.Add(t.Send))
		u.SetReadDeadline(now.Add(t.Read))
		if err = u.Send(req, true); err == nil {
			err = u.Flush()
		}
		for err == nil {
			if err = u.Receive(r); err == nil && r.Status >= 200 {
				return ep, u, nil
			}
		}
		fresh := u.Fresh()
		u.Abort(err)
		u.Release()
		last = err
		if stales++; !fresh && stales <= maxStale {
			ep.Done(cluster.Outcome{Result: balance.Nothing})
			continue
		}
		losses++
		ep.Done(cluster.Outcome{Result: balance.Failure})
		q.Tried = append(q.Tried, ep)
	}
	return nil, nil, last
}

// fromErrors lets the rule's backend of error pages answer; false: it cannot.
func (x *exchange) fromErrors(status int) bool {
	var req http.Request
	x.to.chain.ErrorRequest(&x.f, status, &req)
	ep, u, err := x.ask(x.to.errors, &req, &x.resp)
	if err != nil {
		x.e.cfg.Log.Debug("no error page from the backend for it", "err", err)
		return false
	}
	r := &x.resp
	x.status = r.Status
	x.to.chain.Response(&x.f, r)
	r.Close, r.Version = false, http.HTTP11
	bare := r.Length == 0 || r.Status == 204 || r.Status == 304 || string(x.req.Method) == "HEAD"
	x.d.SetWriteDeadline(time.Now().Add(x.e.cfg.Timeouts.Write))
	client := true
	if err = x.d.Respond(r, bare); err == nil && !bare {
		err, client = x.relay(u)
	}
	if err == nil {
		u.Release()
		err, client = x.d.Flush(), true
	} else {
		u.Abort(err)
		u.Release()
	}
	ep.Done(cluster.Outcome{Result: balance.Success, Status: r.Status})
	if err != nil {
		x.gone, x.broken = client, true
		x.d.Abort(err)
	}
	return true
}

// fetch asks an authentication server. Its answer's fields are copied: they are
// valid until the exchange is over.
func (x *exchange) fetch(c *filter.Call) error {
	p := &route.Policy{}
	if c.TLS {
		p.Protocol = route.HTTPS
	}
	b := c.Backend
	if b == nil {
		host := string(c.Host)
		if _, _, err := net.SplitHostPort(host); err != nil {
			port := "80"
			if c.TLS {
				port = "443"
			}
			host = net.JoinHostPort(strings.Trim(host, "[]"), port)
		}
		b = &route.Backend{External: host}
	}
	k, err := cluster.KeyOf(b, p)
	if err != nil {
		return err
	}
	var r http.Response
	to := x.e.aside(k)
	if to == nil {
		return errAsides
	}
	ep, u, err := x.ask(to, &c.Request, &r)
	if err != nil {
		return err
	}
	c.Status = r.Status
	c.Fields = c.Fields[:0]
	for _, f := range r.Fields {
		n := len(f.Name)
		b := append(append(make([]byte, 0, n+len(f.Value)), f.Name...), f.Value...)
		c.Fields = append(c.Fields, http.Field{ID: f.ID, Name: b[:n:n], Value: b[n:]})
	}
	// A small body is read so that the connection can be used again.
	for n := 0; n < 64<<10; {
		p, end, err := u.Next()
		if n += len(p); err != nil || end {
			break
		}
	}
	u.Release()
	ep.Done(cluster.Outcome{Result: balance.Success, Status: r.Status})
	return nil
}

// maxAsides bounds the authentication servers asked within a few minutes: a
// client may have a say in their names.
const maxAsides = 1024

var errAsides = errors.New("gateway: too many different authentication servers")

// aside gives the cluster of a request of our own, which no route holds on to;
// nil: there are too many.
func (e *Engine) aside(k cluster.Key) *cluster.Cluster {
	e.asideMu.Lock()
	defer e.asideMu.Unlock()
	if _, known := e.asides[k]; !known && len(e.asides) >= maxAsides {
		return nil
	}
	e.asides[k] = e.cfg.Now()
	return e.clusters.Get(k)
}
