package ipvs

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/fingerpost/fingerpost/view/vip"
)

// metrics count always; they are exported only with a registerer.
type metrics struct {
	vip     vip.Metrics
	repairs prometheus.Counter
	flows   prometheus.Counter
}

func newMetrics(r prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		if r == nil {
			return c
		}
		return vip.Registered(r, c)
	}
	return &metrics{
		vip:     vip.NewMetrics(r),
		repairs: counter("fingerpost_ipvs_repairs_total", "Times that everything was written anew: after a refusal, or because somebody else had changed it."),
		flows:   counter("fingerpost_ipvs_udp_flows_cut_total", "UDP flows that led to an endpoint that had left."),
	}
}
