package observe

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

type descriptions struct {
	requests, duration, upstream, requestSize, responseSize, retries       *prometheus.Desc
	connections, accepted, handshakes, errors, ejections, dropped, changed *prometheus.Desc

	aliasRequests, aliasDuration, aliasResponse, aliasRequestSize, aliasResponseSize, aliasConnections, aliasConnectionsTotal, aliasReload, aliasReloaded *prometheus.Desc
}

func newDescriptions() descriptions {
	d := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	of := []string{"namespace", "ingress", "host", "service", "canary"}
	with := append(append([]string{}, of...), "method", "status")
	const own, alias = "fingerpost_gateway_", "nginx_ingress_controller_"
	return descriptions{
		requests:     d(own+"requests_total", "Requests, by route, method and status.", with...),
		duration:     d(own+"request_duration_seconds", "From the head of a request to the end of its response.", of...),
		upstream:     d(own+"upstream_duration_seconds", "From the choice of an endpoint to the head of its response.", of...),
		requestSize:  d(own+"request_size_bytes", "Bodies of requests.", of...),
		responseSize: d(own+"response_size_bytes", "Bodies of responses.", of...),
		retries:      d(own+"retries_total", "Requests sent to another endpoint after a failure.", of...),
		connections:  d(own+"connections", "Connections of clients now.", "state"),
		accepted:     d(own+"connections_total", "Connections of clients.", "state"),
		handshakes:   d(own+"tls_handshakes_total", "Handshakes of TLS with clients.", "result"),
		errors:       d(own+"errors_total", "Exchanges that went wrong: malformed (no HTTP), broken (response cut off), gone (the client left).", "kind"),
		ejections:    d(own+"ejections_total", "Endpoints that got no requests for a while because they failed."),
		dropped:      d(own+"access_log_lines_dropped_total", "Lines of the access log lost because its writer was too slow."),
		changed:      d(own+"routes_changed_timestamp_seconds", "When the routes changed last."),

		aliasRequests:         d(alias+"requests", "The total number of client requests", with...),
		aliasDuration:         d(alias+"request_duration_seconds", "The request processing time in seconds", of...),
		aliasResponse:         d(alias+"header_duration_seconds", "The time spent on receiving first header from the upstream server", of...),
		aliasRequestSize:      d(alias+"request_size", "The request length (including request line, header, and request body)", of...),
		aliasResponseSize:     d(alias+"response_size", "The response length (including request line, header, and request body)", of...),
		aliasConnections:      d(alias+"nginx_process_connections", "current number of client connections with state {active, reading, writing, waiting}", "state"),
		aliasConnectionsTotal: d(alias+"nginx_process_connections_total", "total number of connections with state {accepted, handled}", "state"),
		aliasReload:           d(alias+"config_last_reload_successful", "Whether the last configuration reload attempt was successful"),
		aliasReloaded:         d(alias+"config_last_reload_successful_timestamp_seconds", "Timestamp of the last successful configuration reload."),
	}
}

// Describe is of prometheus.Collector: one description says that the metrics
// are known.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- m.desc.connections
}

