package balance

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"
)

// Algorithm is a way to choose.
type Algorithm uint8

// The algorithms of a Group.
const (
	// TwoRandom draws two by weight and takes the one with fewer requests for
	// its weight: nearly as even as LeastRequest, at a cost that does not grow.
	TwoRandom Algorithm = iota
	InTurn              // round robin, smooth if weighted
	AnyRandom           // by weight only
	// LeastRequest takes the one with the fewest requests for its weight of all.
	LeastRequest
	// EWMA draws two and takes the one that is expected to answer sooner.
	EWMA
	// RingHash and Maglev map equal hashes to equal backends, and move few
	// hashes when the list changes. Maglev is more even and faster, RingHash
	// moves fewer.
	RingHash
	Maglev
)

// ParseAlgorithm reads the name of one; "" is TwoRandom.
func ParseAlgorithm(name string) (Algorithm, error) {
	switch name {
	case "", "random_two", "p2c":
		return TwoRandom, nil
	case "round_robin":
		return InTurn, nil
	case "random":
		return AnyRandom, nil
	case "least_request", "least_conn":
		return LeastRequest, nil
	case "ewma":
		return EWMA, nil
	case "ring_hash":
		return RingHash, nil
	case "maglev":
		return Maglev, nil
	}
	return 0, fmt.Errorf("balance: algorithm %q is not known; use random_two, round_robin, random, least_request, ewma, ring_hash or maglev", name)
}

// String is the name that ParseAlgorithm reads.
func (a Algorithm) String() string {
	switch a {
	case InTurn:
		return "round_robin"
	case AnyRandom:
		return "random"
	case LeastRequest:
		return "least_request"
	case EWMA:
		return "ewma"
	case RingHash:
		return "ring_hash"
	case Maglev:
		return "maglev"
	default:
		return "random_two"
	}
}

// Member is one backend of a Group.
type Member struct {
	Weight uint16
	Load   *Load
	// Hash tells backends apart for RingHash and Maglev: [Hash] of a name that
	// stays.
	Hash uint64
	// Near: preferred while enough of the near ones can take requests; but not
	// by RingHash and Maglev, whose hashes lead everywhere to the same.
	Near bool
	// Since is when it came, for slow start; 0: it was always there.
	Since time.Duration
}

// Options are how a Group chooses.
type Options struct {
	Algorithm Algorithm
	// Bounded: with RingHash and Maglev nobody has more than this many per cent
	// of the mean load; 0: 125, below 0: no bound.
	Bounded int
	// Subset: with RingHash a hash leads to so many members, of which the one with the
	// least load for its weight takes a request; up to 32. 0 and 1: to one.
	Subset int
	// SlowStart: a new member's share grows from a tenth to the whole in this
	// time; 0: at once. RingHash and Maglev have none, as it would move hashes.
	SlowStart time.Duration
	// Start is where InTurn begins.
	Start uint64
}

// Query is what one pick depends on. The zero value is a good one.
type Query struct {
	Hash  uint64  // for RingHash and Maglev
	Tried []*Load // never these
	// Clock gives the time, if the pick depends on it.
	Clock func() time.Duration
	// Rand is the source of chance; nil: the process's.
	Rand *rand.Rand
}

// Group chooses among backends by weight and by what is known of them. Its list
// is immutable: a changed list is a new Group with the same Health and Loads.
type Group struct {
	opt     Options
	health  *Health
	members []member
	all     table
	near    table // n = 0: nobody is nearer than others
	turns   *RoundRobin
	turnsN  *RoundRobin // of the near ones: an index into nearby
	nearby  []int32
	hashes  hashes

	ramp    atomic.Int64 // until when some member starts slowly; 0: none
	verdict atomic.Pointer[verdict]
}

type member struct {
	load   *Load
	weight uint32
	since  time.Duration
}

// NewGroup makes a Group. Members of weight 0 are never picked.
func NewGroup(list []Member, h *Health, o Options) *Group {
	g := &Group{opt: o, health: h, members: make([]member, len(list))}
	var usable []int32
	weights, nearWeights := make([]uint16, len(list)), []uint16(nil)
	for i, m := range list {
		g.members[i] = member{m.Load, uint32(m.Weight), m.Since}
		weights[i] = m.Weight
		if m.Weight == 0 {
			continue
		}
		usable = append(usable, int32(i))
		if m.Near {
			g.nearby, nearWeights = append(g.nearby, int32(i)), append(nearWeights, m.Weight)
		}
		if m.Since > 0 && o.SlowStart > 0 {
			g.ramp.Store(max(g.ramp.Load(), int64(m.Since+o.SlowStart)))
		}
	}
	if len(usable) == 0 {
		return g
	}
	g.all = newTable(g.members, usable)
	if len(g.nearby) == len(usable) {
		g.nearby = nil
	}
	if len(g.nearby) > 0 {
		g.near = newTable(g.members, g.nearby)
	}
	switch o.Algorithm {
	case InTurn:
		g.turns = NewRoundRobin(weights, o.Start)
		if len(g.nearby) > 0 {
			g.turnsN = NewRoundRobin(nearWeights, o.Start)
		}
	case RingHash:
		g.hashes = newRing(list)
	case Maglev:
		g.hashes = newMaglev(list)
	}
	return g
}

