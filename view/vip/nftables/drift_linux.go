package nftables

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"syscall"
	"time"

	nft "github.com/google/nftables"
)

const (
	lookEvery  = 250 * time.Millisecond // at the generation: one small message
	retryEvery = time.Second            // after the kernel refused
	// forgetAfter is how long what an earlier process left stays when the
	// catalog does not say that it is complete.
	forgetAfter = 30 * time.Second
)

// Run looks after what is programmed until ctx ends: it notices changes by
// others and tries again what the kernel refused. The rules stay.
func (d *Driver) Run(ctx context.Context) error {
	ended := make(chan error, 1)
	go func() { ended <- d.checks.Run(ctx) }()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			d.look()
		case <-d.wake:
			d.lookBeside(ctx)
		case <-ctx.Done():
			err := <-ended
			d.mu.Lock()
			d.k.close()
			d.mu.Unlock()
			return err
		}
	}
}

// lookBeside looks at the flows after a pause in which more may come.
func (d *Driver) lookBeside(ctx context.Context) {
	d.mu.Lock()
	pause := 3 * d.udpCost
	d.mu.Unlock()
	select {
	case <-ctx.Done():
		return
	case <-time.After(pause):
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lookAtFlows()
}

// look is what is done all the time. It costs one message when nobody else
// changed the ruleset.
func (d *Driver) look() {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.cfg.Now()
	if !d.started {
		return
	}
	if d.broken == nil && d.adopted != nil && now.Sub(d.since) >= forgetAfter {
		if err := d.forget(); err != nil {
			d.broken = err
		}
	}
	if d.broken != nil {
		if !now.Before(d.retryAt) {
			_ = d.repair()
		}
		return
	}
	gen, err := d.k.generation()
	if err != nil {
		return
	}
	if gen != d.gen {
		d.strange, d.gen = true, gen
		for i := range d.families {
			if f := d.families[i]; f != nil && !d.whole(f) {
				d.cfg.Log.Warn("nftables: somebody changed our rules; they are put right", "table", f.table.Name, "ipv6", f.v6)
				d.broken = errors.New("rules are missing")
			}
		}
	}
	if d.strange && d.broken == nil && now.Sub(d.checked) >= max(d.cfg.Resync, 100*d.cost) {
		d.broken = errors.New("comparison due")
	}
	if d.broken != nil {
		_ = d.repair()
	}
}

// whole says whether the chains of a family are as they should be.
func (d *Driver) whole(f *family) bool {
	ok, err := d.k.intact(f, slices.Collect(maps.Keys(d.plans[index(f.v6)]))...)
	return ok && err == nil
}

// start takes over what is in the kernel. If that is nothing of ours, or of
// another version, the structure is made when the first frontends come.
func (d *Driver) start() {
	d.started = true
	d.checked = d.cfg.Now()
	d.plans = [2]map[plan]bool{{}, {}}
	d.gen, _ = d.k.generation()
	adopted := map[place]content{}
	for i, f := range d.families {
		if f == nil {
			continue
		}
		ok, err := d.k.intact(f)
		if err == nil && ok {
			err = d.k.read(f, adopted)
		} else if err == nil {
			var there bool
			if there, err = d.k.exists(f); err == nil && there {
				err = errors.New("the rules are of another version")
			} else if err == nil {
				err = d.transact(f.addStructure, func() { d.plans[i] = map[plan]bool{} })
			}
		}
		if err != nil {
			d.cfg.Log.Info("nftables: replace what is in the kernel", "ipv6", f.v6, "because", err)
			d.broken = err
			return
		}
	}
	if len(adopted) > 0 {
		d.cfg.Log.Info("nftables: take over what an earlier process left", "elements", len(adopted))
		d.adopted = adopted
		for f := range d.udp { // nothing yet
			delete(d.udp, f)
		}
	}
}

// exists says whether there is a table of ours.
func (k *kernel) exists(f *family) (bool, error) {
	c, err := k.open()
	if err != nil {
		return false, err
	}
	tables, err := c.ListTablesOfFamily(f.table.Family)
	if err != nil {
		k.close()
		return false, err
	}
	for _, t := range tables {
		if t.Name == f.table.Name {
			return true, nil
		}
	}
	return false, nil
}

// forget removes what an earlier process left and nobody wants any more.
func (d *Driver) forget() error {
	t := d.newTxn()
	for at, c := range d.adopted {
		t.del = append(t.del, element{at, c})
	}
	d.adopted = nil
	if err := d.commit(t); err != nil {
		d.broken = err
		return d.repair()
	}
	return nil
}

// repair makes the kernel have exactly what it should, in one transaction, by
// comparing with what it has. While the catalog is not complete, what an
// earlier process left is not removed.
func (d *Driver) repair() error {
	if !d.cfg.Now().Before(d.retryAt) || d.retryAt.IsZero() {
		d.retryAt = d.cfg.Now().Add(retryEvery)
		d.metrics.repaired()
		began := time.Now()
		err := d.compare()
		d.cost = time.Since(began)
		if err != nil {
			d.broken = err
			d.cfg.Log.Warn("nftables: the kernel does not have what it should; it is tried again", "error", err)
			return err
		}
		d.broken, d.retryAt = nil, time.Time{}
		return nil
	}
	return d.broken
}

func (d *Driver) compare() error {
	t := d.newTxn()
	desired := d.desired()
	actual := map[place]content{}
	var anew [2]bool
	var drop [2]bool
	for i, f := range d.families {
		if f == nil {
			continue
		}
		ok, err := d.k.intact(f)
		if err != nil {
			return fmt.Errorf("read the rules: %w", err)
		}
		if !ok {
			anew[i] = true
			if drop[i], err = d.k.exists(f); err != nil {
				return fmt.Errorf("read the tables: %w", err)
			}
			t.plans[i] = d.wanted(f.v6)
			continue
		}
		if err := d.k.read(f, actual); err != nil {
			return err
		}
		have, err := d.k.known(f)
		if err != nil {
			return err
		}
		labels, err := d.k.labels(f)
		if err != nil {
			return err
		}
		for _, p := range d.wanted(f.v6) {
			if !have[native(p.id())] || p.what == "lb" && !f.same(f.planChain(p), labels) {
				t.plans[i] = append(t.plans[i], p)
			}
		}
	}
	for at, c := range desired {
		switch a, there := actual[at]; {
		case there && a == c:
		case there:
			t.del = append(t.del, element{at, a})
			fallthrough
		default:
			t.add = append(t.add, element{at, c})
		}
	}
	kept := d.adopted
	for at, c := range actual {
		if _, wanted := desired[at]; wanted {
			delete(kept, at)
			continue
		}
		if _, keep := kept[at]; !keep {
			t.del = append(t.del, element{at, c})
		}
	}
	for at := range kept {
		if _, there := actual[at]; !there {
			delete(kept, at)
		}
	}
	counts := map[place]int{}
	for _, p := range d.fronts {
		for _, e := range p.elements(&d.shape, nil) {
			if e.set.counted() {
				counts[e.place]++
			}
		}
	}
	d.counts = counts
	if !t.empty() || anew[0] || anew[1] {
		structure := func(c *nft.Conn) error {
			for i, f := range d.families {
				if drop[i] {
					c.DelTable(f.table)
				}
				if anew[i] {
					if err := f.addStructure(c); err != nil {
						return err
					}
				}
			}
			return nil
		}
		err := d.transact(func(c *nft.Conn) error { return errors.Join(structure(c), t.fill(c)) }, func() {})
		if errors.Is(err, syscall.EMSGSIZE) || errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.ENOMEM) {
			err = d.inPieces(structure, t)
		}
		if err != nil {
			return err
		}
	}
	for i, f := range d.families {
		d.plans[i] = map[plan]bool{}
		if f != nil {
			for _, p := range d.wanted(f.v6) {
				d.plans[i][p] = true
			}
		}
	}
	d.strange, d.checked = false, d.cfg.Now()
	return nil
}

// inPieces does in many transactions what is too big for one. An element and
// what it replaces go together.
func (d *Driver) inPieces(structure func(*nft.Conn) error, t *txn) error {
	plans := &txn{d: d, plans: t.plans}
	if err := d.transact(func(c *nft.Conn) error { return errors.Join(structure(c), plans.fill(c)) }, func() {}); err != nil {
		return err
	}
	const piece = 500
	adds := make(map[place]element, len(t.add))
	for _, e := range t.add {
		adds[e.place] = e
	}
	part := d.newTxn()
	send := func(least int) error {
		if len(part.del)+len(part.add) < least {
			return nil
		}
		err := d.commit(part)
		part = d.newTxn()
		return err
	}
	for _, e := range t.del {
		part.del = append(part.del, e)
		if a, ok := adds[e.place]; ok {
			part.add = append(part.add, a)
			delete(adds, e.place)
		}
		if err := send(piece); err != nil {
			return err
		}
	}
	for _, a := range adds {
		part.add = append(part.add, a)
		if err := send(piece); err != nil {
			return err
		}
	}
	return send(1)
}
