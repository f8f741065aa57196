package catalog

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Random histories against plain maps; every snapshot there ever was is
// checked again at the end.
func TestRandomHistory(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 7))
		c := New(nil)
		services, eps := map[string]string{}, map[string][]string{}
		type version struct {
			snap *Snapshot
			want map[string]string
		}
		var history []version
		for range 150 {
			c.Update(func(tx *Txn) {
				for range 1 + r.IntN(4) {
					name := fmt.Sprintf("s%d", r.IntN(12))
					switch r.IntN(4) {
					case 0:
						ip := fmt.Sprintf("10.96.0.%d", r.IntN(3))
						tx.PutService(service(name, ip))
						services[name] = ip
					case 1:
						tx.DeleteService(key(name))
						delete(services, name)
					default:
						var addrs []string
						for range r.IntN(3) {
							addrs = append(addrs, fmt.Sprintf("10.0.0.%d", r.IntN(9)))
						}
						tx.PutEndpoints(key(name), endpoints(addrs...))
						eps[name] = addrs
					}
				}
			})
			want := map[string]string{}
			for name, ip := range services {
				want[name] = strings.TrimSpace(fmt.Sprintf("default/%s[%s] %s", name, ip, strings.Join(eps[name], " ")))
			}
			history = append(history, version{c.Snapshot(), want})
		}
		for i, v := range history {
			got := map[string]string{}
			total := 0
			for e := range v.snap.All() {
				got[e.Service.Name] = text(e)
				total += len(e.Endpoints)
				if v.snap.Get(e.Service.Key) != e {
					t.Fatal("All and Get disagree")
				}
				if e.Revision > v.snap.Revision() {
					t.Fatalf("an entry of revision %d in a snapshot of %d", e.Revision, v.snap.Revision())
				}
			}
			if !maps.Equal(got, v.want) {
				t.Fatalf("seed %d, version %d:\n got %v\nwant %v", seed, i, got, v.want)
			}
			if n, e := v.snap.Len(); n != len(got) || e != total {
				t.Fatalf("seed %d, version %d: Len is %d, %d, want %d, %d", seed, i, n, e, len(got), total)
			}
		}
	}
}

// For the race detector: readers of all kinds beside writers. Both services
// of a pair change in one Update, so a reader must never see them differ.
func TestConcurrentReaders(t *testing.T) {
	c := New(nil)
	done := make(chan struct{})
	var readers, writers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			last := uint64(0)
			for {
				select {
				case <-done:
					return
				default:
				}
				s := c.Snapshot()
				if s.Revision() < last {
					t.Error("the revision went back")
				}
				last = s.Revision()
				if a, b := s.Get(key("a")), s.Get(key("b")); a.visible() != b.visible() ||
					a != nil && !slices.Equal(a.Service.ClusterIPs, b.Service.ClusterIPs) {
					t.Error("half an Update is visible")
				}
				for e := range s.All() {
					_ = text(e)
				}
			}
		})
		readers.Go(func() {
			sub := c.Subscribe()
			defer sub.Close()
			for {
				select {
				case <-done:
					return
				case <-sub.Wake():
					sub.TryNext()
				}
			}
		})
	}
	for w := range 2 {
		writers.Go(func() {
			for i := range 500 {
				ip := fmt.Sprintf("10.96.%d.%d", w, i%250)
				c.Update(func(tx *Txn) {
					tx.PutService(service("a", ip))
					tx.PutService(service("b", ip))
					tx.PutEndpoints(key(fmt.Sprintf("s%d", i%20)), endpoints("10.0.0.1"))
					tx.PutNamespace(fmt.Sprintf("ns%d", i%5))
				})
			}
		})
	}
	writers.Wait()
	close(done)
	readers.Wait()
}
