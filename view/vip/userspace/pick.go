package userspace

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fingerpost/fingerpost/balance"
	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/vip"
)

// route is what a listener does with its clients. It is immutable but for the
// note that a loop was reported.
type route struct {
	front        *vip.Frontend
	any, local   balance.Random
	hits         []*atomic.Uint64 // of front.Backends, then front.Local
	loopReported atomic.Bool
}

// newRoute makes a route that goes on counting where an earlier one was; nil if
// there was none.
func newRoute(f *vip.Frontend, before *route) *route {
	r := &route{front: f, any: weights(f.Backends), local: weights(f.Local)}
	r.hits = make([]*atomic.Uint64, 0, len(f.Backends)+len(f.Local))
	for _, list := range [][]vip.Backend{f.Backends, f.Local} {
		for _, b := range list {
			n := before.counter(b.Addr)
			if n == nil {
				n = r.counter(b.Addr) // the local ones are among the others, too
			}
			if n == nil {
				n = new(atomic.Uint64)
			}
			r.hits = append(r.hits, n)
		}
	}
	return r
}

// counter gives what counts for a backend, nil if there is none yet.
func (r *route) counter(b netip.AddrPort) *atomic.Uint64 {
	if r == nil {
		return nil
	}
	from := 0
	for _, list := range [][]vip.Backend{r.front.Backends, r.front.Local} {
		if i, found := find(list, b); found && from+i < len(r.hits) {
			return r.hits[from+i]
		}
		from += len(list)
	}
	return nil
}

// hit counts a client that a backend has got.
func (r *route) hit(b netip.AddrPort) {
	if n := r.counter(b); n != nil {
		n.Add(1)
	}
}

func find(list []vip.Backend, b netip.AddrPort) (int, bool) {
	return slices.BinarySearchFunc(list, b, func(x vip.Backend, to netip.AddrPort) int { return x.Addr.Compare(to) })
}

func weights(b []vip.Backend) balance.Random {
	w := make([]uint16, len(b))
	for i := range b {
		w[i] = b[i].Weight
	}
	return balance.NewRandom(w)
}

// empty says whether no client at all can be served.
func (r *route) empty() bool { return r.any.Empty() && r.local.Empty() }

// table gives the backends for a client and the means to choose.
func (r *route) table(outside bool) ([]vip.Backend, balance.Random) {
	if outside && r.front.LocalOnly {
		return r.front.Local, r.local
	}
	return r.front.Backends, r.any
}

// has says whether a client may be sent to a backend.
func (r *route) has(outside bool, b netip.AddrPort) bool {
	all, _ := r.table(outside)
	_, found := find(all, b)
	return found
}

// pick chooses a backend that was not tried before; ok is false when none is
// left.
func (d *Driver) pick(r *route, client netip.Addr, outside bool, tried []netip.AddrPort) (b vip.Backend, ok bool) {
	all, random := r.table(outside)
	if random.Empty() {
		return b, false
	}
	f := r.front
	never := func(i int) bool {
		return slices.Contains(tried, all[i].Addr) || d.isLoop(r, all[i].Addr)
	}
	if f.Affinity > 0 && len(tried) == 0 {
		if i := d.sessions.find(f, client, all, d.cfg.Now()); i >= 0 && !never(i) {
			return all[i], true
		}
	}
	// The first draw is nearly always good; only if not, look at all.
	i := random.Next()
	if never(i) || d.suspects.has(f.Proto, all[i].Addr, d.cfg.Now) {
		now := d.cfg.Now()
		i = random.NextExcept(func(i int) bool {
			return never(i) || d.suspects.has(f.Proto, all[i].Addr, func() time.Time { return now })
		})
		if i < 0 {
			i = random.NextExcept(never)
		}
	}
	if i < 0 {
		return b, false
	}
	return all[i], true
}

// isLoop says whether a backend is one of our own sockets, and reports it.
func (d *Driver) isLoop(r *route, to netip.AddrPort) bool {
	if !d.listensOn(spot{to, r.front.Proto}) {
		return false
	}
	if !r.loopReported.Swap(true) {
		msg := "endpoint " + to.String() + " is a virtual IP of this proxy and would send the traffic in a circle; give the address of the program itself"
		d.cfg.Log.Error("userspace: endpoint passed over: it is a loop", "service", r.front.Service, "endpoint", to)
		d.cfg.Events(r.front.Service, ReasonLoop, msg)
	}
	return true
}

// suspects are endpoints that failed a moment ago.
type suspects struct {
	count atomic.Int64 // so that the usual case, none, takes no lock
	mu    sync.Mutex
	until map[spot]time.Time
}

func (s *suspects) add(proto catalog.Protocol, a netip.AddrPort, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.until == nil {
		s.until = map[spot]time.Time{}
	}
	s.until[spot{a, proto}] = now.Add(suspicion)
	s.count.Store(int64(len(s.until)))
}

func (s *suspects) clear(proto catalog.Protocol, a netip.AddrPort) {
	if s.count.Load() == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.until, spot{a, proto})
	s.count.Store(int64(len(s.until)))
}

func (s *suspects) has(proto catalog.Protocol, a netip.AddrPort, now func() time.Time) bool {
	if s.count.Load() == 0 {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	until, ok := s.until[spot{a, proto}]
	return ok && now().Before(until)
}

func (s *suspects) expire(now time.Time) {
	if s.count.Load() == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, until := range s.until {
		if !now.Before(until) {
			delete(s.until, k)
		}
	}
	s.count.Store(int64(len(s.until)))
}
