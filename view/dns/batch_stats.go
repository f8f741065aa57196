package dns

import (
	"net/netip"
	"sync/atomic"
	"time"
	"unsafe"
)

// counted is answered for one answer of a batch: how long it took is known
// only when the batch is sent, and noted by tookAll. Both are for the one
// worker of a socket.
func (s *Server) counted(st *stats, from netip.AddrPort, q *query, f *finding, size int, resp []byte, start time.Time) {
	b := &st.batch
	request, response := st.counters(is4(from), q.qtype, f.zone, f.rcode)
	b.add(request, 1)
	if response != nil {
		b.add(response, 1)
	}
	asked, told := &st.asked[f.zone], &st.told[f.zone]
	b.add(asked.place(size), 1)
	b.add(&asked.sum, uint64(size))
	b.add(told.place(len(resp)), 1)
	b.add(&told.sum, uint64(len(resp)))
	if q.edns && q.do {
		b.add(&st.do[f.zone], 1)
	}
	if mode := s.queries.mode.Load(); mode != logOff && s.queries.wants(mode, f.rcode, &st.logged) {
		s.queries.add(from, st.proto, q, f, f.rcode, size, resp, time.Since(start))
	}
}

// tookAll notes how long a batch took, for each of its answers, and clears n.
func (s *stats) tookAll(n *[zones]uint64, took time.Duration) {
	for z := range n {
		if n[z] > 0 {
			s.took(zoneID(z), n[z], took)
			n[z] = 0
		}
	}
	s.batch.flush()
}

// bundle adds to counters what a batch added to them, once for each counter:
// an atomic addition costs as much as a tenth of an answer. The questions of a
// batch are much alike, so few counters are hit many times.
type bundle struct {
	slots [bundleSlots]struct {
		to *atomic.Uint64
		n  uint64
	}
	used [bundleSlots]uint8
	k    int
}

const bundleSlots = 64

func (b *bundle) add(to *atomic.Uint64, n uint64) {
	// Neighbours in memory are neighbours here: the place is only a hint.
	i := uintptr(unsafe.Pointer(to)) / unsafe.Sizeof(*to) % bundleSlots
	s := &b.slots[i]
	if s.to != to {
		if s.to == nil {
			b.used[b.k] = uint8(i)
			b.k++
		} else {
			s.to.Add(s.n)
		}
		s.to, s.n = to, 0
	}
	s.n += n
}

func (b *bundle) flush() {
	for _, i := range b.used[:b.k] {
		s := &b.slots[i]
		s.to.Add(s.n)
		s.to, s.n = nil, 0
	}
	b.k = 0
}
