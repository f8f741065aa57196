package dns

import (
	"math/bits"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	miekg "github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/fingerpost/fingerpost/catalog"
)

// Counters are plain atomics, one set per socket: a question costs no label
// look-up and shares no cache line with another CPU. The names are CoreDNS'
// where they mean the same, so that its dashboards work.

// countedTypes are told apart by name; the rest is "other", so that random
// types make no series.
func countedTypes() []uint16 {
	return []uint16{
		miekg.TypeA, miekg.TypeAAAA, miekg.TypeCNAME, miekg.TypeMX, miekg.TypeNS, miekg.TypePTR, miekg.TypeSOA,
		miekg.TypeSRV, miekg.TypeTXT, miekg.TypeNAPTR, miekg.TypeDS, miekg.TypeDNSKEY, miekg.TypeHTTPS,
		miekg.TypeSVCB, miekg.TypeANY, miekg.TypeAXFR, miekg.TypeIXFR,
	}
}

const (
	maxTypes = 32            // more than countedTypes
	rcodes   = 17            // up to BADVERS
	buckets  = 23            // 2 µs to 8 s, each twice the one before; CoreDNS' are the upper 16
	bucket0  = 0.00025 / 128 // seconds
)

// stats are the counters of one socket.
type stats struct {
	server, proto string
	types         *[256]uint8 // type -> 1 + index into countedTypes, 0: other

	requests  [zones][2][maxTypes]atomic.Uint64 // by family (0: IPv4) and type
	responses [zones][rcodes]atomic.Uint64
	durations [zones][buckets + 1]atomic.Uint64 // the last: longer
	sums      [zones]atomic.Int64               // nanoseconds
	dropped   atomic.Uint64
}

// record counts one answered question.
func (s *stats) record(v4 bool, qtype uint16, z zoneID, rcode int, took time.Duration) {
	family := 1
	if v4 {
		family = 0
	}
	var t uint8
	if qtype < 256 {
		t = s.types[qtype]
	}
	s.requests[z][family][t].Add(1)
	if rcode < rcodes {
		s.responses[z][rcode].Add(1)
	}
	s.durations[z][bucket(took)].Add(1)
	s.sums[z].Add(int64(took))
}

// bucket gives the first bucket whose bound is not below d.
func bucket(d time.Duration) int {
	if d <= 0 {
		return 0
	}
	return min(bits.Len64(uint64((d*128-1)/(250*time.Microsecond))), buckets)
}

// What became of a forwarded question.
const (
	forwardAnswered = iota
	forwardFailed   // no upstream answered
	forwardRefused  // too many at once
	forwardResults
)

// metrics collects the counters of all sockets.
type metrics struct {
	zone  string
	types [256]uint8

	mu  sync.Mutex
	all []*stats

	panics   atomic.Uint64
	forwards [forwardResults]atomic.Uint64
	latency  prometheus.Histogram
	services atomic.Int64

	requests, responses, duration, panicsDesc, droppedDesc, forwardsDesc, servicesDesc *prometheus.Desc
}

func newMetrics(r prometheus.Registerer, zone string) (*metrics, error) {
	m := &metrics{
		zone: zone,
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "fingerpost_dns_programming_latency_seconds",
			Help:    "Time from the oldest change of a batch in the catalog until DNS answers with it.",
			Buckets: prometheus.ExponentialBuckets(0.00001, 4, 12),
		}),
		requests:     prometheus.NewDesc("coredns_dns_requests_total", "Questions answered.", []string{"server", "zone", "proto", "family", "type"}, nil),
		responses:    prometheus.NewDesc("coredns_dns_responses_total", "Answers by response code.", []string{"server", "zone", "rcode"}, nil),
		duration:     prometheus.NewDesc("coredns_dns_request_duration_seconds", "Time from reading a question to having sent the answer.", []string{"server", "zone"}, nil),
		panicsDesc:   prometheus.NewDesc("coredns_panics_total", "Questions that made the server panic.", nil, nil),
		droppedDesc:  prometheus.NewDesc("fingerpost_dns_dropped_total", "Answers that could not be sent and connections refused for want of room.", []string{"server", "proto"}, nil),
		forwardsDesc: prometheus.NewDesc("fingerpost_dns_forwards_total", "Questions for upstreams: answered, failed (no upstream answered) or refused (too many at once).", []string{"result"}, nil),
		servicesDesc: prometheus.NewDesc("fingerpost_dns_services", "Services that DNS knows.", nil, nil),
	}
	for i, t := range countedTypes() {
		m.types[t] = uint8(i + 1)
	}
	if r == nil {
		return m, nil
	}
	if err := r.Register(m); err != nil {
		return nil, err
	}
	return m, r.Register(m.latency)
}

