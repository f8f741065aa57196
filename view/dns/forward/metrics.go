package forward

import (
	"strconv"
	"time"

	miekg "github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
)

// metrics have CoreDNS' names (1.12 and later) where they mean the same, so
// that its dashboards work. The cache's are plain atomics in its shards.
type metrics struct {
	cache  *cache
	server string

	broken, rejects prometheus.Counter
	probeFails      *prometheus.CounterVec   // by upstream
	requests        *prometheus.HistogramVec // by upstream and rcode
	hits, misses    *prometheus.CounterVec   // of connections

	descs [cacheMetrics]*prometheus.Desc
}

// Metrics of the cache.
const (
	cacheEntries = iota
	cacheRequests
	cacheHits
	cacheMisses
	cachePrefetches
	cacheStales
	cacheEvictions
	cacheDrops
	cacheBytes
	cacheMetrics
)

const proxyName = "forward"

func newMetrics(r prometheus.Registerer, server string, c *cache) (*metrics, error) {
	counter := func(name, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Name: name, Help: help}
	}
	m := &metrics{
		cache:      c,
		server:     server,
		broken:     prometheus.NewCounter(counter("coredns_forward_healthcheck_broken_total", "Questions for which every upstream was down.")),
		rejects:    prometheus.NewCounter(counter("coredns_forward_max_concurrent_rejects_total", "Questions refused because too many were under way.")),
		probeFails: prometheus.NewCounterVec(counter("coredns_proxy_healthcheck_failures_total", "Probes that an upstream did not answer."), []string{"proxy_name", "to"}),
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "coredns_proxy_request_duration_seconds", Help: "Time that an upstream took to answer.",
			Buckets: prometheus.ExponentialBuckets(0.00025, 2, 16),
		}, []string{"proxy_name", "to", "rcode"}),
		hits:   prometheus.NewCounterVec(counter("coredns_proxy_conn_cache_hits_total", "Questions over a connection that was there."), []string{"proxy_name", "to", "proto"}),
		misses: prometheus.NewCounterVec(counter("coredns_proxy_conn_cache_misses_total", "Questions that needed a new connection."), []string{"proxy_name", "to", "proto"}),
	}
	desc := func(i int, name, help string, labels ...string) {
		m.descs[i] = prometheus.NewDesc(name, help, append([]string{"server"}, labels...), prometheus.Labels{"zones": ".", "view": ""})
	}
	desc(cacheEntries, "coredns_cache_entries", "Answers in the cache.", "type")
	desc(cacheRequests, "coredns_cache_requests_total", "Look-ups in the cache.")
	desc(cacheHits, "coredns_cache_hits_total", "Look-ups that found an answer.", "type")
	desc(cacheMisses, "coredns_cache_misses_total", "Look-ups that found none.")
	desc(cachePrefetches, "coredns_cache_prefetch_total", "Answers asked for again before their end.")
	desc(cacheStales, "coredns_cache_served_stale_total", "Answers given after their time because upstreams failed.")
	desc(cacheEvictions, "coredns_cache_evictions_total", "Answers that made room for others.")
	desc(cacheDrops, "coredns_cache_drops_total", "Answers too big for the cache.")
	desc(cacheBytes, "fingerpost_dns_cache_bytes", "Size of the cache.")
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m, m.broken, m.rejects, m.probeFails, m.requests, m.hits, m.misses} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *metrics) answered(u *upstream, rcode int, took time.Duration) {
	name, ok := miekg.RcodeToString[rcode]
	if !ok {
		name = strconv.Itoa(rcode)
	}
	m.requests.WithLabelValues(proxyName, u.target.String(), name).Observe(took.Seconds())
}

func (m *metrics) probeFailed(u *upstream) {
	m.probeFails.WithLabelValues(proxyName, u.target.String()).Inc()
}

func (m *metrics) connHit(u *upstream) {
	m.hits.WithLabelValues(proxyName, u.target.String(), u.network()).Inc()
}

func (m *metrics) connMiss(u *upstream) {
	m.misses.WithLabelValues(proxyName, u.target.String(), u.network()).Inc()
}

// Describe is of prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range m.descs {
		ch <- d
	}
}

// Collect is of prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	var hits, denials, misses, stales, prefetches, evictions, drops uint64
	for i := range m.cache.shards {
		s := &m.cache.shards[i]
		hits += s.hits.Load()
		denials += s.denials.Load()
		misses += s.misses.Load()
		stales += s.stales.Load()
		prefetches += s.prefetches.Load()
		evictions += s.evictions.Load()
		drops += s.drops.Load()
	}
	success, denial, bytes := m.cache.size()
	put := func(i int, kind prometheus.ValueType, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(m.descs[i], kind, v, append([]string{m.server}, labels...)...)
	}
	put(cacheEntries, prometheus.GaugeValue, float64(success), "success")
	put(cacheEntries, prometheus.GaugeValue, float64(denial), "denial")
	put(cacheRequests, prometheus.CounterValue, float64(hits+denials+misses))
	put(cacheHits, prometheus.CounterValue, float64(hits), "success")
	put(cacheHits, prometheus.CounterValue, float64(denials), "denial")
	put(cacheMisses, prometheus.CounterValue, float64(misses))
	put(cachePrefetches, prometheus.CounterValue, float64(prefetches))
	put(cacheStales, prometheus.CounterValue, float64(stales))
	put(cacheEvictions, prometheus.CounterValue, float64(evictions))
	put(cacheDrops, prometheus.CounterValue, float64(drops))
	put(cacheBytes, prometheus.GaugeValue, float64(bytes))
}
