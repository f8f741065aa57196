package dns

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	w := newWorld(t, Config{Addrs: []string{"127.0.0.1:0"}, Registerer: reg})
	w.must(t, "service a/web clusterip=10.96.0.1", "service a/gone clusterip=10.96.0.2", "delete a/gone")
	stop := run(t, w.server)
	c := dialClients(t, w.server)
	for _, q := range []string{"web.a.svc.cluster.local. A", "nope.a.svc.cluster.local. AAAA", "example.com. TYPE999"} {
		if _, err := c.ask(t, strings.Fields(q)); err != nil {
			t.Fatal(err)
		}
	}
	stop() // a question is counted after its answer is sent
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			key := f.GetName()
			for _, l := range m.Label {
				if l.GetName() != "server" {
					key += " " + l.GetValue()
				}
			}
			got[key] += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	for key, want := range map[string]float64{
		"coredns_dns_requests_total 1 udp A cluster.local.":    3,
		"coredns_dns_requests_total 1 tcp AAAA cluster.local.": 3,
		"coredns_dns_requests_total 1 tcp other .":             3,
		"coredns_dns_responses_total NXDOMAIN cluster.local.":  6,
		"coredns_dns_responses_total REFUSED .":                6,
		"coredns_dns_request_duration_seconds cluster.local.":  12,
		"fingerpost_dns_services":                              1,
		"coredns_panics_total":                                 0,
		"fingerpost_dns_programming_latency_seconds":           3,
	} {
		if got[key] != want {
			t.Errorf("%s = %v, want %v", key, got[key], want)
		}
	}
	if t.Failed() {
		t.Log(got)
	}
}

func TestBuckets(t *testing.T) {
	for i := range buckets {
		bound := time.Duration(bucket0 * float64(uint64(1)<<i) * 1e9)
		if got := bucket(bound); got != i {
			t.Errorf("bucket(%v) = %d, want %d", bound, got, i)
		}
		if got := bucket(bound + 2); got != i+1 {
			t.Errorf("bucket(%v) = %d, want %d", bound+2, got, i+1)
		}
	}
	if bucket(time.Hour) != buckets || bucket(-1) != 0 {
		t.Error("the ends")
	}
}
