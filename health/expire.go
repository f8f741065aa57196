package health

import "time"

// Expire tells what happened up to now, sorted by key. Call it at Next, or
// whenever you like.
func (ls *Leases) Expire(now time.Time) []Transition {
	ls.expiring.Lock()
	defer ls.expiring.Unlock()
	t := ls.ns(now)
	var told []Transition
	var judge []*lease
	// First everything that is due is counted, then each is judged, so that
	// the verdict does not depend on the order.
	for i := range ls.shards {
		s := &ls.shards[i]
		s.mu.Lock()
		for _, l := range s.revived {
			l.told = false
			if l.state != removed {
				told = append(told, ls.transition(l, Revived, l.since))
			}
		}
		s.revived = nil
		for len(s.queue) > 0 && s.queue[0].due <= t {
			if l := s.queue[0]; s.look(l, t) {
				judge = append(judge, l)
			}
		}
		s.mu.Unlock()
	}
	for _, l := range judge {
		s := ls.shard(l.key)
		s.mu.Lock()
		if kind, at, changed := ls.judge(s, l, t); changed {
			told = append(told, ls.transition(l, kind, at))
		}
		s.mu.Unlock()
	}
	sortTransitions(told)
	return told
}

func (ls *Leases) transition(l *lease, k Kind, at int64) Transition {
	return Transition{
		Key: l.key, Group: l.group.name, Service: l.service.name, Kind: k,
		At: ls.time(at), Last: ls.time(l.last), TTL: time.Duration(l.ttl),
	}
}

// look takes a lease that is due from the head of the queue, counts it, and
// says whether it must be judged; then it is not queued.
func (s *shard) look(l *lease, t int64) bool {
	switch {
	case l.state == held:
		s.queue.remove(l)
		return true
	case l.state == expired: // its window is over
		s.queue.remove(l)
		l.account(false, false, false)
		return false
	case l.last+l.ttl <= t:
		s.queue.remove(l)
		l.state = deciding
		l.account(true, true, false)
		return true
	case l.silentAt() <= t:
		l.account(true, !l.late, true)
		s.queue.move(l, l.last+l.ttl)
	default: // renewed since it was queued
		s.queue.move(l, l.silentAt())
	}
	return false
}

// judge decides about a lease that ran out, or that is held and was looked at
// again. It may have been renewed or removed in between.
func (ls *Leases) judge(s *shard, l *lease, t int64) (k Kind, at int64, changed bool) {
	if l.index >= 0 {
		return 0, 0, false
	}
	again := t + l.ttl
	switch l.state {
	case deciding:
		at = l.last + l.ttl
		l.since = at
		if ls.mass(l.group) {
			l.state, l.until, l.clear, l.kept = held, t+int64(ls.cfg.HoldFor), false, false
			s.queue.push(l, min(again, l.until))
			return WentHeld, at, true
		}
		l.state = expired
		s.queue.push(l, again) // for the end of its window
		return WentOut, at, true

	case held:
		over := !ls.mass(l.group)
		switch {
		case l.kept || !over && t >= l.until:
			l.clear = false
			if l.service.alive.Load() > 0 {
				l.state, l.since = expired, t // not queued: it counts as out until renewed or removed
				return WentOut, t, true
			}
			l.kept = true
		case !over:
			l.clear = false
			again = min(again, l.until)
		case l.clear:
			l.state, l.since = expired, t
			s.queue.push(l, again)
			return WentOut, t, true
		default:
			l.clear = true
		}
		s.queue.push(l, again)
	}
	return 0, 0, false
}

// mass says whether there is a mass expiry in the group.
func (ls *Leases) mass(g *group) bool {
	size, out := g.size.Load(), g.out.Load()
	return size >= int64(ls.cfg.MinGroup) && out >= int64(ls.cfg.MinOut) && float64(out) > ls.cfg.Share*float64(size)
}
