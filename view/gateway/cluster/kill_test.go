package cluster

import (
	"bufio"
	"context"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/fingerpost/fingerpost/balance"
	"github.com/fingerpost/fingerpost/catalog"
)

// fleet is endpoints that can be killed and started.
type fleet struct {
	mu    sync.Mutex
	up    map[netip.AddrPort]bool
	conns map[netip.AddrPort][]net.Conn
	hits  map[netip.AddrPort]int // connections that were refused
	wg    sync.WaitGroup
}

func (f *fleet) dial(_ context.Context, addr netip.AddrPort, _ *TLS) (net.Conn, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.up[addr] {
		f.hits[addr]++
		return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	}
	a, b := net.Pipe()
	f.conns[addr] = append(f.conns[addr], b)
	f.wg.Go(func() {
		defer b.Close()
		r := bufio.NewReader(b)
		for {
			if _, err := r.ReadString('\n'); err != nil {
				return
			}
			if _, err := b.Write([]byte("ok\n")); err != nil {
				return
			}
		}
	})
	return a, nil
}

func (f *fleet) set(addr netip.AddrPort, up bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.up[addr] = up
	if !up {
		for _, c := range f.conns[addr] {
			c.Close()
		}
		f.conns[addr] = nil
	}
}

// TestKilledEndpoints: endpoints die without a word, come back, are removed and
// added under load. With retries as an exchange does them nobody fails, and a
// dead one sees few attempts.
func TestKilledEndpoints(t *testing.T) {
	for _, a := range []balance.Algorithm{balance.TwoRandom, balance.InTurn, balance.LeastRequest, balance.EWMA, balance.Maglev} {
		t.Run(a.String(), func(t *testing.T) { kill(t, a) })
	}
}

func kill(t *testing.T, a balance.Algorithm) {
	const n = 6
	f := &fleet{up: map[netip.AddrPort]bool{}, conns: map[netip.AddrPort][]net.Conn{}, hits: map[netip.AddrPort]int{}}
	w := newWorld(t, Config{Dial: f.dial, CheckAfter: time.Hour})
	w.service()
	var all []catalog.Endpoint
	addr := func(i int) netip.AddrPort { return netip.AddrPortFrom(all[i].Addr, 8080) }
	for i := range n {
		all = append(all, ready(i))
		f.up[addr(i)] = true
	}
	w.update(func(tx *catalog.Txn) { tx.PutEndpoints(webKey, all) })
	c := w.set.Get(Key{Service: webKey, Port: "http", Balance: Balance{Algorithm: a}})

	var requests, failed atomic.Int64
	exchange := func(hash uint64) bool {
		q := Query{Hash: hash}
		for range 12 {
			e, problem := c.Pick(&q)
			if problem != "" {
				t.Log(problem)
				return false
			}
			up, err := e.Connect(t.Context(), time.Minute)
			if err != nil {
				e.Done(Outcome{})
				q.Tried = append(q.Tried, e)
				continue
			}
			l := up.(*line)
			if _, err = l.ask("x"); err == nil {
				l.Release()
				e.Done(Outcome{Result: balance.Success, Status: 200, Latency: time.Microsecond})
				return true
			}
			l.Abort(err)
			if l.Fresh() {
				e.Done(Outcome{Result: balance.Broken})
				q.Tried = append(q.Tried, e)
			} else {
				e.Done(Outcome{})
			}
		}
		t.Log("too many attempts")
		return false
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for k := uint64(g) << 32; ; k++ {
				select {
				case <-stop:
					return
				default:
				}
				requests.Add(1)
				if !exchange(balance.Hash("client") + k) {
					failed.Add(1)
				}
			}
		})
	}
	rnd := rand.New(rand.NewPCG(1, uint64(a)))
	kills := 0
	for range 60 {
		next := requests.Load() + 100
		for requests.Load() < next {
			<-time.After(100 * time.Microsecond)
		}
		i := 2 + rnd.IntN(n-2) // 0 and 1 stay
		switch rnd.IntN(3) {
		case 0:
			f.set(addr(i), false)
			kills++
		case 1:
			f.set(addr(i), true)
		default:
			some := all
			if rnd.IntN(2) == 0 {
				some = append(append([]catalog.Endpoint{}, all[:i]...), all[i+1:]...)
			}
			w.update(func(tx *catalog.Txn) { tx.PutEndpoints(webKey, some) })
		}
	}
	close(stop)
	wg.Wait()
	hits := 0
	for _, h := range f.hits {
		hits += h
	}
	t.Logf("%d requests, %d kills, %d refused connections", requests.Load(), kills, hits)
	if failed.Load() > 0 {
		t.Errorf("%d of %d requests failed", failed.Load(), requests.Load())
	}
	// Each kill, and each return to the catalog of a dead one, costs at most one
	// attempt of each of the eight clients that are under way.
	if most := 60 * 8; hits > most {
		t.Errorf("%d attempts at dead endpoints, want at most %d", hits, most)
	}
	w.set.Keep(func(Key) bool { return false })
	for i := range n {
		f.set(addr(i), false)
	}
	f.wg.Wait()
}
