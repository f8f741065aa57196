package ingress

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fingerpost/fingerpost/view/gateway/route"
)

type metrics struct {
	ingresses, hosts prometheus.Gauge
	problems         prometheus.Gauge
	updates          prometheus.Counter
	seconds          prometheus.Histogram
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		ingresses: prometheus.NewGauge(prometheus.GaugeOpts{Name: "fingerpost_ingress_objects_count", Help: "Ingresses that are for this gateway."}),
		hosts:     prometheus.NewGauge(prometheus.GaugeOpts{Name: "fingerpost_ingress_hosts_count", Help: "Hosts that they make."}),
		problems:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "fingerpost_ingress_problem_objects_count", Help: "Ingresses with a problem that was told in an Event."}),
		updates:   prometheus.NewCounter(prometheus.CounterOpts{Name: "fingerpost_ingress_updates_total", Help: "Changes handed to the gateway."}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "fingerpost_ingress_translation_duration_seconds", Help: "What a burst of changes took to translate.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 8)}),
	}
	if r != nil {
		for _, c := range []prometheus.Collector{m.ingresses, m.hosts, m.problems, m.updates, m.seconds} {
			_ = r.Register(c) // of a source that ran before; the gauge of the old one stays
		}
	}
	return m
}

func (m *metrics) flushed(s *state, u *route.Update, took time.Duration) {
	m.ingresses.Set(float64(len(s.drafts)))
	m.hosts.Set(float64(len(s.hosts)))
	m.problems.Set(float64(len(s.problems)))
	if u != nil {
		m.updates.Inc()
		m.seconds.Observe(took.Seconds())
	}
}
