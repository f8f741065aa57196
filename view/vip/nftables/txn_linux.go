package nftables

import (
	"slices"
	"time"

	nft "github.com/google/nftables"
)

// txn is what one transaction of ours does.
type txn struct {
	d     *Driver
	del   []element
	add   []element
	plans [2][]plan
	ahead *txn // one that is on its way to the kernel; may be nil
}

func (d *Driver) newTxn() *txn { return &txn{d: d} }

// reuse empties the transaction, and keeps its memory.
func (t *txn) reuse() *txn {
	*t = txn{d: t.d, del: t.del[:0], add: t.add[:0]}
	return t
}

// need makes the chain of a plan be there.
func (t *txn) need(p plan, f *family) {
	i := index(f.v6)
	if t.d.plans[i][p] || slices.Contains(t.plans[i], p) || t.ahead != nil && slices.Contains(t.ahead.plans[i], p) {
		return
	}
	t.plans[i] = append(t.plans[i], p)
}

// replace makes elements of the second kind out of those of the first.
func (t *txn) replace(was, will []element) {
	var old map[place]content
	if len(was) > 0 {
		old = make(map[place]content, len(was))
	}
	for _, e := range was {
		if !e.set.counted() {
			old[e.place] = e.content
		}
	}
	for _, e := range will {
		if e.set.counted() {
			if t.d.counts[e.place]++; t.d.counts[e.place] == 1 {
				t.put(e)
			}
			continue
		}
		c, had := old[e.place]
		delete(old, e.place)
		if had && c == e.content {
			continue
		}
		if had {
			t.del = append(t.del, element{e.place, c})
		}
		t.put(e)
	}
	for _, e := range was {
		if e.set.counted() {
			if t.d.counts[e.place]--; t.d.counts[e.place] == 0 {
				delete(t.d.counts, e.place)
				t.del = append(t.del, e)
			}
			continue
		}
		if _, left := old[e.place]; left {
			t.del = append(t.del, e)
			delete(old, e.place)
		}
	}
}

// put adds an element that is not there, unless an earlier process left it.
func (t *txn) put(e element) {
	if t.d.adopted != nil {
		c, there := t.d.adopted[e.place]
		delete(t.d.adopted, e.place)
		if there && c == e.content {
			return
		}
		if there {
			t.del = append(t.del, element{e.place, c})
		}
	}
	t.add = append(t.add, e)
}

func (t *txn) empty() bool {
	return len(t.del)+len(t.add)+len(t.plans[0])+len(t.plans[1]) == 0
}

// fill puts the transaction into messages: what goes, the chains, what comes.
func (t *txn) fill(c *nft.Conn) error {
	if err := t.elements(c, t.del, deleteElements); err != nil {
		return err
	}
	for i, plans := range t.plans {
		if len(plans) > 0 {
			if err := t.d.families[i].addPlans(c, plans); err != nil {
				return err
			}
		}
	}
	return t.elements(c, t.add, addElements)
}

// elements groups elements by set. What the messages are made of is copied into
// them, so a part of them at a time is in memory.
func (t *txn) elements(c *nft.Conn, all []element, do func(*nft.Conn, *nft.Set, []nft.SetElement) error) error {
	type group struct {
		v6  bool
		set setName
	}
	var order []group
	groups := map[group][]int32{}
	for i := range all {
		g := group{all[i].v6, all[i].set}
		if groups[g] == nil {
			order = append(order, g)
		}
		groups[g] = append(groups[g], int32(i))
	}
	most := min(len(all), elementsPerMessage)
	part := make([]nft.SetElement, 0, most)
	bytes := make([]byte, 0, most*64)
	for _, g := range order {
		set := t.d.families[index(g.v6)].sets[g.set]
		for some := range slices.Chunk(groups[g], elementsPerMessage) {
			part, bytes = part[:0], bytes[:0]
			keep := func(s string) []byte {
				if s == "" {
					return nil
				}
				bytes = append(bytes, s...)
				return bytes[len(bytes)-len(s) : len(bytes) : len(bytes)]
			}
			for _, i := range some {
				e := &all[i]
				part = append(part, nft.SetElement{Key: keep(e.key), Val: keep(e.val), KeyEnd: keep(e.end)})
			}
			if err := do(c, set, part); err != nil {
				return err
			}
		}
	}
	return nil
}

// commit sends a transaction and notes what is true since.
func (d *Driver) commit(t *txn) error {
	if t.empty() {
		return nil
	}
	return d.landed(d.send(t.fill), t.done)
}

// done notes the plans that are there since.
func (t *txn) done() {
	for i, plans := range t.plans {
		for _, p := range plans {
			t.d.plans[i][p] = true
		}
	}
}

// transact commits, and looks whether others changed the ruleset meanwhile.
func (d *Driver) transact(fill func(*nft.Conn) error, done func()) error {
	return d.landed(d.send(fill), done)
}

// sent is how a transaction went.
type sent struct {
	err    error
	gen    uint32
	genErr error
}

// send commits. It needs the connection only, so that the next transaction can
// be prepared meanwhile.
func (d *Driver) send(fill func(*nft.Conn) error) (s sent) {
	began := time.Now()
	if s.err = d.k.commit(fill); s.err != nil {
		d.metrics.refused()
		return s
	}
	d.metrics.committed(time.Since(began))
	s.gen, s.genErr = d.k.generation()
	return s
}

// landed notes how a transaction went.
func (d *Driver) landed(s sent, done func()) error {
	if s.err != nil {
		return s.err
	}
	done()
	if s.genErr == nil {
		d.strange = d.strange || s.gen != d.gen+1
		d.gen = s.gen
	}
	return nil
}

// desired gives all elements that should be there.
func (d *Driver) desired() map[place]content {
	out := make(map[place]content, 16*len(d.fronts))
	var list []element
	for _, p := range d.fronts {
		list = p.elements(&d.shape, list[:0])
		for _, e := range list {
			out[e.place] = e.content
		}
	}
	return out
}

// wanted gives the plans that frontends of a family need.
func (d *Driver) wanted(v6 bool) []plan {
	seen := map[plan]bool{}
	var out []plan
	add := func(p plan) {
		if !seen[p] {
			seen[p] = true
			out = append(out, p)
		}
	}
	for at, p := range d.fronts {
		if at.Addr.Addr().Is6() != v6 {
			continue
		}
		in, outside := p.plans()
		add(in)
		if outside != nil {
			add(*outside)
		}
	}
	return out
}
