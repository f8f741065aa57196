package health

import (
	"fmt"
	"testing"
	"time"
)

func benchLeases(n int) (*Leases, []string) {
	ls := NewLeases(LeaseConfig{}, t0)
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf("default/web-%06d/eureka/10.0.0.1:8080", i)
		ls.Put(keys[i], fmt.Sprint("zone-", i%3), fmt.Sprint("svc-", i/10), 15*time.Second, t0)
	}
	return ls, keys
}

func BenchmarkRenew(b *testing.B) {
	for _, n := range []int{10_000, 100_000} {
		ls, keys := benchLeases(n)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				ls.Renew(keys[i%n], t0.Add(time.Duration(i)))
				i++
			}
		})
		b.Run(fmt.Sprint(n, "/parallel"), func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i++ {
					ls.Renew(keys[i%n], t0.Add(time.Duration(i)))
				}
			})
		})
	}
}

// One second of 100,000 leases with TTL 15 s, all renewed every 5 s: what the
// queue costs, without the renewals.
func BenchmarkExpireSecond100000(b *testing.B) {
	ls, keys := benchLeases(100_000)
	for i, k := range keys { // spread the phases
		ls.Renew(k, t0.Add(time.Duration(i)*50*time.Microsecond))
	}
	now := t0.Add(5 * time.Second)
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		for i := range 20_000 {
			n := (int(now.Sub(t0)/time.Second)*20_000 + i) % len(keys)
			ls.Renew(keys[n], now)
		}
		now = now.Add(time.Second)
		b.StartTimer()
		for range 20 {
			if got := ls.Expire(now); len(got) > 0 {
				b.Fatalf("told %d", len(got))
			}
			ls.Next()
		}
	}
}
