package dns

import (
	"runtime"
	"strconv"
	"time"

	miekg "github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
)

// Describe is of prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		m.requests, m.responses, m.duration, m.askedDesc, m.toldDesc, m.doDesc, m.httpsDesc, m.buildDesc,
		m.panicsDesc, m.droppedDesc, m.forwardsDesc, m.servicesDesc, m.unloggedDesc,
	} {
		ch <- d
	}
}

// series are the labels of one time series; those that it has not are empty.
type series struct{ server, zone, a, b, c string }

// tally is a histogram that is added up from sockets.
type tally struct {
	n, sum float64
	counts []uint64
}

// sum collects counters and histograms by their labels.
type sum struct {
	counts     map[*prometheus.Desc]map[series]uint64
	histograms map[*prometheus.Desc]map[series]*tally
}

func (s *sum) count(d *prometheus.Desc, k series, n uint64) {
	if n == 0 {
		return
	}
	if s.counts[d] == nil {
		s.counts[d] = map[series]uint64{}
	}
	s.counts[d][k] += n
}

func (s *sum) histogram(d *prometheus.Desc, k series, places int) *tally {
	if s.histograms[d] == nil {
		s.histograms[d] = map[series]*tally{}
	}
	t := s.histograms[d][k]
	if t == nil {
		t = &tally{counts: make([]uint64, places)}
		s.histograms[d][k] = t
	}
	return t
}

func (t *tally) add(i int, n uint64) {
	t.counts[i] += n
	t.n += float64(n)
}

// Collect is of prometheus.Collector: it adds up the sockets of a server.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	m.mu.Lock()
	all := m.all
	m.mu.Unlock()
	s := sum{map[*prometheus.Desc]map[series]uint64{}, map[*prometheus.Desc]map[series]*tally{}}
	for _, st := range all {
		m.add(&s, st)
	}
	for d, byLabels := range s.counts {
		for k, n := range byLabels {
			ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), m.labels(d, k)...)
		}
	}
	durations, bytes := make([]float64, buckets), make([]float64, sizes)
	for i := range durations {
		durations[i] = bucket0 * float64(uint64(1)<<i)
	}
	for i, b := range sizeBounds() {
		bytes[i] = float64(b)
	}
	for d, byLabels := range s.histograms {
		bounds := bytes
		if d == m.duration {
			bounds = durations
		}
		for k, t := range byLabels {
			if t.n == 0 {
				continue
			}
			upTo := make(map[float64]uint64, len(bounds))
			var n uint64
			for i, b := range bounds {
				n += t.counts[i]
				upTo[b] = n
			}
			ch <- prometheus.MustNewConstHistogram(d, uint64(t.n), t.sum, upTo, m.labels(d, k)...)
		}
	}
	for i, name := range []string{"answered", "failed", "refused"} {
		ch <- prometheus.MustNewConstMetric(m.forwardsDesc, prometheus.CounterValue, float64(m.forwards[i].Load()), name)
	}
	ch <- prometheus.MustNewConstMetric(m.panicsDesc, prometheus.CounterValue, float64(m.panics.Load()))
	ch <- prometheus.MustNewConstMetric(m.servicesDesc, prometheus.GaugeValue, float64(m.services.Load()))
	if m.unlogged != nil {
		ch <- prometheus.MustNewConstMetric(m.unloggedDesc, prometheus.CounterValue, float64(m.unlogged()))
	}
	version, revision := build()
	ch <- prometheus.MustNewConstMetric(m.buildDesc, prometheus.GaugeValue, 1, version, revision, runtime.Version())
}

// labels puts the values in the order of the metric's labels.
func (m *metrics) labels(d *prometheus.Desc, k series) []string {
	switch d {
	case m.requests:
		return []string{k.server, k.zone, k.a, k.b, k.c}
	case m.responses, m.askedDesc, m.toldDesc:
		return []string{k.server, k.zone, k.a}
	case m.droppedDesc, m.httpsDesc:
		return []string{k.server, k.a}
	}
	return []string{k.server, k.zone}
}

// add adds the counters of one socket.
func (m *metrics) add(to *sum, s *stats) {
	types, statuses := countedTypes(), countedStatuses()
	if to.counts[m.droppedDesc] == nil {
		to.counts[m.droppedDesc] = map[series]uint64{}
	}
	to.counts[m.droppedDesc][series{server: s.server, a: s.proto}] += s.dropped.Load() // 0 too: alerts want it to be there
	for i := range s.statuses {
		to.count(m.httpsDesc, series{server: s.server, a: strconv.Itoa(statuses[i])}, s.statuses[i].Load())
	}
	for z, zone := range [zones]string{zoneCluster: m.zone, zoneReverse: "arpa.", zoneOther: "."} {
		for f := range s.requests[z] {
			for t := range s.requests[z][f] {
				name := "other"
				if t > 0 && t <= len(types) {
					name = miekg.TypeToString[types[t-1]]
				}
				to.count(m.requests, series{s.server, zone, s.proto, strconv.Itoa(f + 1), name}, s.requests[z][f][t].Load())
			}
		}
		for r := range s.responses[z] {
			to.count(m.responses, series{server: s.server, zone: zone, a: rcodeName(r)}, s.responses[z][r].Load())
		}
		to.count(m.doDesc, series{server: s.server, zone: zone}, s.do[z].Load())
		t := to.histogram(m.duration, series{server: s.server, zone: zone}, buckets+1)
		for i := range s.durations[z] {
			t.add(i, s.durations[z][i].Load())
		}
		t.sum += time.Duration(s.sums[z].Load()).Seconds()
		for d, h := range map[*prometheus.Desc]*sizeHistogram{m.askedDesc: &s.asked[z], m.toldDesc: &s.told[z]} {
			t := to.histogram(d, series{server: s.server, zone: zone, a: s.proto}, sizes+1)
			for i := range h.n {
				t.add(i, h.n[i].Load())
			}
			t.sum += float64(h.sum.Load())
		}
	}
}

func rcodeName(r int) string {
	if r == rcodeBadVers {
		return "BADVERS" // miekg calls the number BADSIG, its meaning in TSIG
	}
	if name := miekg.RcodeToString[r]; name != "" {
		return name
	}
	return "RCODE" + strconv.Itoa(r)
}
