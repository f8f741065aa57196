package endpointslice

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	writes   *prometheus.CounterVec
	errors   prometheus.Counter
	latency  prometheus.Histogram
	services prometheus.GaugeFunc
}

func newMetrics(r prometheus.Registerer, services func() float64) (*metrics, error) {
	m := &metrics{
		writes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fingerpost_endpointslice_writes_total",
			Help: "EndpointSlices written, by operation (create, update, delete).",
		}, []string{"operation"}),
		errors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "fingerpost_endpointslice_errors_total",
			Help: "Writes of EndpointSlices that failed and are tried again; conflicts included.",
		}),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "fingerpost_endpointslice_change_to_write_seconds",
			Help:    "Time from learning of a change to the start of the write of its slices.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, 1},
		}),
		services: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "fingerpost_endpointslice_services_count",
			Help: "Services that the controller keeps slices for, or has looked at.",
		}, services),
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.writes, m.errors, m.latency, m.services} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
