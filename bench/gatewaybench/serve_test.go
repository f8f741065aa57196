//go:build linux

package main

import (
	"testing"
	"time"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/gateway"
)

func newServed(t testing.TB) *served {
	t.Helper()
	e, err := gateway.New(gateway.Config{})
	if err != nil {
		t.Fatal(err)
	}
	s := &served{cat: catalog.New(nil), engine: e, certs: t.TempDir()}
	if err := makeCertificate(pairFile(s.certs, 0), 0); err != nil {
		t.Fatal(err)
	}
	s.sub = s.cat.Subscribe()
	if _, _, err := s.change(t.Context(), setup{Web: []string{"127.0.0.1:1"}}); err != nil {
		t.Fatal(err)
	}
	return s
}

// BenchmarkRoutes builds and swaps a table of 10,000 routes, with services that
// are known.
func BenchmarkRoutes(b *testing.B) {
	var applied, routed time.Duration
	n := 0
	for b.Loop() {
		b.StopTimer()
		s := newServed(b)
		b.StartTimer()
		a, r, err := s.change(b.Context(), setup{Web: []string{"127.0.0.1:1"}, Routes: 10000})
		if err != nil {
			b.Fatal(err)
		}
		applied, routed, n = applied+a, routed+r, n+1
	}
	b.ReportMetric(float64(routed.Microseconds())/1e3/float64(n), "ms/routes")
	b.ReportMetric(float64(applied.Microseconds())/1e3/float64(n), "ms/services")
}

// BenchmarkOneRoute changes one of 10,000.
func BenchmarkOneRoute(b *testing.B) {
	s := newServed(b)
	to := setup{Web: []string{"127.0.0.1:1"}, Routes: 10000}
	if _, _, err := s.change(b.Context(), to); err != nil {
		b.Fatal(err)
	}
	to.Other = "127.0.0.1:2"
	for b.Loop() {
		to.Moved = to.Moved%9999 + 1
		if _, _, err := s.change(b.Context(), to); err != nil {
			b.Fatal(err)
		}
	}
}
