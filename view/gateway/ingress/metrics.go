package ingress

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fingerpost/fingerpost/view/gateway/ingress/disk"
	"github.com/fingerpost/fingerpost/view/gateway/route"
)

type metrics struct {
	ingresses, hosts prometheus.Gauge
	problems         prometheus.Gauge
	updates          prometheus.Counter
	seconds          prometheus.Histogram

	written  prometheus.Histogram
	failures prometheus.Counter
	bytes    prometheus.Gauge
}

func newMetrics(r prometheus.Registerer, stale, now func() time.Time) *metrics {
	m := &metrics{
		ingresses: prometheus.NewGauge(prometheus.GaugeOpts{Name: "fingerpost_ingress_objects_count", Help: "Ingresses that are for this gateway."}),
		hosts:     prometheus.NewGauge(prometheus.GaugeOpts{Name: "fingerpost_ingress_hosts_count", Help: "Hosts that they make."}),
		problems:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "fingerpost_ingress_problem_objects_count", Help: "Ingresses with a problem that was told in an Event."}),
		updates:   prometheus.NewCounter(prometheus.CounterOpts{Name: "fingerpost_ingress_updates_total", Help: "Changes handed to the gateway."}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "fingerpost_ingress_translation_duration_seconds", Help: "What a burst of changes took to translate.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 8)}),
		written: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "fingerpost_ingress_disk_write_seconds", Help: "Time to write what the routes are made of to disk.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 8)}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{Name: "fingerpost_ingress_disk_failures_total", Help: "Times that it could not be written."}),
		bytes:    prometheus.NewGauge(prometheus.GaugeOpts{Name: "fingerpost_ingress_disk_bytes", Help: "Its size on disk."}),
	}
	old := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "fingerpost_ingress_stale_seconds", Help: "How old the routes are because the API server does not answer; 0 while it does."}, func() float64 {
		if since := stale(); !since.IsZero() {
			return max(now().Sub(since).Seconds(), 0)
		}
		return 0
	})
	if r != nil {
		for _, c := range []prometheus.Collector{m.ingresses, m.hosts, m.problems, m.updates, m.seconds, m.written, m.failures, m.bytes, old} {
			_ = r.Register(c) // of a source that ran before; the gauge of the old one stays
		}
	}
	return m
}

func (m *metrics) wrote(w disk.Write) {
	if w.Err != nil {
		m.failures.Inc()
		return
	}
	m.written.Observe(w.Took.Seconds())
	m.bytes.Set(float64(w.Bytes))
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
