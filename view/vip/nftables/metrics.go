package nftables

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fingerpost/fingerpost/view/vip"
)

// metrics may be nil for none, but for vip.
type metrics struct {
	vip      vip.Metrics
	seconds  prometheus.Histogram
	failures prometheus.Counter
	repairs  prometheus.Counter
	flows    prometheus.Counter
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{vip: vip.NewMetrics(r)}
	if r == nil {
		return m
	}
	counter := func(name, help string) prometheus.Counter {
		return vip.Registered(r, prometheus.NewCounter(prometheus.CounterOpts{Name: "fingerpost_nftables_" + name, Help: help}))
	}
	m.seconds = vip.Registered(r, prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "fingerpost_nftables_transaction_seconds", Help: "Time the kernel took for a transaction.",
		Buckets: prometheus.ExponentialBuckets(0.00001, 3, 12),
	}))
	m.failures = counter("transaction_failures_total", "Transactions that the kernel refused.")
	m.repairs = counter("comparisons_total", "Times that everything was compared with the kernel and put right.")
	m.flows = counter("udp_flows_cut_total", "UDP flows that led to an endpoint that had left.")
	return m
}

func (m *metrics) committed(d time.Duration) {
	if m.seconds != nil {
		m.seconds.Observe(d.Seconds())
	}
}

func (m *metrics) refused() {
	if m.failures != nil {
		m.failures.Inc()
	}
}

func (m *metrics) repaired() {
	if m.repairs != nil {
		m.repairs.Inc()
	}
}

func (m *metrics) cut(n int) {
	if m.flows != nil {
		m.flows.Add(float64(n))
	}
}
