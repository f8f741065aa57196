package cluster

import (
	"net/netip"

	"github.com/prometheus/client_golang/prometheus"
)

// Register makes the Set's metrics known; a nil registerer means none. They are
// by service and port, not by endpoint: those come and go.
func (s *Set) Register(r prometheus.Registerer) error {
	if r == nil {
		return nil
	}
	return r.Register(newCollector(s))
}

// collector reads the metrics when somebody asks, so that requests do not pay
// for them.
type collector struct {
	set                                             *Set
	endpoints, active, connections                  *prometheus.Desc
	opened, refused, ejections, retries, retryLimit *prometheus.Desc
}

func newCollector(s *Set) *collector {
	desc := func(name, help string, more ...string) *prometheus.Desc {
		return prometheus.NewDesc("fingerpost_cluster_"+name, help, append([]string{"service", "port"}, more...), nil)
	}
	return &collector{
		set:         s,
		endpoints:   desc("endpoints", "Endpoints that requests may go to (state ready), or that get none for a while because they failed (ejected).", "state"),
		active:      desc("active_requests", "Requests that endpoints have now."),
		connections: desc("connections", "Open connections to endpoints, and those of them that wait for a request.", "state"),
		opened:      desc("connections_opened_total", "Connections that were opened to endpoints."),
		refused:     desc("connections_failed_total", "Connections to endpoints that could not be opened."),
		ejections:   desc("ejections_total", "Endpoints taken out for a while because they failed."),
		retries:     desc("retries_total", "Requests that were sent to another endpoint."),
		retryLimit:  desc("retries_denied_total", "Requests that were not, because there were too many already."),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.endpoints, c.active, c.connections, c.opened, c.refused, c.ejections, c.retries, c.retryLimit} {
		out <- d
	}
}

// sums is of the clusters of one port: there are several if routes treat it
// differently.
type sums struct {
	endpoints                                   map[netip.AddrPort]bool // ejected?
	active, idle, open                          int
	opened, refused, ejections, retries, denied uint64
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	type port struct{ service, port string }
	all := map[port]*sums{}
	for _, cl := range c.set.All() {
		p := port{cl.key.Service.String(), cl.key.Port}
		if cl.key.External != "" {
			p.port = cl.key.External
		}
		s := all[p]
		if s == nil {
			s = &sums{endpoints: map[netip.AddrPort]bool{}}
			all[p] = s
		}
		for _, e := range cl.Endpoints() {
			st := e.Stats()
			s.endpoints[e.addr] = s.endpoints[e.addr] || st.Ejected > 0
			s.active += st.Active
			s.idle += st.Idle
			s.open += st.Open
		}
		s.opened += cl.opened.Load()
		s.refused += cl.refused.Load()
		s.ejections += cl.ejections.Load()
		s.retries += cl.retries.Load()
		s.denied += cl.denied.Load()
	}
	for p, s := range all {
		gauge := func(d *prometheus.Desc, v int, more ...string) {
			out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), append([]string{p.service, p.port}, more...)...)
		}
		count := func(d *prometheus.Desc, v uint64) {
			out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), p.service, p.port)
		}
		ejected := 0
		for _, out := range s.endpoints {
			if out {
				ejected++
			}
		}
		gauge(c.endpoints, len(s.endpoints)-ejected, "ready")
		gauge(c.endpoints, ejected, "ejected")
		gauge(c.active, s.active)
		gauge(c.connections, s.open, "open")
		gauge(c.connections, s.idle, "idle")
		count(c.opened, s.opened)
		count(c.refused, s.refused)
		count(c.ejections, s.ejections)
		count(c.retries, s.retries)
		count(c.retryLimit, s.denied)
	}
}