// Collect is of prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	d := &m.desc
	m.mu.Lock()
	m.sweep()
	list := []*Route{m.other}
	for _, w := range m.routes {
		if r := w.Value(); r != nil {
			list = append(list, r)
		}
	}
	log := m.log
	m.mu.Unlock()
	for _, r := range list {
		m.collect(ch, r)
	}

	active, waiting, writing := m.Active.Load(), m.Waiting.Load(), m.Writing.Load()
	for _, s := range []struct {
		state string
		n     int64
	}{{"active", active}, {"waiting", waiting}, {"writing", writing}, {"reading", max(active-waiting-writing, 0)}} {
		ch <- prometheus.MustNewConstMetric(d.connections, prometheus.GaugeValue, float64(s.n), s.state)
		if !m.cfg.NoAliases {
			ch <- prometheus.MustNewConstMetric(d.aliasConnections, prometheus.GaugeValue, float64(s.n), s.state)
		}
	}
	count := func(desc *prometheus.Desc, n uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(n), labels...)
	}
	accepted, refused := m.Accepted.Load(), m.Refused.Load()
	count(d.accepted, accepted, "accepted")
	count(d.accepted, refused, "refused")
	if !m.cfg.NoAliases {
		count(d.aliasConnectionsTotal, accepted, "accepted")
		count(d.aliasConnectionsTotal, accepted-min(refused, accepted), "handled")
	}
	count(d.handshakes, m.Handshakes.Load(), "ok")
	count(d.handshakes, m.HandshakesFailed.Load(), "failed")
	count(d.errors, m.Malformed.Load(), "malformed")
	count(d.errors, m.Broken.Load(), "broken")
	count(d.errors, m.Gone.Load(), "gone")
	count(d.ejections, m.Ejections.Load())
	if at := m.Changed.Load(); at != 0 {
		ch <- prometheus.MustNewConstMetric(d.changed, prometheus.GaugeValue, float64(at))
		if !m.cfg.NoAliases { // nothing is loaded anew, so nothing can fail
			ch <- prometheus.MustNewConstMetric(d.aliasReload, prometheus.GaugeValue, 1)
			ch <- prometheus.MustNewConstMetric(d.aliasReloaded, prometheus.GaugeValue, float64(at))
		}
	}
	if log != nil {
		count(d.dropped, log.Dropped())
	}
}

func (m *Metrics) collect(ch chan<- prometheus.Metric, r *Route) {
	d := &m.desc
	canary := ""
	if r.labels.Canary {
		canary = r.labels.Service
	}
	of := []string{r.labels.Namespace, r.labels.Ingress, r.labels.Host, r.labels.Service, canary}
	for i := range r.methods {
		b := r.methods[i].Load()
		if b == nil {
			continue
		}
		for class := range b {
			c := b[class].Load()
			if c == nil {
				continue
			}
			for s := range c {
				n := c[s].Load()
				if n == 0 {
					continue
				}
				labels := append(of[:len(of):len(of)], methodNames[i], strconv.Itoa((class+1)*100+s))
				ch <- prometheus.MustNewConstMetric(d.requests, prometheus.CounterValue, float64(n), labels...)
				if !m.cfg.NoAliases {
					ch <- prometheus.MustNewConstMetric(d.aliasRequests, prometheus.CounterValue, float64(n), labels...)
				}
			}
		}
	}
	for _, h := range []struct {
		own, alias *prometheus.Desc
		h          *histogram
		scale      *scale
	}{
		{d.duration, d.aliasDuration, &r.duration, &durations},
		{d.upstream, d.aliasResponse, &r.upstreamDuration, &durations},
		{d.requestSize, d.aliasRequestSize, &r.requestSize, &sizes},
		{d.responseSize, d.aliasResponseSize, &r.responseSize, &sizes},
	} {
		n, sum, upTo := h.h.read(h.scale)
		if n == 0 {
			continue // a route that nobody used
		}
		ch <- prometheus.MustNewConstHistogram(h.own, n, sum, upTo, of...)
		if !m.cfg.NoAliases {
			ch <- prometheus.MustNewConstHistogram(h.alias, n, sum, upTo, of...)
		}
	}
	if n := r.retries.Load(); n > 0 {
		ch <- prometheus.MustNewConstMetric(d.retries, prometheus.CounterValue, float64(n), of...)
	}
}

// read adds the buckets up, as Prometheus wants them.
func (h *histogram) read(s *scale) (n uint64, sum float64, upTo map[float64]uint64) {
	upTo = make(map[float64]uint64, buckets)
	for i := range s.bounds {
		n += h.counts[i].Load()
		upTo[float64(s.bounds[i])/s.unit] = n
	}
	n += h.counts[buckets].Load()
	return n, float64(h.sum.Load()) / s.unit, upTo
}
