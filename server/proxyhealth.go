package server

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fingerpost/fingerpost/catalog"
)

// watched is a driver as kube-proxy's users watch it: how long its syncs take,
// what it was told, and whether it keeps up.
type watched struct {
	driver
	now      func() time.Time
	eligible func() bool // traffic from load balancers should come here
	families []string    // IPv4, IPv6

	took                     prometheus.Histogram
	services, endpoints      prometheus.Counter
	pendingS, pendingE       prometheus.Gauge
	lastQueued, lastFinished prometheus.Gauge
	healthz, livez           *prometheus.CounterVec

	apply sync.Mutex // one Apply at a time

	mu      sync.Mutex
	updated time.Time         // the last success; zero: none yet
	pending time.Time         // since when something is not in effect; zero: all is
	last    *catalog.Snapshot // of the Apply that failed
}

const (
	// healthTimeout is how long a change may wait before the proxy says that it
	// is not healthy: that of kube-proxy.
	healthTimeout = time.Minute
	// retryEvery is how long after a refusal the driver is asked again.
	retryEvery = 5 * time.Second
)

func newWatched(d driver, families []string, eligible func() bool, r prometheus.Registerer) *watched {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "kubeproxy_" + name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "kubeproxy_" + name, Help: help})
	}
	answers := func(name string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kubeproxy_" + name, Help: "Answers by HTTP status."}, []string{"code"})
	}
	w := &watched{
		driver: d, now: time.Now, eligible: eligible, families: families,
		took: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "kubeproxy_sync_proxy_rules_duration_seconds", Help: "Time that a change takes to be put into effect.",
			// kube-proxy's begin at 1 ms, which most changes do not take here.
			Buckets: append([]float64{0.000125, 0.00025, 0.0005}, prometheus.ExponentialBuckets(0.001, 2, 15)...),
		}),
		services:     counter("sync_proxy_rules_service_changes_total", "Changes of services."),
		endpoints:    counter("sync_proxy_rules_endpoint_changes_total", "Changes of the endpoints of a service."),
		pendingS:     gauge("sync_proxy_rules_service_changes_pending", "Changes of services that are not in effect yet."),
		pendingE:     gauge("sync_proxy_rules_endpoint_changes_pending", "Changes of endpoints that are not in effect yet."),
		lastQueued:   gauge("sync_proxy_rules_last_queued_timestamp_seconds", "When a change came last."),
		lastFinished: gauge("sync_proxy_rules_last_timestamp_seconds", "When a change was put into effect last."),
		healthz:      answers("proxy_healthz_total"),
		livez:        answers("proxy_livez_total"),
	}
	for _, c := range []prometheus.Collector{w.took, w.services, w.endpoints, w.pendingS, w.pendingE, w.lastQueued, w.lastFinished, w.healthz, w.livez} {
		// A driver that has kube-proxy's metrics itself keeps them.
		_ = r.Register(c)
	}
	return w
}

// Apply implements catalog.View.
func (w *watched) Apply(ctx context.Context, b catalog.Batch) error {
	w.apply.Lock()
	defer w.apply.Unlock()
	var services, endpoints float64
	for _, c := range b.Changes {
		switch {
		case c.Old == nil || c.New == nil:
			services++
			endpoints++
		case !c.Old.Service.Equal(c.New.Service):
			services++
		default:
			endpoints++
		}
	}
	began := w.now()
	w.mu.Lock()
	if w.pending.IsZero() {
		w.pending = began
	}
	w.mu.Unlock()
	if len(b.Changes) > 0 {
		w.services.Add(services)
		w.endpoints.Add(endpoints)
		w.pendingS.Add(services)
		w.pendingE.Add(endpoints)
		w.lastQueued.Set(float64(began.UnixNano()) / 1e9)
	}
	err := w.driver.Apply(ctx, b)
	now := w.now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.last = b.Snapshot
		return err
	}
	w.last, w.pending = nil, time.Time{}
	w.pendingS.Set(0)
	w.pendingE.Set(0)
	if b.Snapshot != nil && b.Snapshot.Freshness().Synced {
		w.updated = now
		w.lastFinished.Set(float64(now.UnixNano()) / 1e9)
	}
	if len(b.Changes) > 0 {
		w.took.Observe(now.Sub(began).Seconds())
	}
	return nil
}

// again asks a driver that refused something until it does not.
func (w *watched) again(ctx context.Context) error {
	tick := time.NewTicker(retryEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			w.mu.Lock()
			last := w.last
			w.mu.Unlock()
			if last != nil {
				_ = w.Apply(ctx, catalog.Batch{Snapshot: last}) // it was logged the first time
			}
		}
	}
}

// proxierHealth and proxyHealth are what kube-proxy answers.
type proxierHealth struct {
	LastUpdated time.Time `json:"lastUpdated"`
	Healthy     bool      `json:"healthy"`
}

type proxyHealth struct {
	LastUpdated  time.Time                `json:"lastUpdated"`
	CurrentTime  time.Time                `json:"currentTime"`
	NodeEligible *bool                    `json:"nodeEligible,omitempty"`
	Healthy      bool                     `json:"healthy"`
	Status       map[string]proxierHealth `json:"status,omitempty"`
}

func (w *watched) health() proxyHealth {
	now := w.now()
	w.mu.Lock()
	defer w.mu.Unlock()
	h := proxyHealth{LastUpdated: w.updated, CurrentTime: now, Status: map[string]proxierHealth{}}
	h.Healthy = w.pending.IsZero() || now.Sub(w.pending) < healthTimeout
	for _, f := range w.families {
		h.Status[f] = proxierHealth{LastUpdated: w.updated, Healthy: h.Healthy}
	}
	return h
}

// serve gives the handler of /healthz, or of /livez, which does not ask whether
// the node is on its way out.
func (w *watched) serve(count *prometheus.CounterVec, node bool) http.HandlerFunc {
	return func(rw http.ResponseWriter, _ *http.Request) {
		h, code := w.health(), http.StatusOK
		fine := h.Healthy
		if node {
			e := w.eligible()
			h.NodeEligible, fine = &e, fine && e
		}
		if fine {
			h.LastUpdated = h.CurrentTime
		} else {
			code = http.StatusServiceUnavailable
		}
		count.WithLabelValues(strconv.Itoa(code)).Inc()
		rw.Header().Set("Content-Type", "application/json")
		rw.Header().Set("X-Content-Type-Options", "nosniff")
		rw.WriteHeader(code)
		_ = json.NewEncoder(rw).Encode(h)
	}
}
