package vip

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are those that every driver has. The zero value counts nothing.
type Metrics struct {
	latency   prometheus.Histogram
	kubeProxy prometheus.Histogram
	frontends prometheus.Gauge
}

// NewMetrics registers them; a nil registerer means no metrics. Two drivers of
// one process share them.
func NewMetrics(r prometheus.Registerer) Metrics {
	if r == nil {
		return Metrics{}
	}
	// Buckets from 0.25 ms, because a change takes that; kube-proxy's begin
	// at 250 ms. Its dashboards keep working with its name beside.
	return Metrics{
		latency: Registered(r, prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "fingerpost_vip_programming_latency_seconds",
			Help:    "Time from a change in the catalog until the virtual IPs follow it.",
			Buckets: prometheus.ExponentialBuckets(0.00025, 2, 18),
		})),
		kubeProxy: Registered(r, prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "kubeproxy_network_programming_duration_seconds",
			Help: "The same, with the name and buckets that kube-proxy has.",
			Buckets: join(
				prometheus.LinearBuckets(0.25, 0.25, 2),
				prometheus.LinearBuckets(1, 1, 59),
				prometheus.LinearBuckets(60, 5, 12),
				prometheus.LinearBuckets(120, 30, 7),
			),
		})),
		frontends: Registered(r, prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "fingerpost_vip_frontends",
			Help: "Addresses and ports that the services of this node's proxy have.",
		})),
	}
}

// Programmed notes that a batch has been put into effect. oldest is zero for a
// batch that is not the result of a change.
func (m Metrics) Programmed(oldest, now time.Time, frontends int) {
	if m.latency == nil {
		return
	}
	m.frontends.Set(float64(frontends))
	if !oldest.IsZero() {
		d := max(0, now.Sub(oldest).Seconds())
		m.latency.Observe(d)
		m.kubeProxy.Observe(d)
	}
}

// Registered registers a collector, or gives the one of the same name that is
// there already.
func Registered[C prometheus.Collector](r prometheus.Registerer, c C) C {
	var already prometheus.AlreadyRegisteredError
	if err := r.Register(c); errors.As(err, &already) {
		if old, ok := already.ExistingCollector.(C); ok {
			return old
		}
	}
	return c
}

func join(parts ...[]float64) (all []float64) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}
