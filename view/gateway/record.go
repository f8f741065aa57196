package gateway

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fingerpost/fingerpost/view/gateway/observe"
	"github.com/fingerpost/fingerpost/view/gateway/route"
	"github.com/fingerpost/fingerpost/wire/http"
)

// record tells metrics and log about an exchange that is over.
func (x *exchange) record() {
	e := x.e
	r := &x.rec
	if x.last.IsZero() {
		x.last = x.now.Add(time.Since(x.now))
	}
	r.Begin, r.Took = x.now, x.last.Sub(x.now)
	r.Method, r.Status, r.Sent, r.Received = x.f.Method, x.status, x.sent, x.received
	if x.gone && x.status == 0 {
		r.Status = 499
	}
	r.Route, r.Canary = nil, nil
	if x.to != nil {
		r.Route = x.to.counters
		if c := x.f.Canary; c >= 0 && c < len(x.to.canaries) {
			r.Canary = x.to.canaries[c].counters
		}
	}
	r.Attempts, r.UpstreamStatus, r.UpstreamTook = x.attempts, x.upstream, x.waited
	if x.gone {
		e.metrics.Gone.Add(1)
	} else if x.broken {
		e.metrics.Broken.Add(1)
	}
	e.metrics.Record(r)
	if e.access == nil || x.to != nil && x.to.rule.Policy.DisableAccessLog {
		return
	}
	r.Remote, r.User, r.Path, r.Host, r.ID = x.f.Remote(), x.f.User, x.f.Path, x.f.Authority, x.f.ID
	r.Version, r.TLS = x.req.Version, x.f.Peer.TLS
	r.Referer, r.Agent = x.req.Fields.Get(http.Referer), x.req.Fields.Get(http.UserAgent)
	r.By = x.by
	r.UpstreamSent = 0
	if x.endpoint != nil {
		r.Upstream = x.endpoint.Addr()
		if x.upstream != 0 {
			r.UpstreamSent = x.sent
		}
	}
	e.access.Write(r)
}

// counters are those of a rule's backend.
func (e *Engine) counters(h *route.Host, o route.Origin, backends []route.Backend, canary bool) *observe.Route {
	l := observe.Labels{Namespace: o.Namespace, Ingress: o.Name, Canary: canary}
	if h != nil {
		l.Host = h.Name
	}
	if len(backends) > 0 {
		l.Service, l.Port = backends[0].Service.Name, backends[0].Port
	}
	return e.metrics.Route(l)
}

// scrape is the metrics, with what is counted only when somebody asks.
type scrape struct {
	*observe.Metrics
	e *Engine
}

// Collect is of prometheus.Collector.
func (s scrape) Collect(out chan<- prometheus.Metric) {
	idle := int64(0)
	all := s.e.conns.list()
	for _, c := range all {
		if _, ok := c.idle(); ok {
			idle++
		}
	}
	s.Active.Store(int64(len(all)))
	s.Waiting.Store(idle)
	s.Writing.Store(int64(len(all)) - idle)
	s.Accepted.Store(s.e.conns.total.Load() + s.e.conns.refused.Load())
	s.Refused.Store(s.e.conns.refused.Load())
	s.Metrics.Collect(out)
}
