package dns

import (
	"math/bits"
	"net/netip"
	"runtime/debug"
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

	sizes = 14 // bounds of sizeBounds
)

// sizeBounds are CoreDNS' buckets of sizes, bytes.
func sizeBounds() [sizes]int {
	return [...]int{0, 100, 200, 300, 400, 511, 1023, 2047, 4095, 8291, 16e3, 32e3, 48e3, 64e3}
}

// histogram counts bytes by sizeBounds; the last place is for what is longer.
type sizeHistogram struct {
	n   [sizes + 1]atomic.Uint64
	sum atomic.Uint64
}

func (h *sizeHistogram) observe(n int) {
	h.place(n).Add(1)
	h.sum.Add(uint64(n))
}

// place is the counter for n bytes.
func (h *sizeHistogram) place(n int) *atomic.Uint64 {
	i := 0
	switch { // nearly all are here
	case n <= 0:
	case n <= 400:
		i = (n + 99) / 100
	default:
		bounds := sizeBounds()
		for i = 5; i < sizes && n > bounds[i]; i++ {
		}
	}
	return &h.n[i]
}

// stats are the counters of one socket.
type stats struct {
	server, proto string
	types         *[256]uint8 // type -> 1 + index into countedTypes, 0: other

	requests  [zones][2][maxTypes]atomic.Uint64 // by family (0: IPv4) and type
	responses [zones][rcodes]atomic.Uint64
	durations [zones][buckets + 1]atomic.Uint64 // the last: longer
	sums      [zones]atomic.Int64               // nanoseconds
	asked     [zones]sizeHistogram
	told      [zones]sizeHistogram
	do        [zones]atomic.Uint64
	dropped   atomic.Uint64
	logged    atomic.Uint64 // questions that the query log's sampling has seen
	statuses  [httpStatuses]atomic.Uint64

	batch bundle // the worker's own
}

// counters are those for one question and its answer; response is nil for a code that is not counted.
func (s *stats) counters(v4 bool, qtype uint16, z zoneID, rcode int) (request, response *atomic.Uint64) {
	family := 1
	if v4 {
		family = 0
	}
	var t uint8
	if qtype < 256 {
		t = s.types[qtype]
	}
	if rcode < rcodes {
		response = &s.responses[z][rcode]
	}
	return &s.requests[z][family][t], response
}

// answered counts a question of size bytes that was answered with resp, and
// logs it if it is to be.
func (s *Server) answered(st *stats, from netip.AddrPort, q *query, f *finding, rcode, size int, resp []byte, took time.Duration) {
	st.took(f.zone, 1, took)
	request, response := st.counters(is4(from), q.qtype, f.zone, rcode)
	request.Add(1)
	if response != nil {
		response.Add(1)
	}
	st.asked[f.zone].observe(size)
	st.told[f.zone].observe(len(resp))
	if q.edns && q.do {
		st.do[f.zone].Add(1)
	}
	if mode := s.queries.mode.Load(); mode != logOff && s.queries.wants(mode, rcode, &st.logged) {
		s.queries.add(from, st.proto, q, f, rcode, size, resp, took)
	}
}

func (s *stats) took(z zoneID, n uint64, took time.Duration) {
	s.durations[z][bucket(took)].Add(n)
	s.sums[z].Add(int64(took) * int64(n))
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
	program  *prometheus.HistogramVec // by kind of service
	services atomic.Int64
	unlogged func() uint64 // lines that the query log dropped; nil: none

	requests, responses, duration, askedDesc, toldDesc, doDesc, httpsDesc        *prometheus.Desc
	panicsDesc, droppedDesc, forwardsDesc, servicesDesc, unloggedDesc, buildDesc *prometheus.Desc
}

func newMetrics(r prometheus.Registerer, zone string) (*metrics, error) {
	m := &metrics{
		zone: zone,
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "fingerpost_dns_programming_latency_seconds",
			Help:    "Time from the oldest change of a batch in the catalog until DNS answers with it.",
			Buckets: prometheus.ExponentialBuckets(0.00001, 4, 12),
		}),
		program: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "coredns_kubernetes_dns_programming_duration_seconds",
			Help:    "Time from a change of a service or its endpoints, as far back as it is known, until DNS answers with it.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 20),
		}, []string{"service_kind"}),
		requests:     prometheus.NewDesc("coredns_dns_requests_total", "Questions answered.", []string{"server", "zone", "proto", "family", "type"}, nil),
		responses:    prometheus.NewDesc("coredns_dns_responses_total", "Answers by response code.", []string{"server", "zone", "rcode"}, nil),
		duration:     prometheus.NewDesc("coredns_dns_request_duration_seconds", "Time from reading a question to having sent the answer.", []string{"server", "zone"}, nil),
		askedDesc:    prometheus.NewDesc("coredns_dns_request_size_bytes", "Bytes of questions.", []string{"server", "zone", "proto"}, nil),
		toldDesc:     prometheus.NewDesc("coredns_dns_response_size_bytes", "Bytes of answers.", []string{"server", "zone", "proto"}, nil),
		doDesc:       prometheus.NewDesc("coredns_dns_do_requests_total", "Questions with the DO bit.", []string{"server", "zone"}, nil),
		httpsDesc:    prometheus.NewDesc("coredns_dns_https_responses_total", "Answers to DNS over HTTPS by status.", []string{"server", "status"}, nil),
		buildDesc:    prometheus.NewDesc("coredns_build_info", "1, labelled with the build; of Fingerpost, under the name that dashboards find DNS servers by.", []string{"version", "revision", "goversion"}, nil),
		unloggedDesc: prometheus.NewDesc("fingerpost_dns_query_log_dropped_total", "Lines of the query log that were dropped because they came faster than they could be written.", nil, nil),
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
	if err := r.Register(m.program); err != nil {
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
	if b.Oldest.IsZero() {
		return // all there was at the start
	}
	m.latency.Observe(max(0, now.Sub(b.Oldest).Seconds()))
	for i := range b.Changes {
		if c := &b.Changes[i]; c.New != nil {
			m.program.WithLabelValues(serviceKind(c.New.Service)).Observe(max(0, now.Sub(began(c)).Seconds()))
		}
	}
}

// serviceKind is the word of the metric. Selectors are not known here.
func serviceKind(s *catalog.Service) string {
	if s.Headless {
		return "headless_with_selector"
	}
	return "cluster_ip"
}

// began is when what made a change happened: when an endpoint got into its
// state, if one got into another since the last change and that can be the
// reason, else when the catalog had it.
func began(c *catalog.Change) time.Time {
	last := latest(c.New)
	if ago := c.New.Changed.Sub(last); ago < 0 || ago >= time.Minute || c.Old != nil && !last.After(latest(c.Old)) {
		return c.New.Changed
	}
	return last
}

func latest(e *catalog.Entry) (last time.Time) {
	for i := range e.Endpoints {
		if since := e.Endpoints[i].Health.Since; since.After(last) {
			last = since
		}
	}
	return last
}

// build says what this program was built from.
func build() (version, revision string) {
	version = "unknown"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return version, ""
	}
	version = info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			revision = s.Value
		}
	}
	return version, revision
}