// stats makes the counters of a socket.
func (m *metrics) stats(server, proto string) *stats {
	s := &stats{server: server, proto: proto, types: &m.types}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.all = append(m.all, s)
	return s
}

func (m *metrics) panicked()            { m.panics.Add(1) }
func (m *metrics) forwarded(result int) { m.forwards[result].Add(1) }

// applied notes that a batch is visible.
func (m *metrics) applied(b *catalog.Batch, now time.Time) {
	for i := range b.Changes {
		switch c := &b.Changes[i]; {
		case c.Old == nil && c.New != nil:
			m.services.Add(1)
		case c.Old != nil && c.New == nil:
			m.services.Add(-1)
		}
	}
	if !b.Oldest.IsZero() {
		m.latency.Observe(max(0, now.Sub(b.Oldest).Seconds()))
	}
}

// Describe is of prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.requests, m.responses, m.duration, m.panicsDesc, m.droppedDesc, m.forwardsDesc, m.servicesDesc} {
		ch <- d
	}
}

// Collect is of prometheus.Collector: it adds up the sockets of a server.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	type key struct{ server, zone, a, b, c string }
	counts := map[*prometheus.Desc]map[key]uint64{m.requests: {}, m.responses: {}, m.droppedDesc: {}}
	type histogram struct {
		n    uint64
		sum  float64
		upTo [buckets + 1]uint64
	}
	times := map[key]*histogram{}
	types := countedTypes()
	zoneNames := [zones]string{zoneCluster: m.zone, zoneReverse: "arpa.", zoneOther: "."}

	m.mu.Lock()
	all := m.all
	m.mu.Unlock()
	for _, s := range all {
		counts[m.droppedDesc][key{server: s.server, a: s.proto}] += s.dropped.Load()
		for z, zone := range zoneNames {
			for f := range s.requests[z] {
				for t := range s.requests[z][f] {
					if n := s.requests[z][f][t].Load(); n > 0 {
						name := "other"
						if t > 0 {
							name = miekg.TypeToString[types[t-1]]
						}
						counts[m.requests][key{s.server, zone, s.proto, strconv.Itoa(f + 1), name}] += n
					}
				}
			}
			for r := range s.responses[z] {
				if n := s.responses[z][r].Load(); n > 0 {
					counts[m.responses][key{server: s.server, zone: zone, a: rcodeName(r)}] += n
				}
			}
			k := key{server: s.server, zone: zone}
			h := times[k]
			if h == nil {
				h = &histogram{}
				times[k] = h
			}
			for i := range s.durations[z] {
				n := s.durations[z][i].Load()
				h.upTo[i] += n
				h.n += n
			}
			h.sum += time.Duration(s.sums[z].Load()).Seconds()
		}
	}
	counter := func(d *prometheus.Desc, n uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	for k, n := range counts[m.requests] {
		counter(m.requests, n, k.server, k.zone, k.a, k.b, k.c)
	}
	for k, n := range counts[m.responses] {
		counter(m.responses, n, k.server, k.zone, k.a)
	}
	for k, n := range counts[m.droppedDesc] {
		counter(m.droppedDesc, n, k.server, k.a)
	}
	for k, h := range times {
		if h.n == 0 {
			continue
		}
		upTo := map[float64]uint64{}
		var sum uint64
		for i := range buckets {
			sum += h.upTo[i]
			upTo[bucket0*float64(uint64(1)<<i)] = sum
		}
		ch <- prometheus.MustNewConstHistogram(m.duration, h.n, h.sum, upTo, k.server, k.zone)
	}
	for i, name := range []string{"answered", "failed", "refused"} {
		counter(m.forwardsDesc, m.forwards[i].Load(), name)
	}
	counter(m.panicsDesc, m.panics.Load())
	ch <- prometheus.MustNewConstMetric(m.servicesDesc, prometheus.GaugeValue, float64(m.services.Load()))
}

func rcodeName(r int) string {
	if r == rcodeBadVers {
		return "BADVERS" // miekg calls the number BADSIG, its meaning in TSIG
	}
	return miekg.RcodeToString[r]
}
