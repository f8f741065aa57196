package instance

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	transitions *prometheus.CounterVec
	writes      *prometheus.CounterVec
}

func newMetrics() metrics {
	return metrics{
		transitions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fingerpost_instance_lease_transitions_total",
			Help: "Claims whose heartbeats stopped (expired), that are held by the mass-expiry guard (held), or that came back (revived).",
		}, []string{"kind"}),
		writes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fingerpost_instance_writes_total",
			Help: "Writes by the instance controller: status, delete, service.",
		}, []string{"what"}),
	}
}

func (m metrics) register(r prometheus.Registerer) error {
	if r == nil {
		return nil
	}
	for _, c := range []prometheus.Collector{m.transitions, m.writes} {
		if err := r.Register(c); err != nil {
			return err
		}
	}
	return nil
}
