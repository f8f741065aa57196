package ebpf

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/fingerpost/fingerpost/view/vip"
)

// metrics counts always; they are exported only with a registerer.
type metrics struct {
	vip       vip.Metrics
	failures  prometheus.Counter
	repairs   prometheus.Counter
	destroyed prometheus.Counter
}

func newMetrics(r prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		if r != nil {
			c = vip.Registered(r, c)
		}
		return c
	}
	return &metrics{
		vip:       vip.NewMetrics(r),
		failures:  counter("fingerpost_vip_ebpf_write_failures_total", "Entries that the kernel's maps did not take."),
		repairs:   counter("fingerpost_vip_ebpf_repairs_total", "Comparisons with the kernel's maps that found a difference."),
		destroyed: counter("fingerpost_vip_ebpf_sockets_destroyed_total", "Connected UDP sockets that were closed because their endpoint went away."),
	}
}
