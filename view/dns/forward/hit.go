package forward

import "time"

// popular is how often an entry must have been asked for to be renewed before
// its end.
const popular = 3

// Cached answers a question from the cache: q is the request, its question ends
// at end, and the answer, at most limit bytes long, is appended to buf. It
// neither blocks nor, if buf has room, allocates. The answer is complete: OPT
// if the question had one, cut with TC if it must be.
func (f *Forwarder) Cached(q []byte, end int, limit int, buf []byte) ([]byte, bool) {
	var qu question
	if !qu.parse(q, end) {
		return buf, false
	}
	hash := f.cache.hash(qu.key())
	s := f.cache.shard(hash)
	n := s.find(hash, qu.key())
	if n == nil {
		s.misses.Add(1)
		return buf, false
	}
	now := f.now().UnixNano()
	e := n.entry.Load()
	if now < e.expires {
		if e.denial {
			s.denials.Add(1)
		} else {
			s.hits.Add(1)
		}
		n.touch()
		f.prefetch(s, n, e, now)
		return e.answer(buf, q, &qu, limit, now, false), true
	}
	// Out of date: given at once only while upstreams are known to fail.
	if failed := n.failed.Load(); failed != 0 && f.running.Load() && f.usable(e, now) {
		if now-failed > int64(recheck) {
			f.renew(n, now)
		}
		n.touch()
		s.hits.Add(1)
		s.stales.Add(1)
		return e.answer(buf, q, &qu, limit, now, true), true
	}
	s.misses.Add(1)
	return buf, false
}

// usable says whether an entry that is out of date may still be given.
func (f *Forwarder) usable(e *entry, now int64) bool {
	return !e.failed() && now-e.expires < f.staleFor.Load()
}

// prefetch renews an entry in the last tenth of its life if it is popular.
func (f *Forwarder) prefetch(s *shard, n *node, e *entry, now int64) {
	asked := e.asked.Load()
	if asked < popular {
		e.asked.Store(asked + 1)
		return
	}
	if f.prefetches.Load() && (e.expires-now)*10 < e.expires-e.stored && f.renew(n, now) {
		s.prefetches.Add(1)
	}
}

// renew lets Run ask for an entry again, at most once a second.
func (f *Forwarder) renew(n *node, now int64) bool {
	last := n.renewing.Load()
	if last != 0 && now-last < int64(time.Second) || !n.renewing.CompareAndSwap(last, now) {
		return false
	}
	select {
	case f.renewals <- n:
		return true
	default:
		return false
	}
}
