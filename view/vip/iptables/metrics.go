package iptables

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fingerpost/fingerpost/view/vip"
)

// metrics count always; they are exported only with a registerer.
type metrics struct {
	vip      vip.Metrics
	seconds  prometheus.Histogram
	failures prometheus.Counter
	repairs  prometheus.Counter
	flows    prometheus.Counter
	like     prometheus.Histogram // kube-proxy's names
	failed   prometheus.Counter
}

func newMetrics(r prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	histogram := func(name, help string) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: prometheus.ExponentialBuckets(0.001, 2, 15)})
	}
	m := &metrics{
		vip:      vip.NewMetrics(r),
		seconds:  histogram("fingerpost_iptables_restore_seconds", "Time to make the kernel follow a batch of changes."),
		failures: counter("fingerpost_iptables_restore_failures_total", "Batches that iptables-restore did not take."),
		repairs:  counter("fingerpost_iptables_repairs_total", "Times that somebody else had changed our rules."),
		flows:    counter("fingerpost_iptables_udp_flows_cut_total", "UDP flows that led to an endpoint that had left."),
		like:     histogram("kubeproxy_sync_proxy_rules_duration_seconds", "The same as fingerpost_iptables_restore_seconds, with kube-proxy's name and buckets."),
		failed:   counter("kubeproxy_sync_proxy_rules_iptables_restore_failures_total", "The same as fingerpost_iptables_restore_failures_total, with kube-proxy's name."),
	}
	if r != nil {
		m.seconds, m.like = vip.Registered(r, m.seconds), vip.Registered(r, m.like)
		m.failures, m.failed = vip.Registered(r, m.failures), vip.Registered(r, m.failed)
		m.repairs, m.flows = vip.Registered(r, m.repairs), vip.Registered(r, m.flows)
	}
	return m
}

func (m *metrics) restored(took time.Duration, err error) {
	m.seconds.Observe(took.Seconds())
	m.like.Observe(took.Seconds())
	if err != nil {
		m.failures.Inc()
		m.failed.Inc()
	}
}

func (m *metrics) drifted() { m.repairs.Inc() }

func (m *metrics) cut(n int) { m.flows.Add(float64(n)) }
