package server

import (
	"net/netip"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// VIPInfo is the name of the metric with what 'fingerpost vip' must know of
// this node's proxy.
const VIPInfo = "fingerpost_vip_info"

// tellProxy says on /metrics how virtual IPs are served.
func (c *Config) tellProxy(mode *proxyMode) error {
	addrs := c.NodeAddrs
	if mode.kernel {
		addrs = c.nodePortAddresses()
	}
	g := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: VIPInfo, Help: "How virtual IPs are served: always 1.",
		ConstLabels: prometheus.Labels{
			"mode": mode.name, "node": c.NodeName, "zone": c.NodeZone, "node_addresses": list(addrs),
			"pod_cidrs": list(c.Pods.CIDRs), "service_cidrs": list(c.ServiceCIDRs),
		},
	})
	g.Set(1)
	return c.Registry.Register(g)
}

func list[T netip.Addr | netip.Prefix](all []T) string {
	words := make([]string, len(all))
	for i, a := range all {
		words[i] = any(a).(interface{ String() string }).String()
	}
	return strings.Join(words, ",")
}
