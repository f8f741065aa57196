package forward

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	miekg "github.com/miekg/dns"
)

// TestReadersAndWriters: readers take no lock, so they must find what belongs
// to their key or nothing, whatever writers do meanwhile.
func TestReadersAndWriters(t *testing.T) {
	c := newCache(64 << 10)
	key := func(i uint32) []byte {
		k := binary.BigEndian.AppendUint32([]byte{4}, i)
		return append(k, 0, 0, typeA, 0, classIN, 0)
	}
	var wg sync.WaitGroup
	var found atomic.Int64
	for w := range 4 {
		wg.Go(func() {
			for round := range 20_000 {
				i := uint32(rand.ExpFloat64() * 60)
				k := key(i)
				h := c.hash(k)
				if n := c.shard(h).find(h, k); n != nil {
					found.Add(1)
					n.touch()
					if e := n.entry.Load(); e.msg[0] != byte(i) {
						t.Errorf("key %d found the entry of another", i)
						return
					}
				} else {
					c.put(h, string(k), &entry{msg: []byte{byte(i)}})
				}
				if w == 0 && round%1000 == 999 {
					c.purge("\x00")
				}
				if w == 1 && round%500 == 499 {
					c.resize((32 + round/500) << 10)
				}
			}
		})
	}
	wg.Wait()
	for i := range c.shards {
		s := &c.shards[i]
		listed, bytes := s.small.n+s.main.n, 0
		for _, q := range []*queue{&s.small, &s.main} {
			for n := q.head; n != nil; n = n.after {
				bytes += n.cost
			}
		}
		for j := range s.table {
			for n := s.table[j].Load(); n != nil; n = n.next.Load() {
				listed--
			}
		}
		if listed != 0 || bytes != s.small.bytes+s.main.bytes || bytes > s.limit {
			t.Errorf("shard %d: table and queues differ by %d, %d bytes, counted %d, limit %d", i, listed, bytes, s.small.bytes+s.main.bytes, s.limit)
		}
	}
	if found.Load() == 0 {
		t.Error("nothing was ever found")
	}
}

// TestReloadUnderLoad: questions go on being answered, and never by those that
// a reload took away before they were asked.
func TestReloadUnderLoad(t *testing.T) {
	a, b := upstreamAt(t, nil, zoneOf("www.corp.example. 60 IN A 192.0.2.1")), upstreamAt(t, nil, zoneOf("www.corp.example. 60 IN A 192.0.2.2"))
	conf := func(i int) Config {
		return patient(Config{Zones: []Zone{{".", []string{a.addr, b.addr}}, {"corp.example.", []string{[]string{a.addr, b.addr}[i%2]}}}, CacheSize: 1 << 20})
	}
	f := running(t, conf(0))
	var stop atomic.Bool
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := 0; !stop.Load(); i++ {
				if m, _ := resolve(t, f, fmt.Sprintf("n%d-%d.example.", w, i%50), miekg.TypeA); m.Rcode != miekg.RcodeNameError {
					t.Errorf("during reloads: %v", m)
					return
				}
			}
		})
	}
	for i := range 100 {
		if err := f.Reload(conf(i)); err != nil {
			t.Fatal(err)
		}
		want := []string{"192.0.2.1", "192.0.2.2"}[i%2]
		for range 3 {
			m, _ := resolve(t, f, "www.corp.example.", miekg.TypeA)
			if len(m.Answer) != 1 || m.Answer[0].(*miekg.A).A.String() != want {
				t.Fatalf("after reload %d: %v, want %s", i, m, want)
			}
		}
	}
	stop.Store(true)
	wg.Wait()
	eventually(t, "all questions are over", func() bool {
		f.flights.mu.Lock()
		defer f.flights.mu.Unlock()
		return len(f.flights.open) == 0 && f.flights.waiting == 0
	})
}
