package balance

import (
	"slices"
	"time"
)

// verdict sums up a Group's ejections. It holds until one of them ends or a new
// one comes.
type verdict struct {
	changes uint32
	until   time.Duration
	panic   bool
	// near is how many of 2^32 picks go to near members.
	near uint64
}

// care is what a pick looks at when something is wrong.
type care struct {
	now   time.Duration
	panic bool
	ramp  bool
	well  bool // no ejections, no failures that count
}

// enough is the part of the near members that can take what is meant for all
// of them: with less healthy weight than that some requests go further away.
const enough = 0.7

// careful picks when some member is ejected, failing, starting or tried.
func (g *Group) careful(q *Query) int {
	c := care{now: q.now()}
	c.well = g.health.calm(c.now)
	if end := g.ramp.Load(); end != 0 {
		if int64(c.now) < end {
			c.ramp = true
		} else {
			g.ramp.CompareAndSwap(end, 0)
		}
	}
	near := g.near.n > 0
	if !c.well {
		v := g.judge(c.now)
		c.panic = v.panic
		near = near && (v.near >= 1<<32 || q.random()>>32 < v.near)
	}
	if i := g.choose(q, near, &c); i >= 0 {
		return int(i)
	}
	// The draws found none: look at every one.
	if near {
		if i, fit := g.search(q, &c, g.nearby); fit {
			return i
		}
	}
	i, _ := g.search(q, &c, nil)
	return i
}

// search gives the one of these (nil: all) with the least load of those that may
// be used; if there is none, any that was not tried, for an ejected one is better than
// nobody; -1 if all were.
func (g *Group) search(q *Query, c *care, list []int32) (index int, fit bool) {
	n := len(list)
	if list == nil {
		n = len(g.members)
	}
	best, last := -1, -1
	from := int(q.random() % uint64(n))
	for k := range n {
		i := (from + k) % n
		if list != nil {
			i = int(list[i])
		}
		m := &g.members[i]
		if m.weight == 0 || slices.Contains(q.Tried, m.load) {
			continue
		}
		if last < 0 {
			last = i
		}
		if !c.out(m) && (best < 0 || g.load(m, c)*int64(g.members[best].weight) < g.load(&g.members[best], c)*int64(m.weight)) {
			best = i
		}
	}
	if best >= 0 {
		return best, true
	}
	return last, false
}

// out says that a member is ejected or on probation. In a panic that means
// nothing but for those that could not be reached: requests would not arrive.
// These get a single one now and then, to find out soon who is back.
func (c *care) out(m *member) bool {
	switch l := m.load; {
	case c.well:
		return false
	case c.panic && !l.hard.Load():
		return false
	case time.Duration(l.until.Load()) <= c.now:
		return l.onProbation(c.now)
	case c.panic:
		return c.now-time.Duration(l.last.Load()) < knock || l.active.Load() > 0
	default:
		return true
	}
}

// knock is how often one that cannot be reached is tried in a panic.
const knock = time.Second

// fits says whether a drawn member may be used.
func (c *care) fits(g *Group, i int32, q *Query) bool {
	m := &g.members[i]
	if c.out(m) || slices.Contains(q.Tried, m.load) {
		return false
	}
	if !c.ramp || m.since == 0 {
		return true
	}
	age := c.now - m.since
	if age >= g.opt.SlowStart {
		return true
	}
	// Taking a draw with this chance only has the effect of a smaller weight.
	part := max(0.1, float64(age)/float64(g.opt.SlowStart))
	return float64(q.random()>>11)/(1<<53) < part
}

// judge gives the verdict, and makes a new one if it is out of date.
func (g *Group) judge(now time.Duration) *verdict {
	changes := g.health.changes.Load()
	if v := g.verdict.Load(); v != nil && v.changes == changes && now < v.until {
		return v
	}
	v := &verdict{changes: changes, until: 1<<63 - 1, near: 1 << 32}
	var members, out int
	for i := range g.members {
		m := &g.members[i]
		if m.weight == 0 {
			continue
		}
		members++
		if until := time.Duration(m.load.until.Load()); until > now {
			out++
			v.until = min(v.until, until)
		}
	}
	v.panic = out*100 > members*g.health.cfg.Panic
	var total, healthy float64
	for _, i := range g.nearby {
		m := &g.members[i]
		total += float64(m.weight)
		if time.Duration(m.load.until.Load()) <= now {
			healthy += float64(m.weight)
		}
	}
	if total > 0 && healthy < enough*total {
		v.near = uint64(healthy / total / enough * (1 << 32))
	}
	g.verdict.Store(v)
	return v
}
