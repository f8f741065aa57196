package main

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"
)

func TestQuantile(t *testing.T) {
	var d durations
	if got := d.at(0.5); got != 0 {
		t.Errorf("nothing: %s", got)
	}
	for i := range 100 {
		d = append(d, time.Duration(100-i))
	}
	for q, want := range map[float64]time.Duration{0: 1, 0.5: 50, 0.99: 99, 1: 100} {
		if got := d.at(q); got != want {
			t.Errorf("%g: %d, want %d", q, got, want)
		}
	}
}

func TestTable(t *testing.T) {
	r := report{Date: "2026-11-21", CPUs: 2, Memory: "24 GiB", Sync: 100, Sync99: 300, Took: "7m0s", verbose: io.Discard}
	r.add(ours, "a", "cost", "µs", 50, target(40))
	r.add(ours, "b", "alone", "s", 0.5, target(1))
	r.add(ours, "a", "rate", "1/s", 2000, upwards, target(1500))
	r.add(peer, "a", "cost", "µs", 100)
	r.add(peer, "a", "rate", "1/s", 500)
	var b bytes.Buffer
	r.table(&b)
	want := `2026-11-21, 2 CPUs, 24 GiB memory, one sync of 2 KiB to the disk 100 µs (p99 300 µs); took 7m0s.

| times better | | fingerpost | peer | unit | target | met |
| ---: | --- | ---: | ---: | --- | ---: | --- |
| | **a** | | | | | |
| 2.00 | cost | 50.0 | 100 | µs | ≤ 40.0 | **no** |
| 4.00 | rate | 2000 | 500 | 1/s | ≥ 1500 | yes |
| | **b** | | | | | |
|  | alone | 0.50 |  | s | ≤ 1.00 | yes |

Targets missed: 1.
`
	if b.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", b.String(), want)
	}
}

// Every object that is sent is of the size that the numbers speak of.
func TestObjects(t *testing.T) {
	if n := len(slice(9999).Endpoints); n != perService {
		t.Errorf("%d endpoints", n)
	}
	seen := map[string]int{}
	for i := range 10_000 {
		for j := range perService {
			seen[address(i, j)]++
		}
	}
	if len(seen) != 100_000 {
		t.Errorf("%d different addresses of 100,000 endpoints", len(seen))
	}
	seen = map[string]int{}
	for i := range 100_000 {
		in := newInstance(i)
		seen[in.Spec.Address]++
	}
	if len(seen) != 100_000 {
		t.Errorf("%d different addresses of 100,000 instances", len(seen))
	}
	if body := string(encoded(service(1))); !strings.HasPrefix(body, "k8s\x00") {
		t.Errorf("not protobuf: %q", body)
	}
}
