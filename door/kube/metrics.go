package kube

import (
	"errors"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// metrics counts what the door does; a nil one counts nothing.
type metrics struct {
	events   *prometheus.CounterVec
	counters map[kind]map[verb]prometheus.Counter
	failures *prometheus.CounterVec
	skipped  prometheus.Counter
	lag      prometheus.Histogram
	program  prometheus.Histogram
	batch    prometheus.Histogram
	isStale  prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) *metrics {
	if r == nil {
		return nil
	}
	fast := []float64{.00005, .0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1}
	m := &metrics{
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fingerpost_door_kube_events_total",
			Help: "Events received from the Kubernetes API, by kind and what happened (put, delete, replace: a complete list).",
		}, []string{"kind", "event"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fingerpost_door_kube_request_failures_total",
			Help: "List and watch requests that failed, by kind.",
		}, []string{"kind"}),
		skipped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "fingerpost_door_kube_skipped_endpoints_total",
			Help: "Endpoints left out because their address makes no sense.",
		}),
		lag: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "fingerpost_door_kube_lag_seconds", Buckets: fast,
			Help: "Time from the receipt of an event to its place in the catalog.",
		}),
		program: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "fingerpost_door_kube_trigger_lag_seconds",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
			Help:    "Time from the change that an EndpointSlice names as its trigger to the receipt of the slice.",
		}),
		batch: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "fingerpost_door_kube_batch_events", Buckets: prometheus.ExponentialBuckets(1, 4, 6),
			Help: "Events applied in one revision.",
		}),
		isStale: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "fingerpost_door_kube_stale_state",
			Help: "1 while the API server cannot be read.",
		}),
		counters: map[kind]map[verb]prometheus.Counter{},
	}
	for _, k := range []kind{services, slicesKind, namespaces, instances, pods} {
		m.counters[k] = map[verb]prometheus.Counter{}
		for _, v := range []verb{put, del, replace, forget} {
			m.counters[k][v] = m.events.WithLabelValues(string(k), string(v))
		}
		m.failures.WithLabelValues(string(k))
	}
	r.MustRegister(m.events, m.failures, m.skipped, m.lag, m.program, m.batch, m.isStale)
	return m
}

func (m *metrics) received(e *event) {
	if m != nil {
		m.counters[e.kind][e.verb].Inc()
	}
}

func (m *metrics) failed(k kind) {
	if m != nil {
		m.failures.WithLabelValues(string(k)).Inc()
	}
}

func (m *metrics) skip(n int) {
	if m != nil && n > 0 {
		m.skipped.Add(float64(n))
	}
}

// trigger observes how old a slice's trigger is. An old one belongs to a slice
// that is merely read again.
func (m *metrics) trigger(at time.Time, now func() time.Time) {
	if m == nil || at.IsZero() {
		return
	}
	if d := now().Sub(at); d >= 0 && d < time.Minute {
		m.program.Observe(d.Seconds())
	}
}

func (m *metrics) applied(batch []event, now time.Time) {
	if m == nil {
		return
	}
	m.batch.Observe(float64(len(batch)))
	for i := range batch {
		if batch[i].kind != freshness {
			m.lag.Observe(now.Sub(batch[i].at).Seconds())
		}
	}
}

func (m *metrics) stale(is bool) {
	if m == nil {
		return
	}
	m.isStale.Set(0)
	if is {
		m.isStale.Set(1)
	}
}

// answered says whether an error is the server's own answer, which proves
// that it is there, and not that of something in between.
func answered(err error) bool {
	var status apierrors.APIStatus
	return errors.As(err, &status) && status.Status().Code > 0 && status.Status().Code < http.StatusInternalServerError
}
