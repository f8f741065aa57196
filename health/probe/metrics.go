package probe

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	results *prometheus.CounterVec
	seconds *prometheus.HistogramVec
	targets prometheus.GaugeFunc
}

func newMetrics(targets func() int) metrics {
	return metrics{
		results: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fingerpost_probe_results_total",
			Help: "Probes done, by type and by result: passed or failed.",
		}, []string{"type", "result"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "fingerpost_probe_duration_seconds",
			Help:    "How long a probe took, by type.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"type"}),
		targets: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "fingerpost_probe_targets_count",
			Help: "Targets that are probed.",
		}, func() float64 { return float64(targets()) }),
	}
}

func (m metrics) register(r prometheus.Registerer) error {
	if r == nil {
		return nil
	}
	for _, c := range []prometheus.Collector{m.results, m.seconds, m.targets} {
		if err := r.Register(c); err != nil {
			return err
		}
	}
	return nil
}

func (m metrics) observe(typ string, ok bool, took time.Duration) {
	result := "failed"
	if ok {
		result = "passed"
	}
	m.results.WithLabelValues(typ, result).Inc()
	m.seconds.WithLabelValues(typ).Observe(took.Seconds())
}
