package agent

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	pods     prometheus.GaugeFunc
	starts   *prometheus.CounterVec
	writes   *prometheus.CounterVec
	panics   prometheus.Counter
	podStart prometheus.Histogram
}

func newMetrics(pods func() int) metrics {
	return metrics{
		pods: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "fingerpost_agent_pods_count", Help: "Pods on this node.",
		}, func() float64 { return float64(pods()) }),
		starts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fingerpost_agent_container_starts_total", Help: "Attempts to start a container, by result: ok or failed.",
		}, []string{"result"}),
		writes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fingerpost_agent_status_writes_total", Help: "Writes of pod statuses, by result: ok or failed.",
		}, []string{"result"}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "fingerpost_agent_panics_total", Help: "Panics that one pod's worker was kept from spreading.",
		}),
		podStart: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "fingerpost_agent_pod_start_duration_seconds", Help: "From the first sight of a pod until it was ready for the first time.",
			Buckets: []float64{.01, .025, .05, .1, .15, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}),
	}
}

func (m metrics) register(r prometheus.Registerer) error {
	if r == nil {
		return nil
	}
	for _, c := range []prometheus.Collector{m.pods, m.starts, m.writes, m.panics, m.podStart} {
		if err := r.Register(c); err != nil {
			return err
		}
	}
	return nil
}
