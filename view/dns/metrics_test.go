package dns

import (
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fingerpost/fingerpost/catalog"
)

func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	w := newWorld(t, Config{Addrs: []string{"127.0.0.1:0"}, Registerer: reg})
	w.must(t, "service a/web clusterip=10.96.0.1", "service a/gone clusterip=10.96.0.2", "delete a/gone")
	stop := run(t, w.server)
	c := dialClients(t, w.server)
	w.must(t, "service a/head headless")
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
				if n := l.GetName(); n != "server" && n != "goversion" && n != "version" && n != "revision" {
					key += " " + l.GetValue()
				}
			}
			got[key] += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	for key, want := range map[string]float64{
		"coredns_dns_requests_total 1 udp A cluster.local.":                          3,
		"coredns_dns_requests_total 1 tcp AAAA cluster.local.":                       3,
		"coredns_dns_requests_total 1 tcp other .":                                   3,
		"coredns_dns_responses_total NXDOMAIN cluster.local.":                        6,
		"coredns_dns_responses_total REFUSED .":                                      6,
		"coredns_dns_request_duration_seconds cluster.local.":                        12,
		"coredns_dns_request_size_bytes tcp cluster.local.":                          6,
		"coredns_dns_response_size_bytes udp .":                                      3,
		"coredns_build_info":                                                         1,
		"coredns_kubernetes_dns_programming_duration_seconds headless_with_selector": 1,
		"coredns_kubernetes_dns_programming_duration_seconds cluster_ip":             2,
		"fingerpost_dns_query_log_dropped_total":                                     0,
		"fingerpost_dns_services":                                                    2,
		"coredns_panics_total":                                                       0,
		"fingerpost_dns_programming_latency_seconds":                                 4,
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

func TestSizes(t *testing.T) {
	bounds := sizeBounds()
	for i, b := range bounds {
		for n, want := range map[int]int{b: i, b + 1: i + 1} {
			var h sizeHistogram
			if h.observe(n); h.n[want].Load() != 1 {
				t.Errorf("%d bytes are not in place %d", n, want)
			}
		}
	}
}

// TestBegan: a change is as old as the state that an endpoint got into.
func TestBegan(t *testing.T) {
	now := time.Unix(1e9, 0)
	entry := func(ago ...time.Duration) *catalog.Entry {
		e := &catalog.Entry{Changed: now}
		for _, a := range ago {
			e.Endpoints = append(e.Endpoints, catalog.Endpoint{Health: catalog.Health{Since: now.Add(-a)}})
		}
		return e
	}
	for _, c := range []struct {
		name string
		old  *catalog.Entry
		new  *catalog.Entry
		want time.Duration
	}{
		{"an endpoint that came", entry(time.Hour), entry(time.Hour, 3*time.Second), 3 * time.Second},
		{"a new service", nil, entry(2 * time.Second), 2 * time.Second},
		{"endpoints as before", entry(3 * time.Second), entry(3 * time.Second), 0},
		{"an endpoint that left", entry(3*time.Second, time.Hour), entry(time.Hour), 0},
		{"long ago", entry(), entry(time.Hour), 0},
		{"nobody knows", entry(), &catalog.Entry{Changed: now, Endpoints: make([]catalog.Endpoint, 2)}, 0},
	} {
		if got := now.Sub(began(&catalog.Change{Old: c.old, New: c.new})); got != c.want {
			t.Errorf("%s: %v ago, want %v", c.name, got, c.want)
		}
	}
}

// TestBundle: whatever shares a place, every counter gets its own.
func TestBundle(t *testing.T) {
	var counters [3 * bundleSlots]atomic.Uint64
	var want [len(counters)]uint64
	var b bundle
	r := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		for range r.IntN(64) {
			i, n := r.IntN(len(counters)), uint64(r.IntN(100))
			want[i] += n
			b.add(&counters[i], n)
		}
		b.flush()
	}
	for i := range counters {
		if got := counters[i].Load(); got != want[i] {
			t.Errorf("counter %d: %d, want %d", i, got, want[i])
		}
	}
}

// BenchmarkCount is what a question pays for being counted.
func BenchmarkCount(b *testing.B) {
	w := newWorld(b, Config{})
	st := w.server.metrics.stats("dns://", "udp")
	q := query{qtype: typeA, edns: true}
	from := netip.MustParseAddrPort("127.0.0.1:1234")
	resp := make([]byte, 120)
	var waiting [zones]uint64
	b.ReportAllocs()
	for b.Loop() {
		w.server.counted(st, from, &q, &finding{}, 60, resp, time.Time{})
		if waiting[0]++; waiting[0] == 8 {
			st.tookAll(&waiting, time.Microsecond)
		}
	}
}
