package observe

import (
	"sync"
	"sync/atomic"
	"time"
	"weak"
)

// Labels say what a route is called; all of them come from the configuration.
type Labels struct {
	Namespace, Ingress, Host, Service, Port string
	Canary                                  bool
}

// MetricsConfig is what Metrics need.
type MetricsConfig struct {
	// Routes bounds how many routes have series of their own; those beyond share
	// one with empty labels. 0: 10000.
	Routes int
	// NoAliases leaves out the names of ingress-nginx.
	NoAliases bool
}

// Metrics counts what happens. It is a prometheus.Collector.
type Metrics struct {
	cfg  MetricsConfig
	desc descriptions

	mu     sync.Mutex
	routes map[Labels]weak.Pointer[Route]
	other  *Route // of what no rule matched, and of routes beyond the bound
	log    *Log

	// Accepted counts client connections; Active are open, Waiting of them are
	// between two requests, and Writing have had a request that is not answered
	// to the end.
	Accepted                 atomic.Uint64
	Active, Waiting, Writing atomic.Int64
	// Handshakes of TLS that came to an end, and that did not.
	Handshakes, HandshakesFailed atomic.Uint64
	// Retries are requests sent to another endpoint, Ejections endpoints that get
	// none for a while, Refused connections over the limit.
	Retries, Ejections, Refused atomic.Uint64
	// Changed is when the routes changed last, in seconds since 1970; 0: never.
	Changed atomic.Int64
	// Malformed counts requests that were no HTTP, Broken responses that were
	// cut off, Gone clients that left before the end.
	Malformed, Broken, Gone atomic.Uint64
}

// Route is one route in log and metrics. It lives as long as somebody has it.
type Route struct {
	*counters
	labels   Labels
	upstream string // as ingress-nginx calls it: namespace-service-port
}

type counters struct {
	methods  [methods]atomic.Pointer[byMethod]
	duration histogram // ns
	upstreamDuration,
	requestSize, responseSize histogram
	retries atomic.Uint64
}

// byMethod holds the counters of one method: by class of status, then status.
// Most are never needed, and each is made when it is.
type byMethod [5]atomic.Pointer[[100]atomic.Uint64]

// NewMetrics makes counters. Register them once.
func NewMetrics(cfg MetricsConfig) *Metrics {
	if cfg.Routes <= 0 {
		cfg.Routes = 10000
	}
	return &Metrics{cfg: cfg, desc: newDescriptions(), routes: map[Labels]weak.Pointer[Route]{}, other: &Route{counters: new(counters)}}
}

// Watch adds the numbers of a log to the metrics.
func (m *Metrics) Watch(l *Log) {
	m.mu.Lock()
	m.log = l
	m.mu.Unlock()
}

// Route gives the counters of a route: the same ones as long as somebody has
// them, so that a change of the route does not begin anew.
func (m *Metrics) Route(l Labels) *Route {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r := m.routes[l].Value(); r != nil {
		return r
	}
	if len(m.routes) >= m.cfg.Routes {
		m.sweep()
	}
	r := &Route{labels: l, upstream: l.Namespace + "-" + l.Service + "-" + l.Port}
	if len(m.routes) >= m.cfg.Routes {
		r.counters = m.other.counters // it has a name in the log, and shares its series
		return r
	}
	r.counters = new(counters)
	m.routes[l] = weak.Make(r)
	return r
}

func (m *Metrics) sweep() {
	for l, w := range m.routes {
		if w.Value() == nil {
			delete(m.routes, l)
		}
	}
}

// Record counts an exchange.
func (m *Metrics) Record(x *Record) {
	r := x.Route
	if x.Canary != nil {
		r = x.Canary
	}
	if r == nil {
		r = m.other
	}
	r.counter(methodOf(x.Method), x.status()).Add(1)
	r.duration.observe(&durations, uint64(max(x.Took, 0)))
	r.requestSize.observe(&sizes, uint64(max(x.Received, 0)))
	r.responseSize.observe(&sizes, uint64(max(x.Sent, 0)))
	if x.Attempts > 0 {
		r.upstreamDuration.observe(&durations, uint64(max(x.UpstreamTook, 0)))
		if x.Attempts > 1 {
			r.retries.Add(uint64(x.Attempts - 1))
			m.Retries.Add(uint64(x.Attempts - 1))
		}
	}
}

func (r *counters) counter(method, status int) *atomic.Uint64 {
	b := r.methods[method].Load()
	if b == nil {
		b = new(byMethod)
		if !r.methods[method].CompareAndSwap(nil, b) {
			b = r.methods[method].Load()
		}
	}
	class := &b[status/100-1]
	c := class.Load()
	if c == nil {
		c = new([100]atomic.Uint64)
		if !class.CompareAndSwap(nil, c) {
			c = class.Load()
		}
	}
	return &c[status%100]
}

// Methods that are told apart; a client can invent others.
const (
	mGET = iota
	mHEAD
	mPOST
	mPUT
	mPATCH
	mDELETE
	mOPTIONS
	mCONNECT
	mTRACE
	mOther
	methods
)

var methodNames = [methods]string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE", "other"}

func methodOf(m []byte) int {
	switch string(m) {
	case "GET":
		return mGET
	case "HEAD":
		return mHEAD
	case "POST":
		return mPOST
	case "PUT":
		return mPUT
	case "PATCH":
		return mPATCH
	case "DELETE":
		return mDELETE
	case "OPTIONS":
		return mOPTIONS
	case "CONNECT":
		return mCONNECT
	case "TRACE":
		return mTRACE
	}
	return mOther
}

const buckets = 15

// histogram counts values by bounds; the last bucket takes all above.
type histogram struct {
	counts [buckets + 1]atomic.Uint64
	sum    atomic.Uint64
}

// scale is the bounds of a histogram, and what its unit is for Prometheus.
type scale struct {
	bounds [buckets]uint64
	unit   float64 // how many are one
}

const ms = uint64(time.Millisecond)

// Latencies from half a millisecond to a minute; the bounds of ingress-nginx
// (those of the Prometheus client) are among them.
var durations = scale{
	bounds: [buckets]uint64{ms / 2, ms, 5 * ms / 2, 5 * ms, 10 * ms, 25 * ms, 50 * ms, 100 * ms, 250 * ms, 500 * ms, 1000 * ms, 2500 * ms, 5000 * ms, 10000 * ms, 60000 * ms},
	unit:   1e9,
}

var sizes = scale{
	bounds: [buckets]uint64{0, 10, 100, 1e3, 5e3, 1e4, 5e4, 1e5, 5e5, 1e6, 5e6, 1e7, 1e8, 1e9, 1e10},
	unit:   1,
}

func (h *histogram) observe(s *scale, v uint64) {
	lo, hi := 0, buckets
	for lo < hi {
		if mid := (lo + hi) / 2; v <= s.bounds[mid] {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	h.counts[lo].Add(1)
	if v != 0 {
		h.sum.Add(v)
	}
}