// Len is the number of members.
func (g *Group) Len() int { return len(g.members) }

// Pick gives the index of a member, -1 if there is none that was not tried. It
// takes no lock, but for InTurn with weights that have a long common turn.
func (g *Group) Pick(q *Query) int {
	switch g.all.n {
	case 0:
		return -1
	case 1:
		i := g.all.draw(0)
		if len(q.Tried) > 0 && slices.Contains(q.Tried, g.members[i].load) {
			return -1
		}
		return int(i)
	}
	if len(q.Tried) > 0 || g.ramp.Load() != 0 || g.health.troubled.Load() != 0 {
		return g.careful(q)
	}
	if i := g.choose(q, g.near.n > 0, nil); i >= 0 {
		return int(i)
	}
	return g.careful(q)
}

// choose picks when nothing is wrong, or, with c, with an eye on what is.
func (g *Group) choose(q *Query, near bool, c *care) int32 {
	t := &g.all
	if near {
		t = &g.near
	}
	switch g.opt.Algorithm {
	case InTurn:
		return g.inTurn(q, near, c)
	case AnyRandom:
		return g.drawFit(q, t, c, -1)
	case LeastRequest:
		return g.least(q, near, g.drawFit(q, t, c, -1), c)
	case RingHash, Maglev:
		return g.follow(q, c)
	}
	var a, b int32
	if c == nil && t.marks == nil && t.n > 1 {
		a, b = t.pair(q.random())
	} else {
		if a = g.drawFit(q, t, c, -1); a < 0 || t.n == 1 {
			return a
		}
		if b = g.drawFit(q, t, c, a); b < 0 {
			return a
		}
	}
	if g.opt.Algorithm == EWMA {
		return g.sooner(q, a, b, c)
	}
	x, y := &g.members[a], &g.members[b]
	if g.load(y, c)*int64(x.weight) < g.load(x, c)*int64(y.weight) {
		return b
	}
	return a
}

// draws is how often a draw is repeated that gave nobody fit.
const draws = 6

// drawFit draws one that is fit and is not the other one, if it finds it: -1 if
// not.
func (g *Group) drawFit(q *Query, t *table, c *care, not int32) int32 {
	for range draws {
		u := q.random()
		if i := t.draw(u); i != not && (c == nil || c.fits(g, i, q)) {
			return i
		}
	}
	if c == nil && not < 0 {
		return t.draw(q.random())
	}
	return -1
}

func (q *Query) random() uint64 {
	if q.Rand != nil {
		return q.Rand.Uint64()
	}
	return rand.Uint64()
}

func (q *Query) now() time.Duration {
	if q.Clock == nil {
		return 0
	}
	return q.Clock()
}

// load is what a member has to do, with what its failures stand for.
func (g *Group) load(m *member, c *care) int64 {
	n := m.load.active.Load()
	if c != nil {
		n += m.load.penalty(c.now)
	}
	return int64(n)
}

// inTurn gives the next that is fit.
func (g *Group) inTurn(q *Query, near bool, c *care) int32 {
	for range 2 * draws {
		var i int32
		if near {
			i = g.nearby[g.turnsN.Next()]
		} else {
			i = int32(g.turns.Next())
		}
		if c == nil || c.fits(g, i, q) {
			return i
		}
	}
	return -1
}

// least looks at all, beginning with one drawn by weight, so that those with
// the same load are taken by weight.
func (g *Group) least(q *Query, near bool, best int32, c *care) int32 {
	if best < 0 {
		return -1
	}
	m := &g.members[best]
	low, weight := g.load(m, c), int64(m.weight)
	look := func(i int32) {
		m := &g.members[i]
		if m.weight == 0 || i == best {
			return
		}
		if n := g.load(m, c); n*weight < low*int64(m.weight) && (c == nil || c.fits(g, i, q)) {
			best, low, weight = i, n, int64(m.weight)
		}
	}
	if near {
		for _, i := range g.nearby {
			look(i)
		}
		return best
	}
	// Nobody has less than nothing: an idle backend ends the search.
	for i := 0; i < len(g.members) && low > 0; i++ {
		look(int32(i))
	}
	return best
}

// sooner compares what two are expected to take.
func (g *Group) sooner(q *Query, a, b int32, c *care) int32 {
	now := q.now()
	x, y := &g.members[a], &g.members[b]
	if g.wait(y, now, c)*float64(x.weight) < g.wait(x, now, c)*float64(y.weight) {
		return b
	}
	return a
}

func (g *Group) wait(m *member, now time.Duration, c *care) float64 {
	n := float64(g.load(m, c))
	l := float64(m.load.Latency(now))
	if l == 0 {
		if n == 0 {
			return 0 // nothing is known of it: find out, with one request
		}
		l = float64(time.Second)
	}
	return l * (n + 1)
}
