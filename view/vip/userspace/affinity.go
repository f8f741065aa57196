package userspace

import (
	"container/list"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/vip"
)

// sessions remembers which endpoint each client of a service with session
// affinity was sent to. The key is the service, not the port, so that a client
// that needs two ports of one endpoint gets both from it.
type sessions struct {
	limit int

	mu    sync.Mutex
	byKey map[sessionKey]*list.Element
	used  list.List // of *session, the longest unused first
}

type sessionKey struct {
	service catalog.Key
	client  netip.Addr
}

type session struct {
	key     sessionKey
	addr    netip.AddrPort
	target  catalog.Ref
	expires time.Time
}

func newSessions(limit int) *sessions {
	return &sessions{limit: limit, byKey: map[sessionKey]*list.Element{}}
}

// find gives the index of the client's endpoint, -1 if it has none or may not
// use it any more. It does not count as use: only a connection does.
func (s *sessions) find(f *vip.Frontend, client netip.Addr, all []vip.Backend, now time.Time) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.byKey[sessionKey{f.Service, client}]
	if !ok {
		return -1
	}
	known := e.Value.(*session)
	if !now.Before(known.expires) {
		s.drop(e)
		return -1
	}
	if i := slices.IndexFunc(all, func(b vip.Backend) bool { return b.Addr == known.addr }); i >= 0 {
		return i
	}
	// Another port of the same endpoint. Two endpoints may share an address
	// (processes on one machine), so what stands behind must be the same too.
	return slices.IndexFunc(all, func(b vip.Backend) bool {
		return b.Addr.Addr() == known.addr.Addr() && b.Target == known.target
	})
}

// remember notes where a client went, from now for the service's time-out.
func (s *sessions) remember(f *vip.Frontend, client netip.Addr, b vip.Backend, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := sessionKey{f.Service, client}
	next := &session{k, b.Addr, b.Target, now.Add(f.Affinity)}
	if e, ok := s.byKey[k]; ok {
		e.Value = next
		s.used.MoveToBack(e)
		return
	}
	for s.used.Len() >= s.limit {
		s.drop(s.used.Front())
	}
	s.byKey[k] = s.used.PushBack(next)
}

func (s *sessions) drop(e *list.Element) {
	delete(s.byKey, e.Value.(*session).key)
	s.used.Remove(e)
}

// expire drops what has timed out. Time-outs differ between services, so it
// looks at all.
func (s *sessions) expire(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for e := s.used.Front(); e != nil; {
		next := e.Next()
		if !now.Before(e.Value.(*session).expires) {
			s.drop(e)
		}
		e = next
	}
}

func (s *sessions) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.used.Len()
}
