package kube

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
	"github.com/fingerpost/fingerpost/catalog"
)

// fill loads a state with services of perService endpoints, each an instance.
func fill(c *catalog.Catalog, st *state, n, perService int, withInstances bool) {
	names := newInterner()
	c.Update(func(t *catalog.Txn) {
		for i := range n {
			name := fmt.Sprintf("service-%d", i)
			st.put(t, convertService(svc(name)), time.Time{})
			st.put(t, convertSlice(benchSlice(i, perService, -1), names), time.Time{})
			for j := range perService {
				if withInstances {
					st.put(t, convertInstance(benchInstance(i, j), names), time.Time{})
				}
			}
		}
		st.flush(t)
	})
}

func benchSlice(i, perService, out int) *discoveryv1.EndpointSlice {
	sl := slc(fmt.Sprintf("service-%d-abcde", i), fmt.Sprintf("service-%d", i))
	for j := range perService {
		e := ep(fmt.Sprintf("10.%d.%d.%d", i>>8, i&255, j+1), j != out, "Instance", fmt.Sprintf("service-%d-%d", i, j))
		e.NodeName, e.Zone = ptr(fmt.Sprintf("node-%d", j)), ptr(fmt.Sprintf("zone-%d", j%3))
		sl.Endpoints = append(sl.Endpoints, e)
	}
	return sl
}

func benchInstance(i, j int) *v1alpha1.Instance {
	return inst(fmt.Sprintf("service-%d-%d", i, j), true)
}

// BenchmarkMemory measures what 10,000 services of 10 endpoints keep alive,
// catalog included.
func BenchmarkMemory(b *testing.B) {
	for _, withInstances := range []bool{false, true} {
		b.Run(fmt.Sprintf("instances=%v", withInstances), func(b *testing.B) {
			for b.Loop() {
				var before, after runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&before)
				c, st := catalog.New(nil), newState(false, time.Now)
				fill(c, st, 10000, 10, withInstances)
				runtime.GC()
				runtime.ReadMemStats(&after)
				b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/100000, "bytes/endpoint")
				b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/(1<<20), "MiB")
				runtime.KeepAlive(c)
				runtime.KeepAlive(st)
			}
		})
	}
}

// BenchmarkSliceChange measures one slice change among 10,000 services, from
// the decoded object to the published revision.
func BenchmarkSliceChange(b *testing.B) {
	for _, perService := range []int{10, 100} {
		b.Run(fmt.Sprintf("endpoints=%d", perService), func(b *testing.B) {
			c, st := catalog.New(nil), newState(false, time.Now)
			fill(c, st, 10000, 10, false)
			names := newInterner()
			var versions [2]*discoveryv1.EndpointSlice
			for v := range versions {
				versions[v] = benchSlice(7, perService, v)
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				i++
				e := event{kind: slicesKind, verb: put, obj: convertSlice(versions[i&1], names)}
				c.Update(func(t *catalog.Txn) { st.apply(t, &e); st.flush(t) })
			}
		})
	}
}

// BenchmarkInstanceChange measures one instance's change of mind.
func BenchmarkInstanceChange(b *testing.B) {
	c, st := catalog.New(nil), newState(false, time.Now)
	fill(c, st, 10000, 10, true)
	names := newInterner()
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		in := benchInstance(7, 3)
		in.Status.Ready = i&1 == 0
		e := event{kind: instances, verb: put, obj: convertInstance(in, names)}
		c.Update(func(t *catalog.Txn) { st.apply(t, &e); st.flush(t) })
	}
}

// BenchmarkRelist measures a complete list that brings nothing new.
func BenchmarkRelist(b *testing.B) {
	c, st := catalog.New(nil), newState(false, time.Now)
	fill(c, st, 10000, 10, false)
	names := newInterner()
	full := make([]*discoveryv1.EndpointSlice, 10000)
	for i := range full {
		full[i] = benchSlice(i, 10, -1)
	}
	for b.Loop() {
		e := event{kind: slicesKind, verb: replace}
		for _, sl := range full {
			e.list = append(e.list, convertSlice(sl, names))
		}
		before := c.Snapshot().Revision()
		c.Update(func(t *catalog.Txn) { st.apply(t, &e); st.flush(t) })
		if c.Snapshot().Revision() != before {
			b.Fatal("the same list made a revision")
		}
	}
}
