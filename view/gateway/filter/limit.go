package filter

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"sync"

	"github.com/fingerpost/fingerpost/view/gateway/route"
)

// limit bounds what one client address does with the rules of one object. It
// is the leaky bucket of nginx' limit_req with nodelay: a request adds 1000 to
// the excess, which drains with the rate; one that would lift it above the burst
// is refused and adds nothing.
type limit struct {
	zone        uint64
	rates       [2]rate
	n           int
	connections int
	except      ranges
	status      int
}

// rate is in thousandths of a request.
type rate struct {
	perSecond, burst int64
}

func newLimit(r *route.Rule, l *route.Limit) *limit {
	// The zone is that of the object, so that a client has one budget for all its
	// rules, and keeps it when they change.
	out := &limit{connections: l.Connections, except: newRanges(l.Except), status: l.Status}
	out.zone = fnv(r.Origin.Kind + "/" + r.Origin.Namespace + "/" + r.Origin.Name)
	if out.status < 400 || out.status > 599 {
		out.status = 503
	}
	burst := int64(l.Burst)
	if burst <= 0 {
		burst = 5
	}
	if l.RPS > 0 {
		out.rates[out.n] = rate{int64(l.RPS) * 1000, int64(l.RPS) * burst * 1000}
		out.n++
	}
	if l.RPM > 0 {
		out.rates[out.n] = rate{int64(l.RPM) * 1000 / 60, int64(l.RPM) * burst * 1000}
		out.n++
	}
	return out
}

func fnv(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}

func (l *limit) admit(x *Exchange) *Answer {
	if l.except.has(x.Client) {
		return nil
	}
	t := x.set.limits
	if l.connections > 0 {
		key := t.key(l.zone, 2, x.Client)
		if !t.hold(key, int32(min(l.connections, 1<<30))) {
			return x.reply(l.status, "limit-connections")
		}
		x.Done() // of an earlier exchange, should somebody have forgotten it
		x.held, x.holds = key, true
	}
	for i := range l.n {
		if !t.take(t.key(l.zone, uint64(i), x.Client), l.rates[i], x.Now.UnixMilli()) {
			x.Done()
			return x.reply(l.status, "limit-rate")
		}
	}
	return nil
}

// limits remembers clients in a table of fixed size: the key says in which set
// of ways it may be, and there the one not seen for longest makes room. Clients
// with open connections stay. If all ways of a set are such, a newcomer is not
// counted: a limit protects, and must not become the way to lock others out.
type limits struct {
	seed maphash.Seed
	sets []slotSet
}

const ways = 8

type slotSet struct {
	mu    sync.Mutex
	slots [ways]slot
}

type slot struct {
	key    uint64
	last   int64 // ms, 0: empty
	excess int64
	open   int32
}

func newLimits(slots int) *limits {
	n := 1
	for n*ways < slots {
		n *= 2
	}
	return &limits{seed: maphash.MakeSeed(), sets: make([]slotSet, n)}
}

// key is of a client in a zone. An IPv6 client is its /64: nobody has fewer.
// The seed is secret, so that nobody can choose addresses that share a set.
func (t *limits) key(zone, kind uint64, a netip.Addr) uint64 {
	var b [32]byte
	a16 := a.As16()
	if a.Is6() {
		clear(a16[8:])
	}
	copy(b[:], a16[:])
	binary.LittleEndian.PutUint64(b[16:], zone)
	binary.LittleEndian.PutUint64(b[24:], kind)
	return maphash.Bytes(t.seed, b[:]) | 1 // never 0
}

func (t *limits) set(key uint64) *slotSet { return &t.sets[key>>8&uint64(len(t.sets)-1)] }

// find gives the slot of a key, or one that it may have; nil if none is free.
func (s *slotSet) find(key uint64) *slot {
	var oldest *slot
	for i := range s.slots {
		c := &s.slots[i]
		if c.key == key {
			return c
		}
		if c.open == 0 && (oldest == nil || c.last < oldest.last) {
			oldest = c
		}
	}
	if oldest != nil {
		*oldest = slot{}
	}
	return oldest
}

// take counts a request.
func (t *limits) take(key uint64, r rate, now int64) bool {
	s := t.set(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.find(key)
	if c == nil {
		return true
	}
	if c.key == 0 {
		c.key, c.last = key, now
		return true
	}
	elapsed := max(now-c.last, 0)
	if elapsed > 1<<32 {
		elapsed = 1 << 32 // no overflow; it is empty by then
	}
	excess := max(c.excess-r.perSecond*elapsed/1000, 0) + 1000
	if excess > r.burst {
		return false
	}
	c.excess, c.last = excess, now
	return true
}

// hold counts a connection.
func (t *limits) hold(key uint64, most int32) bool {
	s := t.set(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.find(key)
	if c == nil {
		return true
	}
	if c.open >= most {
		return false
	}
	c.key = key
	c.open++
	return true
}

func (t *limits) release(key uint64) {
	s := t.set(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.slots {
		if c := &s.slots[i]; c.key == key && c.open > 0 {
			if c.open--; c.open == 0 {
				*c = slot{}
			}
			return
		}
	}
}
