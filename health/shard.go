package health

import "sync"

type leaseState uint8

const (
	alive    leaseState = iota
	deciding            // ran out; the Expire that found it has not judged it yet
	held
	expired
	removed
)

// lease is one row. All times are nanoseconds after Leases.base.
type lease struct {
	key     string
	group   *group
	service *service
	ttl     int64
	last    int64 // last heartbeat
	since   int64 // when state was reached

	due   int64 // when Expire looks at it; never later than needed
	index int   // in the queue; -1: not queued

	state leaseState
	late  bool // it is known to renew after silentAt
	told  bool // its revival waits in shard.revived

	// What it is counted as, see account.
	member, out, live bool

	// While held.
	until int64 // when the hold ends
	clear bool  // the mass expiry was over when it was last looked at
	kept  bool  // the hold ended, and it is kept because its service has nobody else
}

// silentAt is when the lease counts as out although it has time left.
func (l *lease) silentAt() int64 { return l.last + l.ttl/4*3 }

// account sets what the lease counts as: a member of its group, one that is
// out, one of its service's that are alive.
func (l *lease) account(member, out, live bool) {
	add := func(was *bool, is bool) int64 {
		switch {
		case is == *was:
			return 0
		case is:
			*was = true
			return 1
		default:
			*was = false
			return -1
		}
	}
	if n := add(&l.member, member); n != 0 {
		l.group.size.Add(n)
	}
	if n := add(&l.out, out); n != 0 {
		l.group.out.Add(n)
	}
	if n := add(&l.live, live); n != 0 {
		l.service.alive.Add(n)
	}
}

// shard is a part of the table with its own lock.
type shard struct {
	mu      sync.Mutex
	leases  map[string]*lease
	queue   queue
	revived []*lease

	_ [64]byte // its neighbours' locks are not on its cache line
}

// renew is called with the lock held. The common case touches the lease only.
func (s *shard) renew(l *lease, t int64) Renewal {
	gap := t - l.last
	switch {
	case gap >= l.ttl/4*3:
		l.late = l.state == alive // what renewed after it ran out says nothing about its habits
	case gap < l.ttl/2:
		l.late = false
	}
	l.last = max(l.last, t)
	if l.state == alive && !l.out {
		return Renewed
	}
	was := l.state
	l.account(true, false, true)
	l.state = alive
	if was == alive {
		return Renewed // queued for its old deadline, which is soon enough
	}
	s.queue.move(l, l.silentAt())
	if was == deciding {
		return Renewed // just in time
	}
	l.since = t
	l.clear, l.kept = false, false
	if !l.told {
		l.told = true
		s.revived = append(s.revived, l)
	}
	return Returned
}

// queue is a heap by due.
type queue []*lease

func (q *queue) push(l *lease, due int64) {
	l.due, l.index = due, len(*q)
	*q = append(*q, l)
	q.up(l.index)
}

// move queues the lease for another time, whether it is queued or not.
func (q *queue) move(l *lease, due int64) {
	if l.index < 0 {
		q.push(l, due)
		return
	}
	l.due = due
	if !q.down(l.index) {
		q.up(l.index)
	}
}

func (q *queue) remove(l *lease) {
	i, n := l.index, len(*q)-1
	if i < 0 {
		return
	}
	q.swap(i, n)
	(*q)[n] = nil
	*q = (*q)[:n]
	l.index = -1
	if i < n && !q.down(i) {
		q.up(i)
	}
}

func (q queue) swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

func (q queue) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if q[parent].due <= q[i].due {
			return
		}
		q.swap(i, parent)
		i = parent
	}
}

func (q queue) down(i int) (moved bool) {
	for {
		least := i
		for c := 2*i + 1; c <= 2*i+2 && c < len(q); c++ {
			if q[c].due < q[least].due {
				least = c
			}
		}
		if least == i {
			return moved
		}
		q.swap(i, least)
		i, moved = least, true
	}
}
