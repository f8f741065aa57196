package userspace

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/fingerpost/fingerpost/view/vip"
)

// metrics counts always; they are exported only with a registerer.
type metrics struct {
	vip          vip.Metrics
	connections  prometheus.Counter
	active       prometheus.Gauge
	flowsTotal   prometheus.Counter
	flows        prometheus.Gauge
	dialFailures prometheus.Counter
	refused      *prometheus.CounterVec
	bytes        *prometheus.CounterVec
	listeners    prometheus.Gauge
	failed       prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	m := &metrics{
		vip:          vip.NewMetrics(r),
		connections:  counter("fingerpost_vip_connections_total", "TCP connections handed to an endpoint."),
		active:       gauge("fingerpost_vip_connections_active", "TCP connections open now."),
		flowsTotal:   counter("fingerpost_vip_udp_flows_total", "UDP flows handed to an endpoint."),
		flows:        gauge("fingerpost_vip_udp_flows_active", "UDP flows remembered now."),
		dialFailures: counter("fingerpost_vip_dial_failures_total", "Endpoints that did not take a connection or datagram."),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fingerpost_vip_refused_total", Help: "Clients that were turned away, by reason.",
		}, []string{"reason"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fingerpost_vip_bytes_total", Help: "Bytes of ended TCP connections, by direction seen from the client.",
		}, []string{"direction"}),
		listeners: gauge("fingerpost_vip_listeners", "Sockets that hold a service's address."),
		failed:    gauge("fingerpost_vip_listeners_failed", "Addresses that could not be had and are tried again."),
	}
	if r != nil {
		m.connections = vip.Registered(r, m.connections)
		m.active = vip.Registered(r, m.active)
		m.flowsTotal = vip.Registered(r, m.flowsTotal)
		m.flows = vip.Registered(r, m.flows)
		m.dialFailures = vip.Registered(r, m.dialFailures)
		m.refused = vip.Registered(r, m.refused)
		m.bytes = vip.Registered(r, m.bytes)
		m.listeners = vip.Registered(r, m.listeners)
		m.failed = vip.Registered(r, m.failed)
	}
	return m
}

// Reasons of fingerpost_vip_refused_total.
const (
	refusedNoEndpoint  = "no_endpoint" // none, or none that answers
	refusedSource      = "source_range"
	refusedLimit       = "limit"
	refusedNotAdmitted = "not_admitted" // Config.Admit
)
